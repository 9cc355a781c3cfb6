//! What an instance says of itself: READY=1, and its ready marker.

use std::path::Path;
use std::time::{Duration, Instant};

use shimd_api::spec::Spec;

use super::Supervisor;
use super::activation::is_activated;
use super::service::{Instance, Service};
use super::socket::{MISSING, Socket};
use crate::sys::notify;

/// How long an instance lives before it is said to run, where nothing else tells: one that cannot start has mostly ended
/// by then.
const ALIVE: Duration = Duration::from_millis(100);

/// Whether an instance has said that it is ready, in each way that its spec asks for.
pub fn said_ready(spec: &Spec, notified: bool, root: &Path) -> bool {
    (notified || !spec.ready.notify)
        && (spec.ready.marker.is_none() || spec.marker_path(root).symlink_metadata().is_ok())
}

/// An instance that declares nothing to look at, or only what listened before it began, runs when it has lived for a
/// moment.
pub fn outlived(spec: &Spec, spawned: Option<Instant>) -> bool {
    let silent = spec.sockets.iter().all(is_activated) && !spec.ready.notify && spec.ready.marker.is_none();
    !silent || spawned.is_none_or(|at| at.elapsed() >= ALIVE)
}

/// Why clients cannot reach these sockets, or what their instance has not said; `None` where all is well.
pub fn unreached(
    sockets: &[Socket],
    ready: bool,
    spec: &Spec,
    notified: bool,
    root: &Path,
) -> Option<String> {
    let bad = sockets.iter().filter(|s| !s.is_ok());
    let mut words: Vec<String> = bad.map(Socket::trouble).collect();
    // The contract's sentence comes first, whatever else is wrong.
    words.sort_by_key(|w| !w.starts_with(MISSING));
    if words.is_empty() && !ready {
        if spec.ready.notify && !notified {
            words.push("its sockets are ok, but it has not sent READY=1".into());
        } else if spec.ready.marker.is_some() {
            let marker = spec.marker_path(root);
            words.push(format!("its sockets are ok, but its ready marker {} is not there", marker.display()));
        }
    }
    (!words.is_empty()).then(|| words.join("; "))
}

/// Whether a message is of one of this instance's processes: as the kernel says, or, of a helper that is gone already, its mark.
fn is_from(instance: &Instance, message: &notify::Message) -> bool {
    instance.identity.pid == message.pid
        || message.mark.as_deref() == Some(instance.tree.mark())
        || instance.tree.pids_now().contains(&message.pid)
}

fn take_note(service: &mut Service, message: &notify::Message) -> bool {
    let first = (service.instance.as_ref(), &mut service.notified);
    let second = (service.second.instance.as_ref(), &mut service.second.notified);
    for (instance, notified) in [first, second] {
        if !*notified && instance.is_some_and(|i| i.spec.ready.notify && is_from(i, message)) {
            *notified = true;
            return true;
        }
    }
    false
}

impl Supervisor {
    /// sd_notify.
    pub(super) fn on_note(&mut self, message: &notify::Message) {
        if !message.notification.ready {
            return;
        }
        let main = self.mains.get(&message.pid).cloned();
        let may_be = |s: &&mut Service| main.as_ref().is_none_or(|main| *main == s.name);
        let mut services = self.services.values_mut().filter(may_be);
        let name = services.find_map(|s| take_note(s, message).then(|| s.name.clone()));
        if let Some(name) = name {
            self.look_at_second(&name);
            self.dirty.insert(name, None);
        }
    }
}
