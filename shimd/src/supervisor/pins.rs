//! The pins of all services: where they are made, how they are named, and which are swept.
//!
//! A pin is named `<tag>.<service>.<hash of the path>`: the tag is the home's, so that two daemons below one root do not
//! meet, and the rest says to a later run, or to somebody who looks, whose it is. A daemon that ends leaves its pins: its
//! services live on, and the next daemon can put back what they have lost meanwhile.
//!
//! | a pin in one of our folders | is |
//! | --- | --- |
//! | of our home, of a declared socket of an instance that lives | kept |
//! | of our home, of nobody | removed |
//! | of another home, somebody listens on it | kept |
//! | of another home, nobody listens on it | removed |
//!
//! A folder that is empty then is removed too.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use socket_audit::{Auditor, Expect, Owner, Verdict, Witness};

use super::Supervisor;
use crate::sys::pin::{self, Pin, PinError, PinFolder};
use crate::sys::tree;

/// The folders of pins that are open, and how pins are named.
pub struct Pins {
    root: PathBuf,
    tag: String,
    open: BTreeMap<PathBuf, Arc<PinFolder>>,
}

impl Pins {
    /// The pins of a home, for sockets below `root` and elsewhere.
    pub fn new(root: &Path, tag: &str) -> Pins {
        Pins { root: root.to_owned(), tag: tag.to_owned(), open: BTreeMap::new() }
    }

    /// Pins a socket; `ino`: as [`Pin::make`].
    ///
    /// # Errors
    /// Why the best of its places will not do, where none does.
    pub fn make(&mut self, service: &str, socket: &Path, ino: u32) -> Result<Pin, PinError> {
        let name = self.name(service, socket);
        let mut why = None;
        for place in self.places(socket) {
            match self.make_at(&place, socket, &name, ino) {
                Ok(pin) => return Ok(pin),
                Err(e) => {
                    // One that has just lost its dentry cannot be linked to anywhere.
                    let gone = e.errno == Errno::ENOENT && socket.symlink_metadata().is_err();
                    let hopeless = gone || matches!(e.errno, Errno::EPERM | Errno::ESTALE);
                    why.get_or_insert(e);
                    if hopeless {
                        break;
                    }
                }
            }
        }
        Err(why.unwrap_or_else(|| PinError::nowhere(socket)))
    }

    /// The pin that an earlier run left of a socket.
    pub fn found(&mut self, service: &str, socket: &Path, ino: u32) -> Option<Pin> {
        let name = self.name(service, socket);
        let places = self.places(socket);
        places.iter().filter(|place| place.is_dir()).find_map(|place| {
            let folder = self.folder(place, socket).ok()?;
            Pin::found(socket, &folder, &name, ino)
        })
    }

    /// Removes what an earlier run has left of a socket that is about to die, whichever inode it is of.
    fn remove_left(&mut self, service: &str, socket: &Path) {
        let name = self.name(service, socket);
        let places = self.places(socket);
        for place in places.iter().filter(|place| place.join(&name).symlink_metadata().is_ok()) {
            if let Ok(folder) = self.folder(place, socket) {
                folder.remove(&name);
            }
        }
    }

    /// Removes the folders that are empty by now.
    pub fn tidy(&mut self) {
        self.open.retain(|_, folder| !folder.remove_if_empty());
    }

    /// The places on the socket's own file system.
    fn places(&self, socket: &Path) -> Vec<PathBuf> {
        let device = |folder: Option<&Path>| folder?.metadata().ok().map(|found| found.dev());
        let own = device(socket.parent());
        let mut places = pin::places(socket, Some(&self.root));
        // A folder that went: whatever is left of the way.
        places.retain(|place| own.is_none() || device(place.parent()) == own);
        places
    }

    fn make_at(&mut self, place: &Path, socket: &Path, name: &OsString, ino: u32) -> Result<Pin, PinError> {
        let folder = self.folder(place, socket)?;
        match Pin::make(socket, &folder, name, ino) {
            // The folder of pins itself was removed.
            Err(e) if e.errno == Errno::ENOENT => {
                self.open.remove(place);
                let folder = self.folder(place, socket)?;
                Pin::make(socket, &folder, name, ino)
            }
            Err(e) if e.errno == Errno::EXDEV => {
                if folder.remove_if_empty() {
                    self.open.remove(place);
                }
                Err(e)
            }
            made => made,
        }
    }

