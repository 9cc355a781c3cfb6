//! Which folders are guarded: those of sockets (and of their pins) that a cleaner may visit, while their instance lives.
//!
//! A folder that a rule of a cleaner names itself is everybody's (`/tmp`) and is not locked: its sockets' times are
//! renewed all the same, as PostgreSQL renews those of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::tmpfiles;
use crate::supervisor::Supervisor;
use crate::supervisor::socket::Socket;
use crate::sys::guard::{self, Guard};

/// How often times are renewed: well below the least age that anybody cleans by.
const RENEWED: Duration = Duration::from_secs(3600);

/// The guards that are held, and what stood in the way of others.
#[derive(Debug)]
pub struct Guards {
    cleaned: BTreeSet<PathBuf>,
    held: BTreeMap<PathBuf, Guard>,
    /// Folders that could not be locked, and times that could not be renewed.
    pub refused: BTreeMap<PathBuf, Errno>,
    renew: Instant,
}

impl Guards {
    /// None yet; which folders are cleaned is read now.
    pub fn new() -> Guards {
        Guards {
            cleaned: tmpfiles::cleaned(),
            held: BTreeMap::new(),
            refused: BTreeMap::new(),
            renew: Instant::now(),
        }
    }

    /// Whether a cleaner may visit what lies there.
    pub fn visited(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|folder| self.cleaned.contains(folder))
    }

    /// How many folders are locked.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Holds a guard on each of these folders, as they lie there now, and on no other; now and then makes them, and
    /// these sockets, young.
    pub fn mind<'a>(&mut self, folders: &'a BTreeSet<PathBuf>, sockets: impl Iterator<Item = &'a Path>) {
        self.set(folders);
        let now = Instant::now();
        if self.renew > now {
            return;
        }
        self.renew = now + RENEWED;
        let young =
            sockets.chain(folders.iter().map(PathBuf::as_path).filter(|f| !self.cleaned.contains(*f)));
        let refused: Vec<_> = young
            .filter_map(|path| guard::touch(path).err().map(|errno| (path.to_owned(), errno)))
            .filter(|(_, errno)| *errno != Errno::ENOENT)
            .collect();
        self.refused.extend(refused);
    }

    /// Lets go of all.
    pub fn drop_all(&mut self) {
        self.held.clear();
    }

    fn set(&mut self, folders: &BTreeSet<PathBuf>) {
        self.held.retain(|path, guard| folders.contains(path) && guard.is_of(path));
        self.refused.clear();
        for folder in folders {
            self.hold(folder);
        }
    }

    fn hold(&mut self, folder: &Path) {
        if self.held.contains_key(folder) || self.cleaned.contains(folder) {
            return;
        }
        match Guard::take(folder) {
            Ok(guard) => drop(self.held.insert(folder.to_owned(), guard)),
            // Lost just now: it is guarded when it is back.
            Err(Errno::ENOENT) => {}
            Err(errno) => drop(self.refused.insert(folder.to_owned(), errno)),
        }
    }
}

impl Supervisor {
    /// Guards the folders of a socket that was just pinned.
    pub(in crate::supervisor) fn guard(&mut self, name: &Arc<str>, index: usize) {
        let Some(socket) = self.services.get(name).and_then(|service| service.sockets.get(index)) else {
            return;
        };
        if self.guards.visited(&socket.path) {
            folders(socket).for_each(|folder| self.guards.hold(folder));
        }
    }

    /// Lets go of the folders of a service whose listeners are about to end: nothing of ours keeps their mount busy.
    pub(in crate::supervisor) fn unguard(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let guards = &mut self.guards;
        // Whoever shares a folder has it guarded again at the next period.
        service.sockets.iter().flat_map(folders).for_each(|folder| drop(guards.held.remove(folder)));
    }

    /// Each period: guards what is to be guarded now, and now and then makes it young.
    pub(in crate::supervisor) fn mind_guards(&mut self) {
        let lives = self.services.values().filter(|service| service.instance.is_some());
        let sockets: Vec<&Socket> = lives
            .flat_map(|service| &service.sockets)
            .filter(|socket| socket.known.is_some() && self.guards.visited(&socket.path))
            .collect();
        let set: BTreeSet<PathBuf> = sockets.iter().copied().flat_map(folders).map(Path::to_owned).collect();
        // A pin is the socket's own inode.
        let well = sockets.iter().filter(|socket| socket.is_ok() && !socket.has_moved()).map(|s| s.place());
        self.guards.mind(&set, well);
    }
}

/// Where a socket and its pin lie.
fn folders(socket: &Socket) -> impl Iterator<Item = &Path> {
    let pin = socket.care.pin.as_ref().map(|pin| pin.folder().path());
    socket.place().parent().into_iter().chain(pin)
}
