//! Listeners that the daemon binds and keeps, and hands to each instance (sd_listen_fds(3)): sockets of the mode
//! `activate`.
//!
//! A listener lives for as long as anybody has it open. The daemon does, so clients wait in its queue while no instance
//! runs, and an instance that dies takes no connection along but those that it had accepted. What is left is a daemon
//! that dies itself; so it looks for a listener in this order, and takes it only after the [same look](Held::adopt):
//!
//! | from | call | when |
//! | --- | --- | --- |
//! | itself | | it did not die |
//! | systemd | [`FdStore`], [`inherited`] | it is a unit with `FileDescriptorStoreMax=` |
//! | the daemon that it replaces | [`kept_by`] by pidfd_getfd(2) | it is still there, and we may look into it |
//! | the instance | [`retake`] by pidfd_getfd(2) | an instance lives, and we may look into it |
//! | nobody | [`Held::bind`] | else: clients that waited are lost, and it is said |
//!
//! The daemon's descriptor and an instance's are one open file, so what an instance did to it (`O_NONBLOCK`, another
//! backlog) would be there for the next: [`Held::refresh`] puts it back.
#![allow(unsafe_code)] // SO_COOKIE has no wrapper in nix, and its listen(2) knows no backlog over 4096

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, UnixAddr, getsockname, getsockopt, sockopt};
use nix::sys::stat::fstat;
use shimd_api::spec::{SocketKind, Spec};
use socket_audit::{Diag, Listener, ListenerId, ListenerState};

use super::clean::{self, CleanError, Cleaned};

mod bind;
mod fdstore;
mod retake;
#[cfg(test)]
mod tests;

pub use bind::BindError;
pub use fdstore::{FdStore, inherited};
pub use retake::{RetakeError, kept_by, retake};

/// The longest name of a descriptor that systemd takes.
const MAX_NAME: usize = 255;

/// What a listener is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// An absolute path of at most 107 bytes, or `@name`.
    pub path: PathBuf,
    /// The socket's type.
    pub kind: SocketKind,
    /// How many connections may wait; as many as the system lets (`net.core.somaxconn`) if none is named.
    pub backlog: Option<u32>,
    /// Whose the dentry is to be; the daemon's own if nobody is named.
    pub owner: Option<(u32, u32)>,
    /// What is taken from the mode 0777.
    pub umask: u32,
}

impl Wanted {
    fn address(&self) -> Result<UnixAddr, Errno> {
        match self.path.as_os_str().as_bytes().strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name),
            None => UnixAddr::new(&self.path),
        }
    }

    /// Whether this is the address that the socket has, to the byte.
    fn is_at(&self, address: &UnixAddr) -> bool {
        match self.path.as_os_str().as_bytes().strip_prefix(b"@") {
            Some(name) => address.as_abstract() == Some(name),
            None => address.path() == Some(&self.path),
        }
    }

    fn sock_type(&self) -> SockType {
        match self.kind {
            SocketKind::Stream => SockType::Stream,
            SocketKind::Dgram => SockType::Datagram,
            SocketKind::Seqpacket => SockType::SeqPacket,
        }
    }
}

/// Why a descriptor is not the listener that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: not the listener that is wanted: {why}", path.display())]
pub struct Unfit {
    /// The path that it should be bound to.
    pub path: PathBuf,
    /// What it is instead.
    pub why: String,
}

/// A listener that the daemon has open.
#[derive(Debug)]
pub struct Held {
    fd: OwnedFd,
    id: ListenerId,
    wanted: Wanted,
}

