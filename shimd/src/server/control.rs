//! The control socket's names: the dentry, its pin, and how a lost one is put back.
//!
//! | at the path | then |
//! | --- | --- |
//! | our socket | nothing to do, but for the pin, which is renewed if it went |
//! | nothing | the folder is made again if it went; the pin is linked back; with no pin, a new socket is bound |
//! | a socket that nobody listens on | it is removed, and then as for nothing |
//! | another's live socket, a file, a folder, a link | it stays: [`RestoreError::Occupied`] |
//!
//! Ours is what has the device and inode of the bind. While the listener is open no other file can have that inode
//! number, so the comparison is proof. Names that are ours in a folder which has since been moved away, or mounted over,
//! are removed once the socket is back in its place, and all of them at the end.

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use interprocess::os::unix::uds_local_socket::tokio::Listener;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, lstat};
use socket_audit::{AuditError, Auditor, Expect, Owner, Verdict};
use tokio::sync::mpsc;

use super::pin::{Pin, PinError};
use super::socket::{self, Endpoint, ServerError};
use crate::sys::clean::{self, CleanError};
use crate::sys::folder::{self, FolderError};
use crate::sys::pin::{Inode, inode_at, remove_if};

/// How often the path may change under a restoration before that is given up.
const ATTEMPTS: u32 = 4;

/// How the control socket came to be in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It had not left it.
    Intact,
    /// Its pin was linked back: the same socket, and no client noticed.
    Relinked,
    /// A new socket was bound. Connections go on; who waited to be accepted is.
    BoundAnew,
}

