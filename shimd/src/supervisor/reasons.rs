//! A verdict's reason, with what only the supervisor knows: the instance's past, whose the other processes are, and who
//! did it. Pure.
//!
//! | verdict | circumstance | what the reason begins or ends with |
//! | --- | --- | --- |
//! | absent | the instance lives and was never seen at the path | `never bound: …` |
//! | absent | the instance lives and was there | `closed and removed by the service: …` |
//! | stale | this generation was there and has ended | `exited without cleaning: …` |
//! | stale | the instance lives and was there | `closed and not removed: …` |
//! | replaced | something was renamed to the path | `renamed over: …` in place of `removed: …` |
//! | foreign, replaced | the other process bears a mark of ours | `…; an orphan of generation 3 of this service` |
//! | any with a culprit | | `removed by rm (pid 12, uid 0): …`, or at the end `…; by rm (pid 12, uid 0)` |

use shimd_api::wire::Culprit;
use socket_audit::{Cause, Finding, Verdict};

/// What the supervisor knows beside the finding.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The instance's main process, or another of its processes, lives.
    pub lives: bool,
    /// The socket was in order, at the hands of the service's present or last generation.
    pub was_there: bool,
    /// The last that the folder's watch saw of the name was that something was renamed to it.
    pub moved_in: bool,
    /// Of which service and generation the process is that holds another's listener, where it bears our mark.
    pub mark: Option<(&'a str, u64)>,
    /// The service.
    pub service: &'a str,
}

/// A reason in two parts, between which the culprit is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// What was done: `removed`, `renamed to /x`.
    pub done: Option<String>,
    /// How it stands.
    pub stands: String,
}

/// The reason of a finding.
pub fn reason(finding: &Finding, known: &Circumstances<'_>) -> Reason {
    let done = finding.cause.as_ref().map(|cause| match cause {
        Cause::Removed if known.moved_in && finding.verdict == Verdict::Replaced => "renamed over".to_owned(),
        cause => cause.to_string(),
    });
    let whole = finding.reason.as_ref();
    let stands =
        finding.cause.as_ref().and_then(|cause| whole.strip_prefix(&format!("{cause}: "))).unwrap_or(whole);
    let done = done.or_else(|| history(finding.verdict, known).map(str::to_owned));
    let stands = match known.mark {
        Some((service, generation)) if service == known.service => {
            format!("{stands}; an orphan of generation {generation} of this service")
        }
        Some((service, _)) => format!("{stands}; it is of the service {service}"),
        None => stands.to_owned(),
    };
    Reason { done, stands }
}

fn history(verdict: Verdict, known: &Circumstances<'_>) -> Option<&'static str> {
    match (verdict, known.lives, known.was_there) {
        (Verdict::Absent, true, false) => Some("never bound"),
        (Verdict::Absent, true, true) => Some("closed and removed by the service"),
        (Verdict::Stale, false, true) => Some("exited without cleaning"),
        (Verdict::Stale, true, true) => Some("closed and not removed"),
        _ => None,
    }
}

impl Reason {
    /// Of a dentry that was unlinked under its listener, in the audit's words.
    pub fn unlinked() -> Reason {
        Reason {
            done: Some(Cause::Removed.to_string()),
            stands: "nothing at the path, but the service still listens on the lost socket".into(),
        }
    }

    /// The whole; empty where there is nothing to say.
    pub fn words(&self, culprit: Option<&Culprit>) -> String {
        let stands = &self.stands;
        match (&self.done, culprit.map(by)) {
            (Some(done), Some(by)) => format!("{done} {by}: {stands}"),
            (Some(done), None) => format!("{done}: {stands}"),
            (None, Some(by)) => format!("{stands}; {by}"),
            (None, None) => stands.clone(),
        }
    }
}

fn by(culprit: &Culprit) -> String {
    let name = if culprit.name.is_empty() { "a process that has ended" } else { &culprit.name };
    match culprit.uid {
        Some(uid) => format!("by {name} (pid {}, uid {uid})", culprit.pid),
        None => format!("by {name} (pid {})", culprit.pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(
        verdict: Verdict,
        cause: Option<Cause>,
        stands: &str,
        known: Circumstances<'_>,
        by_rm: bool,
    ) -> String {
        let reason_text = cause.as_ref().map_or(stands.to_owned(), |cause| format!("{cause}: {stands}"));
        let finding = Finding {
            path: "/x".into(),
            verdict,
            reason: reason_text.into(),
            cause,
            listener: None,
            holder: None,
            others: Vec::new(),
            dentry: None,
            bound_not_listening: false,
        };
        let rm = Culprit { pid: 12, name: "rm".into(), exe: None, uid: Some(0) };
        reason(&finding, &known).words(by_rm.then_some(&rm))
    }

    const PLAIN: Circumstances<'static> =
        Circumstances { lives: true, was_there: true, moved_in: false, mark: None, service: "web" };

    #[test]
    fn the_culprit_stands_behind_what_was_done() {
        let removed = |by_rm| words(Verdict::Dangling, Some(Cause::Removed), "nothing there", PLAIN, by_rm);
        assert_eq!(removed(true), "removed by rm (pid 12, uid 0): nothing there");
        assert_eq!(removed(false), "removed: nothing there");
        let denied = words(Verdict::Unknown, None, "it may not be searched", PLAIN, true);
        assert_eq!(denied, "it may not be searched; by rm (pid 12, uid 0)");
        let over = Circumstances { moved_in: true, ..PLAIN };
        assert_eq!(
            words(Verdict::Replaced, Some(Cause::Removed), "a file", over, false),
            "renamed over: a file"
        );
    }

    #[test]
    fn the_instances_past_is_told() {
        let new = Circumstances { was_there: false, ..PLAIN };
        let gone = Circumstances { lives: false, ..PLAIN };
        assert_eq!(words(Verdict::Absent, None, "nothing", new, false), "never bound: nothing");
        assert_eq!(words(Verdict::Absent, None, "nothing", gone, false), "nothing");
        assert_eq!(words(Verdict::Stale, None, "a file", gone, false), "exited without cleaning: a file");
        let orphan = Circumstances { mark: Some(("web", 3)), ..PLAIN };
        let other = Circumstances { mark: Some(("db", 1)), ..PLAIN };
        let foreign = |known| words(Verdict::Foreign, None, "pid 5 listens", known, false);
        assert_eq!(foreign(orphan), "pid 5 listens; an orphan of generation 3 of this service");
        assert_eq!(foreign(other), "pid 5 listens; it is of the service db");
    }
}