impl Held {
    /// Takes a descriptor for the listener that is wanted, after a look at its type, its name, whether it listens, and
    /// (where it is known) its cookie.
    ///
    /// # Errors
    /// [`Unfit`]; the descriptor is closed then.
    pub fn adopt(fd: OwnedFd, wanted: &Wanted, known: Option<ListenerId>) -> Result<Held, Unfit> {
        let unfit = |why: String| Unfit { path: wanted.path.clone(), why };
        let failed = |errno: Errno| unfit(format!("it cannot be looked at: {}", errno.desc()));
        let kind = getsockopt(&fd, sockopt::SockType).map_err(failed)?;
        if kind != wanted.sock_type() {
            return Err(unfit(format!("it is a socket of the type {kind:?}")));
        }
        // Of another family it has another form of name.
        let address: UnixAddr =
            getsockname(fd.as_raw_fd()).map_err(|_| unfit("it is not a Unix socket".into()))?;
        if address.family() != Some(AddressFamily::Unix) || !wanted.is_at(&address) {
            return Err(unfit(format!("it is bound to {address}")));
        }
        let listens = getsockopt(&fd, sockopt::AcceptConn).map_err(failed)?;
        if !listens && wanted.kind != SocketKind::Dgram {
            return Err(unfit("it does not listen".into()));
        }
        let id = identify(&fd).map_err(failed)?;
        if known.is_some_and(|known| known != id) {
            return Err(unfit(format!("it is the kernel's socket {}, another than before", id.inode)));
        }
        let cloexec = fcntl(&fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
        cloexec.map_err(failed)?;
        Ok(Held { fd, id, wanted: wanted.clone() })
    }

    /// The kernel's socket.
    pub fn id(&self) -> ListenerId {
        self.id
    }

    /// The path, or `@name`.
    pub fn path(&self) -> &Path {
        &self.wanted.path
    }

    /// Whether it will do for what is wanted now: all else can be changed while it is bound.
    pub fn will_do(&self, wanted: &Wanted) -> bool {
        (&self.wanted.path, self.wanted.kind) == (&wanted.path, wanted.kind)
    }

    /// Puts back what an instance may have changed, and sets the backlog that is wanted now. Not while an instance
    /// lives that goes on: it may count on what it has set.
    ///
    /// # Errors
    /// What the system refused.
    pub fn refresh(&self, backlog: Option<u32>) -> Result<(), Errno> {
        let flags = OFlag::from_bits_retain(fcntl(&self.fd, FcntlArg::F_GETFL)?);
        if flags.contains(OFlag::O_NONBLOCK) {
            fcntl(&self.fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        }
        if self.wanted.kind == SocketKind::Dgram { Ok(()) } else { listen(&self.fd, backlog) }
    }

    /// The listener as the kernel has it, while it still takes clients: an instance may have shut it down for good.
    pub fn listening(&self, diag: &mut Diag) -> Option<Listener> {
        let listener = diag.query(self.id.inode, self.id.cookie).ok().flatten()?;
        (listener.state == ListenerState::Listening).then_some(listener)
    }

    /// Removes its dentry, if that is still its own. Clients that wait go on waiting until it is dropped here, and closed
    /// by every instance.
    ///
    /// # Errors
    /// [`CleanError`], where the dentry could not be removed.
    pub fn unlink(&self, diag: &mut Diag) -> Result<Cleaned, CleanError> {
        let vfs = diag.query(self.id.inode, self.id.cookie).ok().flatten().and_then(|listener| listener.vfs);
        match vfs {
            // No other inode of the file system has this number while the listener lives.
            Some(vfs) => match clean::remove_socket(self.path(), &|seen| seen.ino as u32 == vfs.ino) {
                // Another's lies there.
                Err(CleanError::InUse { .. } | CleanError::WrongKind { .. }) => Ok(Cleaned::Nothing),
                result => result,
            },
            None => Ok(Cleaned::Nothing),
        }
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A name for `LISTEN_FDNAMES`: the declared file name, with what sd_listen_fds_with_names(3) does not allow replaced.
pub fn fd_name(declared: &str) -> String {
    let name = match declared.starts_with('@') {
        true => declared,
        false => declared.rsplit('/').next().unwrap_or(declared),
    };
    let allowed = |c: char| if matches!(c, ' '..='~') && c != ':' { c } else { '_' };
    name.chars().take(MAX_NAME).map(allowed).collect()
}

/// What a declared socket of the mode `activate` is to be.
pub fn wanted(
    spec: &Spec,
    socket: &shimd_api::spec::SocketSpec,
    path: PathBuf,
    owner: Option<(u32, u32)>,
) -> Wanted {
    let umask = spec.umask.unwrap_or(super::exec::DEFAULT_UMASK);
    Wanted { path, kind: socket.kind, backlog: socket.backlog, owner, umask }
}

/// The kernel's number and cookie of a socket.
fn identify(fd: &OwnedFd) -> Result<ListenerId, Errno> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, and what it wrote to `length`.
    let done = unsafe {
        let (cookie, length) = ((&raw mut cookie).cast(), &raw mut length);
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, cookie, length)
    };
    Errno::result(done)?;
    Ok(ListenerId { inode: fstat(fd)?.st_ino, cookie })
}

/// listen(2). On a socket that listens it sets the backlog, and whom clients see as their peer (SO_PEERCRED).
pub(super) fn listen(fd: impl AsFd, backlog: Option<u32>) -> Result<(), Errno> {
    let backlog = backlog.and_then(|n| i32::try_from(n).ok()).unwrap_or(i32::MAX);
    // SAFETY: listen takes two integers.
    Errno::result(unsafe { libc::listen(fd.as_fd().as_raw_fd(), backlog) }).map(drop)
}
