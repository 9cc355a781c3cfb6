//! Where a listener's dentry is, or was last, by the kernel's own account: a duplicate of the descriptor
//! (`pidfd_getfd`) is asked for its file (`SIOCUNIXFILE`, unix(7)), and that for its path. It follows renames, and
//! relative names need no guess. It takes the rights of a debugger over the holder and CAP_NET_ADMIN, and keeps the
//! socket open for the microseconds that it lasts; so only listeners that nothing else explains are asked.
#![allow(unsafe_code)] // pidfd_open, pidfd_getfd and this ioctl: nix has no wrappers

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;

use crate::procfs;
use crate::witness::Witness;

/// SIOCPROTOPRIVATE + 0 (`linux/un.h`).
const SIOCUNIXFILE: libc::Ioctl = 0x89E0;

/// The dentry of a socket that `pid` holds; `None` where that is not allowed.
pub(crate) fn locate(pid: i32, socket_inode: u64) -> Option<Witness> {
    let number = procfs::descriptor_of(pid, socket_inode)?;
    let process = descriptor(|| {
        // SAFETY: takes a number and flags, and returns a new descriptor or -1.
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }
    })?;
    let socket = descriptor(|| {
        // SAFETY: takes a live pidfd, a number and flags, and returns a new descriptor or -1.
        unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) }
    })?;
    if fstat(&socket).ok()?.st_ino != socket_inode {
        return None; // the number was closed and used again
    }
    let file = descriptor(|| {
        // SAFETY: this request takes no argument, and returns a new descriptor or -1.
        libc::c_long::from(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE) })
    })?;
    drop(socket);
    Some(Witness::holding(file))
}

/// Owns the descriptor that a system call returns.
fn descriptor(call: impl Fn() -> libc::c_long) -> Option<OwnedFd> {
    let number = RawFd::try_from(Errno::result(call()).ok()?).ok()?;
    // SAFETY: the kernel has just made this descriptor for this call, and nobody else knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
