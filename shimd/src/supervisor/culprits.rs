//! Who lost a socket its dentry: the verdict on one side, what the blame watch saw on the other.
//!
//! A deed counts if it was done to the dentry, or to a folder on its path, after the last audit that found the socket in
//! order began; of several the last. It is mostly there when the verdict is: the watch reads it at the same instant.
//! One that comes later is told by an event of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shimd_api::wire::Culprit;
use socket_audit::Verdict;

use super::Supervisor;
use super::socket::Socket;
use crate::sys::blame::{Blame, Deed, DeedKind};

/// So long after its verdict a culprit may still become known.
const LATE: Duration = Duration::from_secs(2);

/// A socket whose verdict was told without a culprit.
pub struct Unexplained {
    service: Arc<str>,
    index: usize,
    event: u64,
    until: Instant,
}

/// Folders, and the names in each that matter.
pub type Wanted = BTreeMap<PathBuf, BTreeSet<OsString>>;

/// The dentries that matter for a path: its own, and those of the folders above.
pub fn names_on(path: &Path, wanted: &mut Wanted) {
    for step in path.ancestors() {
        if let (Some(folder), Some(name)) = (step.parent(), step.file_name()) {
            let names = wanted.entry(folder.to_owned()).or_default();
            names.insert(name.to_owned());
            // The folder's own mode.
            names.insert(".".into());
        }
    }
}

/// Whether somebody may have brought a verdict about by what was done to the dentry.
fn has_culprit(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Dangling | Verdict::Replaced | Verdict::Foreign | Verdict::NotSocket | Verdict::Denied
    )
}

/// What brought about that a socket, last found in order, has this verdict.
pub fn deed(blame: &Blame, socket: &Socket, verdict: Verdict) -> Option<Deed> {
    let since = socket.well_at?;
    let fits: fn(&Deed) -> bool = match verdict {
        Verdict::Denied => |deed| deed.kind == DeedKind::Attributes,
        verdict if has_culprit(verdict) => |deed| deed.kind.replaces(),
        _ => return None,
    };
    last(blame, &socket.path, since, fits)
}

/// The last fitting deed on a path.
pub fn last(blame: &Blame, path: &Path, since: Instant, fits: fn(&Deed) -> bool) -> Option<Deed> {
    let own = std::process::id() as i32;
    let takes_along = |deed: &Deed| {
        // What was made or renamed to a name above does not take the path away by itself.
        matches!(deed.kind, DeedKind::Removed | DeedKind::MovedAway { .. } | DeedKind::Attributes)
    };
    let on_path = |deed: &Deed| {
        let done_to = deed.folder.join(&deed.name);
        path == done_to || path.starts_with(&done_to) && takes_along(deed)
    };
    let mut deeds = blame.deeds_since(since);
    deeds.retain(|deed| deed.who.pid != own && on_path(deed) && fits(deed));
    // The one that took the dentry away counts for more than the one that put another there.
    let at = deeds.iter().rposition(|deed| deed.kind != DeedKind::Created).or(deeds.len().checked_sub(1))?;
    Some(deeds.swap_remove(at))
}

/// Who did a deed.
pub fn named(deed: &Deed) -> Culprit {
    let who = deed.who.clone();
    Culprit { pid: who.pid, name: who.name, exe: who.exe, uid: who.uid }
}

impl Supervisor {
    /// Remembers a verdict whose culprit may still become known.
    pub(super) fn wait_for_culprit(&mut self, name: &Arc<str>, index: usize) {
        if self.blame.is_err() {
            return;
        }
        let now = Instant::now();
        self.unexplained.retain(|open| open.until > now);
        let socket = self.services.get(name).and_then(|s| s.sockets.get(index));
        let open = socket.filter(|s| s.culprit.is_none() && s.verdict.is_some_and(has_culprit));
        let Some(spell) = open.and_then(|s| s.spell.as_ref()) else { return };
        let (service, event, until) = (name.clone(), spell.event, now + LATE);
        self.unexplained.push(Unexplained { service, index, event, until });
    }

    /// Marks what `watch_folders` found to be wanted; what is marked already stays.
    pub(super) fn blame_folders(&mut self, wanted: Wanted) {
        let Ok(blame) = &self.blame else { return };
        for folder in self.blamed.keys().filter(|folder| !wanted.contains_key(*folder)) {
            blame.give_up(folder);
        }
        for (folder, names) in
            wanted.iter().filter(|(folder, names)| self.blamed.get(*folder) != Some(*names))
        {
            blame.put(folder, names);
        }
        self.blamed = wanted;
    }

    /// A folder, or one above it, is another than before: it needs new marks.
    pub(super) fn blame_again(&mut self, folder: &Path) {
        let Ok(blame) = &self.blame else { return };
        for step in folder.ancestors() {
            if let Some(names) = self.blamed.get(step) {
                blame.put(step, names);
            }
        }
    }

    /// New deeds were seen.
    pub(super) fn on_deeds(&mut self) {
        let now = Instant::now();
        let Ok(blame) = &self.blame else { return };
        let mut found = Vec::new();
        self.unexplained.retain(|open| {
            let socket = self.services.get(&open.service).and_then(|s| s.sockets.get(open.index));
            // Another verdict has come since: that one has, or awaits, its own.
            let socket = socket.filter(|s| s.spell.as_ref().is_some_and(|spell| spell.event == open.event));
            let Some(socket) = socket.filter(|s| s.culprit.is_none()) else { return false };
            match socket.verdict.and_then(|verdict| deed(blame, socket, verdict)) {
                Some(deed) => {
                    found.push((open.service.clone(), open.index, named(&deed)));
                    false
                }
                None => open.until > now,
            }
        });
        for (service, index, culprit) in found {
            self.record_culprit(&service, index, culprit);
        }
        self.heal_seen();
    }
}
