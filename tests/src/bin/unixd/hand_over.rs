//! A listener that goes on in other hands: passed to another process, or kept across an `execve`.
#![allow(unsafe_code)] // a descriptor that came in a message is taken over

use crate::Result;
use crate::endpoint::Endpoint;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockType, UnixAddr, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Passes the first listener to whoever listens at the path.
pub fn give(endpoints: &[Endpoint], path: Option<&Path>) -> Result {
    let first = endpoints.first().ok_or("nothing to give")?;
    let stream = UnixStream::connect(path.ok_or("nobody to give it to")?)?;
    let fds = [first.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(b"!")], &rights, MsgFlags::empty(), None)?;
    Ok(())
}

/// Takes the listener that somebody passes.
pub fn take(listener: &UnixListener) -> Result<Endpoint> {
    let (stream, _) = listener.accept()?;
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut passed = message.cmsgs()?.filter_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let fd = passed.next().ok_or("nothing was passed")?;
    // SAFETY: the kernel has just made this descriptor for this message, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Endpoint::of(SockType::Stream, fd))
}

/// Executes this program anew, with the first listener as its standard input.
pub fn execute_anew(endpoints: Vec<Endpoint>) -> Result<u8> {
    let first = endpoints.first().ok_or("nothing to keep")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["__worker", first.kind_name()]).stdin(Stdio::from(first.as_fd().try_clone_to_owned()?));
    Err(command.exec().into())
}