/// Why the control socket could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Something lies in its place that is never removed.
    #[error("{}: {found} lies in the control socket's place and is left alone; {help}, and it is put back", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: String,
        /// What to do.
        help: String,
    },
    /// What lies at the path changed again and again.
    #[error("{}: others use the control socket's path at this moment; find out who, and stop them", path.display())]
    Contested {
        /// The path.
        path: PathBuf,
    },
    /// The path cannot be looked at.
    #[error("cannot look at the control socket's path {}: {}; give this user back the right to search its folders", path.display(), errno.desc())]
    Look {
        /// The path.
        path: PathBuf,
        /// The error of lstat(2).
        errno: Errno,
    },
    /// Its folder cannot be had.
    #[error("the control socket's folder: {0}")]
    Folder(#[from] FolderError),
    /// A socket that nobody listens on lies in its place, and cannot be removed.
    #[error("a dead socket in the control socket's place: {0}")]
    Clean(#[from] CleanError),
    /// A socket lies in its place, and whether anybody listens on it cannot be told.
    #[error("a socket lies in the control socket's place: {0}")]
    Audit(#[from] AuditError),
    /// It cannot be bound.
    #[error(transparent)]
    Bind(ServerError),
    /// The server has ended.
    #[error("the server has ended: start shimd again")]
    Ended,
}

/// The control socket of a server that serves, or is yet to: to look after it from another task.
#[derive(Debug, Clone)]
pub struct ControlHandle(Arc<Control>);

/// What the handles share.
#[derive(Debug)]
struct Control {
    path: PathBuf,
    parent: PathBuf,
    name: OsString,
    successors: mpsc::UnboundedSender<Listener>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    endpoint: Endpoint,
    /// The folder in which the dentry was put.
    folder: OwnedFd,
    pin: Result<Pin, PinError>,
    ended: bool,
}

/// The names of one server's control socket. Dropping it removes them, as far as they are still this socket's.
#[derive(Debug)]
pub(super) struct Names(ControlHandle);

/// What lies at the path.
enum At {
    Ours,
    Nothing,
    Socket,
    Other(&'static str),
}

impl Names {
    /// Binds the control socket. Gives its listener, and where the listeners come from that take its place.
    pub(super) fn bind(
        path: &Path,
    ) -> Result<(Names, Listener, mpsc::UnboundedReceiver<Listener>), ServerError> {
        let (parent, name) = socket::split(path)?;
        let folder = socket::open_folder(parent)?;
        let (listener, endpoint) = socket::bind(path, name, &folder)?;
        let (names, successors) = Names::of(path, endpoint)?;
        Ok((names, listener, successors))
    }

    /// The names of a socket that is bound and at its path, which is pinned now.
    pub(super) fn of(
        path: &Path,
        endpoint: Endpoint,
    ) -> Result<(Names, mpsc::UnboundedReceiver<Listener>), ServerError> {
        let (parent, name) = socket::split(path)?;
        let folder = socket::open_folder(parent)?;
        let pin = Pin::make(parent, &folder, name, endpoint.inode());
        let (successors, incoming) = mpsc::unbounded_channel();
        let state = Mutex::new(State { endpoint, folder, pin, ended: false });
        let control =
            Control { path: path.into(), parent: parent.into(), name: name.into(), successors, state };
        Ok((Names(ControlHandle(Arc::new(control))), incoming))
    }

    pub(super) fn handle(&self) -> &ControlHandle {
        &self.0
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let control = &self.0.0;
        let mut state = control.state();
        state.ended = true;
        remove_if(&state.folder, &control.name, state.endpoint.inode());
        state.drop_pin();
    }
}

impl ControlHandle {
    /// How to find the socket, for an audit. It changes when the socket is bound anew.
    pub fn endpoint(&self) -> Endpoint {
        self.0.state().endpoint.clone()
    }

    /// Why there is no pin; `None` if there is one.
    pub fn pin_trouble(&self) -> Option<PinError> {
        self.0.state().pin.as_ref().err().cloned()
    }

    /// Whether the socket is in its place: one lstat(2).
    pub fn look(&self) -> bool {
        let inode = self.0.state().endpoint.inode();
        lstat(&self.0.path).is_ok_and(|found| (found.st_dev, found.st_ino) == inode)
    }

    /// Sees to it that the socket is in its place, and pinned. Where it is, this costs a few looks at files; where
    /// another socket lies there, an audit of it. Call it within the server's runtime.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing was removed but a socket that nobody listens on.
    pub fn restore(&self) -> Result<Restored, RestoreError> {
        let mut state = self.0.state();
        if state.ended {
            return Err(RestoreError::Ended);
        }
        for _ in 0..ATTEMPTS {
            match self.0.at_path(state.endpoint.inode())? {
                At::Ours => {
                    if let Ok(folder) = socket::open_folder(&self.0.parent) {
                        self.0.moved_to(&mut state, folder);
                    }
                    return Ok(Restored::Intact);
                }
                At::Nothing => {
                    if let Some(restored) = self.0.put_back(&mut state)? {
                        return Ok(restored);
                    }
                }
                At::Socket => self.0.remove_dead()?,
                At::Other(found) => {
                    return Err(self.0.occupied(found, "move it away"));
                }
            }
        }
        Err(RestoreError::Contested { path: self.0.path.clone() })
    }
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked; were it so, a restoration would find out what is left.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn occupied(&self, found: impl Into<String>, help: impl Into<String>) -> RestoreError {
        RestoreError::Occupied { path: self.path.clone(), found: found.into(), help: help.into() }
    }

    fn at_path(&self, ours: Inode) -> Result<At, RestoreError> {
        let found = match lstat(&self.path) {
            Ok(found) => found,
            // What has become of the folder is found when it is opened.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(At::Nothing),
            Err(errno) => return Err(RestoreError::Look { path: self.path.clone(), errno }),
        };
        if (found.st_dev, found.st_ino) == ours {
            return Ok(At::Ours);
        }
        Ok(match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFSOCK => At::Socket,
            SFlag::S_IFDIR => At::Other("a folder"),
            SFlag::S_IFLNK => At::Other("a symbolic link"),
            SFlag::S_IFREG => At::Other("a regular file"),
            SFlag::S_IFIFO => At::Other("a FIFO"),
            _ => At::Other("a device"),
        })
    }

    /// Removes a socket that nobody listens on.
    fn remove_dead(&self) -> Result<(), RestoreError> {
        let auditor = RefCell::new(Auditor::new()?);
        let look = |path: &Path| {
            let expect = Expect { owner: Owner::Pids(Vec::new()), ..Expect::path(path) };
            auditor.borrow_mut().confirm(&expect)
        };
        let finding = look(&self.path);
        match finding.verdict {
            // Asked again by the removal, before and after it has moved the socket aside.
            Verdict::Stale => {
                clean::remove_socket(&self.path, &|seen| look(&seen.path).verdict == Verdict::Stale)?;
                Ok(())
            }
            // It went or became something else by itself.
            Verdict::Absent | Verdict::NotSocket => Ok(()),
            Verdict::Foreign => {
                let holder = finding.others.first().and_then(|party| party.holder.as_ref());
                let who = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
                let does = if finding.bound_not_listening { "is about to listen" } else { "listens" };
                Err(self.occupied(format!("a socket on which {who} {does}"), "stop that process"))
            }
            _ => {
                let found = format!("a socket that may be in use ({})", finding.reason);
                Err(self.occupied(found, "find out whose it is"))
            }
        }
    }

    /// Puts the socket where nothing lies; `None` if something came to lie there meanwhile.
    fn put_back(&self, state: &mut State) -> Result<Option<Restored>, RestoreError> {
        folder::private_folder(&self.parent)?;
        let folder = socket::open_folder(&self.parent).map_err(RestoreError::Bind)?;
        let linked = match &state.pin {
            Ok(pin) => pin.link_back(&folder, &self.name),
            Err(_) => Err(Errno::ENOENT),
        };
        match linked {
            Ok(()) => {
                if inode_at(&folder, &self.name) != Some(state.endpoint.inode()) {
                    return Ok(None);
                }
                self.moved_to(state, folder);
                Ok(Some(Restored::Relinked))
            }
            Err(Errno::EEXIST) => Ok(None),
            // The pin is gone, or on another mount.
            Err(_) => self.bind_anew(state, folder),
        }
    }

    /// The dentry is in `folder` now; what is left of it elsewhere goes.
    fn moved_to(&self, state: &mut State, folder: OwnedFd) {
        let same = |one: &OwnedFd, other: &OwnedFd| {
            let inode = |fd: &OwnedFd| fstat(fd).map(|found| (found.st_dev, found.st_ino)).ok();
            inode(one).is_some() && inode(one) == inode(other)
        };
        if !same(&state.folder, &folder) {
            let inode = state.endpoint.inode();
            let before = std::mem::replace(&mut state.folder, folder);
            // First the new pin: at no moment is there but one name.
            let pin = Pin::make(&self.parent, &state.folder, &self.name, inode);
            state.drop_pin();
            state.pin = pin;
            remove_if(&before, &self.name, inode);
        }
        self.renew_pin(state);
    }

    fn bind_anew(&self, state: &mut State, folder: OwnedFd) -> Result<Option<Restored>, RestoreError> {
        let (listener, endpoint) = match socket::bind(&self.path, &self.name, &folder) {
            Ok(bound) => bound,
            Err(ServerError::InUse { .. } | ServerError::Lost { .. }) => return Ok(None),
            Err(error) => return Err(RestoreError::Bind(error)),
        };
        // While the old listener is open, its names are known by its inode.
        remove_if(&state.folder, &self.name, state.endpoint.inode());
        state.drop_pin();
        let inode = endpoint.inode();
        (state.endpoint, state.folder) = (endpoint, folder);
        state.pin = Pin::make(&self.parent, &state.folder, &self.name, inode);
        if self.successors.send(listener).is_err() {
            // Nobody accepts any more. The names go with the server's, which is about to.
            return Err(RestoreError::Ended);
        }
        Ok(Some(Restored::BoundAnew))
    }

    /// Makes the pin again if it is not there.
    fn renew_pin(&self, state: &mut State) {
        if !state.pin.as_ref().is_ok_and(Pin::holds) {
            state.drop_pin();
            state.pin = Pin::make(&self.parent, &state.folder, &self.name, state.endpoint.inode());
        }
    }
}

impl State {
    fn drop_pin(&mut self) {
        let none = PinError { errno: Errno::ENOENT, problem: "it was removed".into() };
        if let Ok(pin) = std::mem::replace(&mut self.pin, Err(none)) {
            pin.remove();
        }
    }
}
