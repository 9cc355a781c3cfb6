//! Binding the control socket: with its mode already set, removing nothing, and known by its inode from then on.
//!
//! - The mode is set on the socket before `bind`, so there is no moment at which the dentry is wider than 0600
//!   (unix(7): the dentry takes the socket inode's mode, less the umask).
//! - `bind` never removes anything. What a dead daemon left behind is cleaned by the caller, who holds the home's lock.
//! - A path over 107 bytes does not fit `sun_path`: it is reached as `/proc/self/fd/<folder>/<name>`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use interprocess::os::unix::uds_local_socket::tokio::Listener;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat};
use thiserror::Error;

use crate::sys::pin::Inode;

/// The longest path that `struct sockaddr_un` holds, in bytes, without its NUL (unix(7)).
const SUN_PATH: usize = 107;

/// Why the control socket could not be bound.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The path names no file in a folder.
    #[error("{}: not a path for a control socket; give an absolute path that ends in a file name", path.display())]
    NotAPath {
        /// The path as given.
        path: PathBuf,
    },
    /// The folder that is to hold the socket cannot be opened.
    #[error("cannot open the control socket's folder {}: {source}; it must exist and belong to this user", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The error of open(2).
        source: io::Error,
    },
    /// The file name itself is too long to be reached through its folder's descriptor.
    #[error(
        "the control socket's file name is {length} bytes long ({}); at most {limit} can be bound", path.display()
    )]
    TooLong {
        /// The path as given.
        path: PathBuf,
        /// The file name's length in bytes.
        length: usize,
        /// The longest name that fits.
        limit: usize,
    },
    /// Something is at the path already: nothing is ever removed by `bind`.
    #[error(
        "{} exists already: another program put it there after the start's cleaning; look at it and remove it", path.display()
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// socket(2), bind(2) or listen(2) failed.
    #[error("cannot bind the control socket {}: {source}", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// The error of the system call.
        source: io::Error,
    },
    /// The bound socket vanished or was replaced before it could be looked at.
    #[error("cannot find the control socket just bound at {}: {source}; something else removes files there", path.display())]
    Lost {
        /// The path.
        path: PathBuf,
        /// The error of stat(2).
        source: io::Error,
    },
}

/// How to find the control socket again: what an audit of `shimd`'s own socket expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The absolute path.
    pub path: PathBuf,
    /// The listener's descriptor, open as long as the server serves and does not bind anew.
    pub fd: RawFd,
    /// The kernel socket's inode, as sock_diag and `ss -e` show it.
    pub socket_inode: u64,
    /// The dentry's `st_dev`.
    pub dev: u64,
    /// The dentry's inode.
    pub ino: u64,
}

impl Endpoint {
    /// The dentry's inode.
    pub(super) fn inode(&self) -> Inode {
        (self.dev, self.ino)
    }
}

/// The folder and the name of a control socket's path.
pub(super) fn split(path: &Path) -> Result<(&Path, &OsStr), ServerError> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.is_absolute() => Ok((parent, name)),
        _ => Err(ServerError::NotAPath { path: path.into() }),
    }
}

/// Opens the folder that holds the socket, only to name things in it.
pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, ServerError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
        .map_err(|errno| ServerError::Folder { path: path.into(), source: errno.into() })
}

/// Binds `path`, which is `name` in `folder`, and listens.
pub(super) fn bind(path: &Path, name: &OsStr, folder: &OwnedFd) -> Result<(Listener, Endpoint), ServerError> {
    let listener = listen(path, name, folder)?;
    let lost = |errno: nix::Error| ServerError::Lost { path: path.into(), source: errno.into() };
    let dentry = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(lost)?;
    let socket = fstat(&listener).map_err(lost)?;
    let endpoint = Endpoint {
        path: path.into(),
        fd: listener.as_fd().as_raw_fd(),
        socket_inode: socket.st_ino,
        dev: dentry.st_dev,
        ino: dentry.st_ino,
    };
    Ok((listener, endpoint))
}

fn listen(path: &Path, name: &OsStr, folder: &OwnedFd) -> Result<Listener, ServerError> {
    let reached = if path.as_os_str().len() <= SUN_PATH {
        path.to_path_buf()
    } else {
        let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let limit = SUN_PATH.saturating_sub(through.as_os_str().len() + 1);
        if name.len() > limit {
            return Err(ServerError::TooLong { path: path.into(), length: name.len(), limit });
        }
        through.join(name)
    };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::InUse { path: path.into() },
        _ => ServerError::Bind { path: path.into(), source },
    };
    ListenerOptions::new()
        .name(reached.to_fs_name::<GenericFilePath>().map_err(failed)?)
        .reclaim_name(false)
        .mode(0o600)
        .create_tokio_as::<Listener>()
        .map_err(failed)
}
