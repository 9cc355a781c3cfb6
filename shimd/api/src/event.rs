//! Events: what happened to services and sockets, as `event.list` and `event.follow` give it and `state.db` keeps it.
//!
//! | kind | when | of `detail` it holds |
//! | --- | --- | --- |
//! | `verdict` | a socket's verdict changed | `socket`, `path`, `verdict`, `was`, `lasted`, `reason`, `pid`, `culprit` |
//! | `culprit` | who did it became known after the `verdict` event was sent | `socket`, `path`, `verdict`, `culprit` |
//! | `relinked` | a lost dentry was put back from its pin | `socket`, `path`, `reason`, `pid`, `culprit` |
//! | `listener` | a listener that `shimd` keeps was bound anew, or not taken back | `socket`, `path`, `reason` |
//! | `state` | a service's state changed | `status`, `was`, `lasted`, `reason`, `pid` |
//! | `control` | the daemon's own control socket was lost, or put back | `path`, `verdict`, `reason`, `culprit` |
//! | `gap` | a follower read too slowly; never stored | `reason` |
//!
//! A field that does not apply is left out.

use serde::{Deserialize, Serialize};

use crate::wire::Culprit;

/// What kind of event; see the module's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A socket's verdict changed.
    Verdict,
    /// Who did it became known late.
    Culprit,
    /// A lost dentry was put back.
    Relinked,
    /// A listener that the daemon keeps.
    Listener,
    /// A service's state changed.
    State,
    /// The daemon's own control socket.
    Control,
    /// Events that a follower did not get.
    Gap,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 7] = [
        EventKind::Verdict,
        EventKind::Culprit,
        EventKind::Relinked,
        EventKind::Listener,
        EventKind::State,
        EventKind::Control,
        EventKind::Gap,
    ];

    /// The word of the table.
    pub fn as_str(self) -> &'static str {
        // A new kind belongs into `ALL` too.
        match self {
            EventKind::Verdict => "verdict",
            EventKind::Culprit => "culprit",
            EventKind::Relinked => "relinked",
            EventKind::Listener => "listener",
            EventKind::State => "state",
            EventKind::Control => "control",
            EventKind::Gap => "gap",
        }
    }
}

/// One row of `event.list`, and the params of each `event` notification of `event.follow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Counts events of this store, from 1; 0 for a `gap`.
    pub id: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The service; `null` for the daemon itself.
    pub service: Option<String>,
    /// What kind.
    pub kind: EventKind,
    /// The rest.
    pub detail: EventDetail,
}

/// What an event tells beside its kind; see the module's table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventDetail {
    /// The socket as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Its absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The verdict from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The state from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The verdict, or state, until now; left out where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// Nanoseconds that `was` lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted: Option<i64>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The listener's process, or the service's main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Who removed or replaced the dentry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<Culprit>,
}

/// One row of `shim.doctor`: something that this machine and user let `shimd` do, or do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorRow {
    /// What was looked at, in a word or two: `sock_diag`, `inotify`, `fanotify`, `cgroup`, `store`, …
    pub check: String,
    /// Whether all is well.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do; `null` where all is well.
    pub help: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_apply_is_left_out() {
        let row = EventRow {
            id: 7,
            time: "2026-01-01T00:00:00Z".into(),
            service: Some("web".into()),
            kind: EventKind::State,
            detail: EventDetail { status: Some("running".into()), ..EventDetail::default() },
        };
        let text = serde_json::to_string(&row).expect("JSON");
        let detail = r#""kind":"state","detail":{"status":"running"}}"#;
        assert!(text.ends_with(detail), "{text}");
        assert_eq!(serde_json::from_str::<EventRow>(&text).expect("an event"), row);
    }
}
