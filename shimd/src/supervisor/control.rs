//! The daemon's own control socket, audited and put back like any other.
//!
//! Its folder is watched, and it is looked at every period. Lost, it is linked back from its pin, or else bound anew,
//! at once; when it is lost again and again, after a wait that doubles up to a minute: two programs that undo each
//! other's work must not spin.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shimd_api::event::{DoctorRow, EventDetail, EventKind};

use super::Supervisor;
use super::culprits;
use crate::server::{ControlHandle, RestoreError, Restored};

/// The first wait before a second repair.
const WAIT: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(60);

/// The control socket, as the supervisor minds it.
pub struct Control {
    handle: ControlHandle,
    path: PathBuf,
    /// When it was last seen in order.
    well_at: Instant,
    repaired: Option<Instant>,
    wait: Duration,
    /// No repair before this.
    pub next: Option<Instant>,
    /// How often in a row it could not be put back.
    failures: u32,
}

impl Control {
    /// The socket that the server has bound.
    pub fn new(handle: ControlHandle) -> Control {
        let path = handle.endpoint().path;
        Control { handle, path, well_at: Instant::now(), repaired: None, wait: WAIT, next: None, failures: 0 }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Supervisor {
    /// Looks at the control socket, and puts it back if it is lost.
    pub(super) fn mind_control(&mut self) {
        let asked = Instant::now();
        if self.control.next.is_some_and(|next| next > asked) {
            return;
        }
        self.control.next = None;
        if self.control.handle.look() {
            self.control.well_at = asked;
            if std::mem::take(&mut self.control.failures) > 0 {
                self.troubles.remove("control");
            }
            if self.control.repaired.is_some_and(|at| at.elapsed() > LONGEST) {
                (self.control.repaired, self.control.wait) = (None, WAIT);
            }
            return;
        }
        if let Some(at) = self.control.repaired
            && at.elapsed() < self.control.wait
        {
            self.control.next = Some(at + self.control.wait);
            return;
        }
        let path = self.control.path().to_owned();
        let culprit = self.blame.as_ref().ok().and_then(|blame| {
            culprits::last(blame, &path, self.control.well_at, |deed| deed.kind.replaces())
        });
        let culprit = culprit.as_ref().map(culprits::named);
        let detail = |verdict: &str, reason: String| EventDetail {
            path: Some(path.display().to_string()),
            verdict: Some(verdict.into()),
            reason: Some(reason),
            culprit: culprit.clone(),
            ..EventDetail::default()
        };
        let outcome = self.restore_control();
        if self.control.repaired.is_some() {
            self.control.wait = (self.control.wait * 2).min(LONGEST);
        }
        self.control.repaired = Some(asked);
        let (verdict, reason) = match outcome {
            Ok(Restored::Intact) => return,
            Ok(Restored::Relinked) => {
                ("ok", "it was lost: linked back, no connection was dropped".to_owned())
            }
            Ok(Restored::BoundAnew) => {
                ("ok", "it was lost with its pin: bound anew, connections that were open go on".to_owned())
            }
            Err(e) => {
                self.control.next = Some(asked + self.control.wait);
                self.troubles.insert("control", e.to_string());
                self.control.failures = self.control.failures.saturating_add(1);
                // It is said once, and not at the first look: a successor that takes the place ends this daemon at once.
                if self.control.failures != 2 || self.closing.is_some() {
                    return;
                }
                ("replaced", e.to_string())
            }
        };
        if verdict == "ok" {
            self.troubles.remove("control");
            self.control.failures = 0;
            self.control.well_at = Instant::now();
        }
        tracing::warn!(path = %path.display(), "the control socket: {reason}");
        self.record(None, EventKind::Control, detail(verdict, reason));
    }

    /// Where the socket is in place, its pin is too, or is made anew.
    pub(super) fn renew_control_pin(&mut self) {
        if self.control.handle.look()
            && let Err(e) = self.restore_control()
        {
            tracing::debug!("the control socket's pin: {e}");
        }
    }

    fn restore_control(&self) -> Result<Restored, RestoreError> {
        // A listener that is bound anew is the server's.
        let _within = self.clients.enter();
        self.control.handle.restore()
    }

    pub(super) fn control_row(&self) -> DoctorRow {
        let path = self.control.path().display();
        let (ok, detail, help) = match (self.troubles.get("control"), self.control.handle.pin_trouble()) {
            (Some(trouble), _) => (false, trouble.clone(), Some("remove what lies there".to_owned())),
            (None, Some(why)) => (
                false,
                format!("{path} is served, but has no pin: {why}"),
                Some("if its file is lost it will be bound anew, on another inode".into()),
            ),
            (None, None) => (true, format!("{path} is served and pinned"), None),
        };
        DoctorRow { check: "control".into(), ok, detail, help }
    }
}
