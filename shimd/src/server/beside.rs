//! A control socket that is bound beside the one in use, and renamed over it: at no moment is there no file at the path,
//! nor one on which nobody listens.
//!
//! | moment | at the path | a client that connects |
//! | --- | --- | --- |
//! | bound | the old daemon's socket | is served by it |
//! | moved | this one | waits in its queue for the new daemon |
//! | the old daemon is gone | this one: it removes only what is its own inode | waits |
//! | served | this one, pinned now | is served |
//! | dropped instead | nothing, for as long as the old daemon takes to link its own back from its pin | is refused |
//!
//! rename(2) and not the old listener's descriptor: it asks nothing of the old daemon, so any version will do, and the
//! kernel's leave to take another process's descriptors is not needed.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use interprocess::os::unix::uds_local_socket::tokio::Listener;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, renameat};
use nix::sys::stat::{SFlag, fstatat};

use super::Server;
use super::control::Names;
use super::socket::{self, Endpoint, ServerError};
use crate::sys::clean;
use crate::sys::pin::remove_if;

/// What is put behind the name for as long as it lies beside.
const BESIDE: &str = ".next";

/// A bound control socket that is not served yet.
#[derive(Debug)]
pub struct Beside {
    path: PathBuf,
    folder: OwnedFd,
    name: OsString,
    beside: OsString,
    /// Taken when it is served.
    bound: Option<(Listener, Endpoint)>,
}

impl Beside {
    /// Binds and listens beside `path`. Whoever calls this is the only one to do so: what lies there is a dead one's.
    /// Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn bind(path: &Path) -> Result<Beside, ServerError> {
        let (parent, name) = socket::split(path)?;
        let mut beside = name.to_owned();
        beside.push(BESIDE);
        let folder = socket::open_folder(parent)?;
        let at = parent.join(&beside);
        // What could not be removed is said by the bind.
        let _ = clean::remove_socket(&at, &|_| true);
        let bound = socket::bind(&at, &beside, &folder)?;
        Ok(Beside { path: path.into(), folder, name: name.into(), beside, bound: Some(bound) })
    }

    /// Renames it over the socket at the path, if a socket lies there or nothing does.
    ///
    /// # Errors
    /// [`ServerError::InUse`] where something else lies there.
    pub fn move_over(&self) -> Result<(), ServerError> {
        let failed = |errno: Errno| ServerError::Bind { path: self.path.clone(), source: errno.into() };
        match fstatat(&self.folder, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK => {}
            Err(Errno::ENOENT) => {}
            Ok(_) => return Err(ServerError::InUse { path: self.path.clone() }),
            Err(errno) => return Err(failed(errno)),
        }
        renameat(&self.folder, self.beside.as_os_str(), &self.folder, self.name.as_os_str()).map_err(failed)
    }

    /// The server on it, with its pin. The old daemon is gone: the pin's place is free.
    ///
    /// # Errors
    /// [`ServerError::Lost`] where it is no longer at the path.
    pub fn into_server(mut self) -> Result<Server, ServerError> {
        let lost = || ServerError::Lost { path: self.path.clone(), source: Errno::ENOENT.into() };
        let (listener, endpoint) = self.bound.take().ok_or_else(lost)?;
        let endpoint = Endpoint { path: self.path.clone(), ..endpoint };
        let (names, successors) = Names::of(&self.path, endpoint)?;
        Ok(Server::on(names, listener, successors))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some((_, endpoint)) = &self.bound {
            let remove = |name: &OsStr| remove_if(&self.folder, name, endpoint.inode());
            remove(&self.beside);
            remove(&self.name);
        }
    }
}
