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

/// Who brought a socket's verdict about.
pub fn culprit(blame: &Blame, socket: &Socket) -> Option<Culprit> {
    let since = socket.well_at?;
    let fits: fn(&Deed) -> bool = match socket.verdict? {
        Verdict::Dangling | Verdict::Replaced | Verdict::Foreign | Verdict::NotSocket => {
            |deed| deed.kind.replaces()
        }
        Verdict::Denied => |deed| deed.kind == DeedKind::Attributes,
        _ => return None,
    };
    last(blame, &socket.path, since, fits)
}

/// The last fitting deed on a path.
pub fn last(blame: &Blame, path: &Path, since: Instant, fits: fn(&Deed) -> bool) -> Option<Culprit> {
    let own = std::process::id() as i32;
    let on_path = |deed: &Deed| {
        let done_to = deed.folder.join(&deed.name);
        // What was made or renamed to a name above does not take the path away by itself.
        path == done_to
            || path.starts_with(&done_to)
                && matches!(deed.kind, DeedKind::Removed | DeedKind::MovedAway { .. } | DeedKind::Attributes)
    };
    let deeds = blame.deeds_since(since);
    // The one that took the dentry away counts for more than the one that put another there.
    let takes = |deed: &&Deed| deed.kind != DeedKind::Created;
    let mine = || deeds.iter().filter(|deed| deed.who.pid != own && on_path(deed) && fits(deed));
    let deed = mine().rfind(takes).or_else(|| mine().next_back())?;
    let who = deed.who.clone();
    Some(Culprit { pid: who.pid, name: who.name, exe: who.exe, uid: who.uid })
}

impl Supervisor {
    /// Remembers a verdict whose culprit may still become known.
    pub(super) fn wait_for_culprit(&mut self, name: &Arc<str>, index: usize) {
        if self.blame.is_err() {
            return;
        }
        let Some(event) = self.services.get(name).and_then(|s| s.sockets.get(index)?.spell.as_ref()) else {
            return;
        };
        let until = Instant::now() + LATE;
        self.unexplained.push(Unexplained { service: name.clone(), index, event: event.event, until });
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
            match culprit(blame, socket) {
                Some(culprit) => {
                    found.push((open.service.clone(), open.index, culprit));
                    false
                }
                None => open.until > now,
            }
        });
        for (service, index, culprit) in found {
            self.record_culprit(&service, index, culprit);
        }
    }
}
