//! What the watcher says: which sockets an event in a folder concerns, and which folders are watched.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Supervisor;
use super::culprits::{self, Wanted};
use crate::sys::limits;
use crate::sys::watch::{Change, WatchEvent};

impl Supervisor {
    pub(super) fn on_changes(&mut self, changes: &mut Vec<WatchEvent>) {
        let mut lost = Vec::new();
        for change in changes.drain(..) {
            match change {
                WatchEvent::Folder { folder, name, kind } => {
                    if kind == Change::Folder {
                        self.blame_again(&folder);
                    }
                    if self.control.path().parent() == Some(&folder) {
                        self.mind_home();
                        self.mind_control();
                    }
                    for service in self.folders.get(&folder).into_iter().flatten() {
                        let Some(found) = self.services.get_mut(service) else { continue };
                        let Some(name) = &name else {
                            self.dirty.insert(service.clone(), None);
                            continue;
                        };
                        // The sockets of this name, or the service's ready marker.
                        let concerned = found.saw(name, kind);
                        lost.extend(
                            concerned
                                .iter()
                                .filter(|_| kind == Change::Removed)
                                .map(|i| (service.clone(), *i)),
                        );
                        if !concerned.is_empty() {
                            let some =
                                self.dirty.entry(service.clone()).or_insert_with(|| Some(BTreeSet::new()));
                            if let Some(some) = some {
                                some.extend(concerned);
                            }
                        } else if found.looks_at(name, &self.root) {
                            self.dirty.insert(service.clone(), None);
                        }
                    }
                }
                WatchEvent::Overflow | WatchEvent::Mounts => {
                    self.watch_changed = true;
                    // A file system that was unmounted took its marks along.
                    self.blamed.clear();
                    self.all_dirty();
                }
            }
        }
        for (name, index) in lost {
            self.heal_early(&name, index);
        }
    }

    /// Watches the folders of all declared sockets.
    pub(super) fn watch_folders(&mut self) {
        self.folders.clear();
        for (name, service) in &self.services {
            let sockets =
                service.sockets.iter().filter(|s| s.path.is_absolute()).filter_map(|s| s.path.parent());
            let marker = service.live_spec().marker_path(&self.root);
            let marker = service.live_spec().ready.marker.as_ref().and(marker.parent());
            for folder in sockets.chain(marker) {
                self.folders.entry(folder.to_owned()).or_default().insert(name.clone());
            }
        }
        let mut folders: BTreeSet<PathBuf> = self.folders.keys().cloned().collect();
        folders.extend(self.control.path().parent().map(PathBuf::from));
        self.watcher.set(&folders);
        let mut wanted = Wanted::new();
        let paths = self.services.values().flat_map(|s| &s.sockets).filter(|s| s.path.is_absolute());
        paths.for_each(|s| culprits::names_on(&s.path, &mut wanted));
        culprits::names_on(self.control.path(), &mut wanted);
        self.blame_folders(wanted);
        let sockets: usize = self.services.values().map(|s| s.sockets.len()).sum();
        self.holds = (sockets as u64) < limits::nofile() / 2;
        match self.watcher.unwatched().as_slice() {
            [] => self.troubles.remove("watch"),
            some => self.troubles.insert(
                "watch",
                format!(
                    "folders that cannot be watched (the inotify limit, fs.inotify.max_user_watches): {}; the audit every 5 s stands in",
                    some.len()
                ),
            ),
        };
    }
}
