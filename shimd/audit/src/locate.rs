//! Where a listener's dentry is, or was last, by the kernel's own account: a duplicate of the descriptor
//! (`pidfd_getfd`) is asked for its file (`SIOCUNIXFILE`, unix(7)), and that for its path. It follows renames, and
//! relative names need no guess. It takes the rights of a debugger over the holder and CAP_NET_ADMIN, and keeps the
//! socket open for the microseconds that it lasts; so only listeners that nothing else explains are asked.
//!
//! The file is an `O_PATH` descriptor of the inode. Whoever connects to `/proc/self/fd/N` of it reaches the listener,
//! whatever became of its name.
#![allow(unsafe_code)] // pidfd_open, pidfd_getfd and this ioctl: nix has no wrappers

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use crate::procfs;
use crate::witness::Witness;

/// SIOCPROTOPRIVATE + 0 (`linux/un.h`).
const SIOCUNIXFILE: libc::Ioctl = 0x89E0;

/// Why the file of another process's socket cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {step} of pid {pid}: {}; {}", errno.desc(), self.fix())]
pub struct FileError {
    /// What was tried, in words that fit before "of pid".
    pub step: &'static str,
    /// The process.
    pub pid: i32,
    /// What the kernel answered.
    pub errno: Errno,
}

impl FileError {
    /// What to do next.
    pub fn fix(&self) -> &'static str {
        match self.errno {
            Errno::EPERM | Errno::EACCES => {
                "it takes root (the rights of a debugger over that process, and CAP_NET_ADMIN)"
            }
            Errno::ESRCH | Errno::ENOENT | Errno::EBADF => "it has let go of the socket: look again",
            _ => "put that right, and try again",
        }
    }
}

/// The dentry of a socket that `pid` holds; `None` where that is not allowed.
pub(crate) fn locate(pid: i32, socket_inode: u64) -> Option<Witness> {
    file_of_listener(pid, socket_inode).ok().map(Witness::holding)
}

/// An `O_PATH` descriptor of the file that a socket of `pid` was bound to, whatever became of its name.
///
/// # Errors
/// [`FileError`]: this user may not, the process holds it no more, or it was never bound to a file.
pub fn file_of_listener(pid: i32, socket_inode: u64) -> Result<OwnedFd, FileError> {
    let failed = |step| move |errno| FileError { step, pid, errno };
    let number = procfs::descriptor_of(pid, socket_inode)
        .map_err(failed("read the descriptors"))?
        .ok_or(Errno::ENOENT)
        .map_err(failed("find the socket among the descriptors"))?;
    let process = descriptor(|| {
        // SAFETY: takes a number and flags, and returns a new descriptor or -1.
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }
    })
    .map_err(failed("open the process"))?;
    let socket = descriptor(|| {
        // SAFETY: takes a live pidfd, a number and flags, and returns a new descriptor or -1.
        unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) }
    })
    .map_err(failed("take a duplicate of a descriptor"))?;
    let same = fstat(&socket).is_ok_and(|stat| stat.st_ino == socket_inode);
    if !same {
        // The number was closed and used again.
        return Err(FileError { step: "find the socket among the descriptors", pid, errno: Errno::ENOENT });
    }
    file_of_own(&socket).map_err(failed("have the file of a socket"))
}

/// The same of a socket of this process.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN, `ENOENT` if it was never bound to a file.
pub fn file_of_own(socket: &impl AsFd) -> Result<OwnedFd, Errno> {
    descriptor(|| {
        // SAFETY: this request takes no argument, and returns a new descriptor or -1.
        libc::c_long::from(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCUNIXFILE) })
    })
}

/// Owns the descriptor that a system call returns.
fn descriptor(call: impl Fn() -> libc::c_long) -> Result<OwnedFd, Errno> {
    let number = RawFd::try_from(Errno::result(call())?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this call, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
