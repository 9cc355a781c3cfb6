//! Listeners on their way from the daemon into a service: as `SCM_RIGHTS` over the channel, then to descriptor 3 and up,
//! open across the exec, as sd_listen_fds(3) has it.
#![allow(unsafe_code)] // descriptors that came with a message become owned, and dup2 to a fixed place

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, sockopt};

use super::{Failure, Step, failure};
use crate::sys::activation;
use crate::sys::spawn::Listen;

/// Where a service looks for the first (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// So many descriptors go with one message (`SCM_MAX_FD`).
const AT_ONCE: usize = 253;

/// Sends the first listeners, with one byte, and gives how many; `EAGAIN` where the channel is full.
pub(crate) fn send(channel: impl AsFd, listeners: &[BorrowedFd]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = listeners.iter().take(AT_ONCE).map(AsRawFd::as_raw_fd).collect();
    let part = [IoSlice::new(b"l")];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(channel.as_fd().as_raw_fd(), &part, &[ControlMessage::ScmRights(&numbers)], flags, None)?;
    Ok(numbers.len())
}

/// Waits for so many listeners. The plan was read to its last byte and no further: what comes with a byte that plain
/// read(2) takes is lost.
pub(super) fn receive(channel: &UnixStream, wanted: usize) -> io::Result<Vec<OwnedFd>> {
    let mut listeners = Vec::with_capacity(wanted);
    while listeners.len() < wanted {
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut control = nix::cmsg_space!([RawFd; AT_ONCE]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let got = match recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => continue,
            got => got?,
        };
        let before = listeners.len();
        for part in got.cmsgs()? {
            if let ControlMessageOwned::ScmRights(given) = part {
                // SAFETY: the kernel has just put these into our table; nobody else owns them.
                listeners.extend(given.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        // The daemon is gone, or the limit of open files cut the message short.
        if listeners.len() == before || got.flags.contains(MsgFlags::MSG_CTRUNC) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(listeners)
}

/// Puts the listeners at 3 and up, and the channel out of their way. They listen anew, as the user that this process
/// has become: that is whom clients see as their peer (SO_PEERCRED).
pub(super) fn place(
    channel: &mut UnixStream,
    listeners: Vec<OwnedFd>,
    plan: &[Listen],
) -> Result<(), Failure> {
    if listeners.is_empty() {
        return Ok(());
    }
    let failed = |errno| failure(Step::Listeners, errno, format!("{} listeners", plan.len()));
    let free = FIRST + RawFd::try_from(listeners.len()).map_err(|_| failed(Errno::E2BIG))?;
    let above = |fd: BorrowedFd| -> Result<OwnedFd, Failure> {
        let moved = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(free)).map_err(failed)?;
        // SAFETY: fcntl has just made this descriptor; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(moved) })
    };
    *channel = UnixStream::from(above(channel.as_fd())?);
    let listeners: Vec<OwnedFd> =
        listeners.into_iter().map(|fd| above(fd.as_fd())).collect::<Result<_, _>>()?;
    for ((number, fd), listen) in (FIRST..).zip(&listeners).zip(plan) {
        if nix::sys::socket::getsockopt(fd, sockopt::AcceptConn).unwrap_or(false) {
            activation::listen(fd, listen.backlog).map_err(failed)?;
        }
        // SAFETY: all that this process has opened below `free` is closed by now, and the copy is the service's: nothing
        // here owns it. Unlike the original it stays open across the exec.
        Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map_err(failed)?;
    }
    Ok(())
}

/// What sd_listen_fds(3) reads.
pub(super) fn env(plan: &[Listen]) -> Vec<(String, String)> {
    if plan.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = plan.iter().map(|listen| listen.name.as_str()).collect();
    vec![
        ("LISTEN_PID".into(), std::process::id().to_string()),
        ("LISTEN_FDS".into(), plan.len().to_string()),
        ("LISTEN_FDNAMES".into(), names.join(":")),
    ]
}