    fn folder(&mut self, place: &Path, socket: &Path) -> Result<Arc<PinFolder>, PinError> {
        if let Some(folder) = self.open.get(place) {
            return Ok(folder.clone());
        }
        let folder = Arc::new(PinFolder::open(place).map_err(|e| PinError::folder(socket, &e))?);
        self.open.insert(place.to_owned(), folder.clone());
        Ok(folder)
    }

    fn name(&self, service: &str, socket: &Path) -> OsString {
        // The same hash as the home's tag: it is the same in every run and version.
        format!("{}.{service}.{}", self.tag, tree::home_tag(socket)).into()
    }
}

impl Supervisor {
    /// Takes away the pins of a service's sockets: they are about to die, but for those whose listener is kept.
    pub(super) fn drop_pins(&mut self, name: &Arc<str>) {
        self.unguard(name);
        let Some(service) = self.services.get_mut(name) else { return };
        let activation = &self.activation;
        // Of an instance that it did not spawn, or of a listener that it took back, this daemon may not have seen the pin.
        let earlier = service.times.spawned.is_none();
        for socket in service.sockets.iter_mut().filter(|s| !activation.keeps(name, &s.path)) {
            match socket.care.pin.take() {
                Some(pin) => {
                    if let Some(pin) = Arc::into_inner(pin) {
                        pin.remove();
                    }
                }
                None if earlier && socket.path.is_absolute() => self.pins.remove_left(name, &socket.path),
                None => {}
            }
            socket.care.lost = None;
        }
    }

    /// Removes pins that nobody owns, and folders of pins without any, left by a daemon that was killed.
    pub(super) fn sweep_pins(&mut self) {
        let mut ours = BTreeSet::new();
        let mut places = BTreeSet::new();
        for (name, service) in &self.services {
            for socket in service.sockets.iter().filter(|s| s.path.is_absolute()) {
                places.extend(self.pins.places(&socket.path).into_iter().filter(|place| place.is_dir()));
                if service.instance.is_some() || self.activation.keeps(name, &socket.path) {
                    ours.insert(self.pins.name(name, &socket.path));
                }
            }
        }
        for place in places {
            // Not ours to look into: another user's.
            let Ok(folder) = PinFolder::open(&place) else { continue };
            for name in folder.names() {
                if !ours.contains(&name) && self.is_nobodys(&name, &place) {
                    tracing::info!(pin = %place.join(&name).display(), "a pin that nobody owns is removed");
                    folder.remove(&name);
                }
            }
            // Those in use are tidied when a service comes to rest.
            if !self.pins.open.contains_key(&place) {
                folder.remove_if_empty();
            }
        }
    }

    fn is_nobodys(&mut self, name: &OsString, place: &Path) -> bool {
        let Some((tag, _)) = name.to_str().and_then(|name| name.split_once('.')) else { return false };
        let is_tag = tag.len() == self.tag.len() && tag.bytes().all(|b| b.is_ascii_hexdigit());
        is_tag && (tag == self.tag || nobody_listens(&mut self.auditor, &place.join(name)))
    }
}

/// Whether nothing lies at a path, or a socket file to which, by its own word, nobody is bound.
pub fn is_proven_free(path: &Path) -> bool {
    match Witness::of(path) {
        Ok(held) => held.is_bound() == Some(false),
        Err(errno) => errno == Errno::ENOENT,
    }
}

/// Whether nobody at all listens on a socket file; also not one that is bound and about to. True as well of a file that is
/// gone by now: somebody else has removed the dead socket.
pub fn nobody_listens(auditor: &mut Auditor, path: &Path) -> bool {
    if is_proven_free(path) {
        return true;
    }
    // One that was shut down for good is bound, and nobody's.
    let expect = Expect { owner: Owner::Pids(Vec::new()), ..Expect::path(path) };
    matches!(auditor.confirm(&expect).verdict, Verdict::Stale | Verdict::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_pinned_no_other_place_is_tried() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("web");
        std::fs::create_dir(&folder).unwrap();
        let mut pins = Pins::new(root.path(), "0123456789abcdef");
        let refused = pins.make("web", &folder.join("gone.sock"), 1).unwrap_err();
        assert_eq!(refused.errno, Errno::ENOENT);
        assert_eq!(pins.open.len(), 1, "{:?}", pins.open.keys());
    }
}
