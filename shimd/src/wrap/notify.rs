//! sd_notify(3), both ways: to the manager above, and with `--notify` from the service below.
//!
//! | of the service's message | goes |
//! | --- | --- |
//! | `READY=1` of a start | nowhere: READY=1 is said once the sockets are `ok` too |
//! | `READY=1` after a `RELOADING=1` | on |
//! | `MAINPID=` | to the keeper: wrap is the main process for the manager, and follows the service's |
//! | all else, with its descriptors | on |
//!
//! The relay has an abstract name, which a service without `/run` can reach too. Anybody can: so a message counts only if
//! the kernel says that it comes from the service's processes, from wrap's own user or from root.
#![allow(unsafe_code)] // descriptors that came with a message become owned; registering with tokio is unsafe

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The longest message that systemd takes (`NOTIFY_BUFFER_MAX`).
const MAX_MESSAGE: usize = 4096;
/// So many descriptors come with one message (`SCM_MAX_FD` of the kernel).
const MAX_DESCRIPTORS: usize = 253;
/// A manager that does not read its messages for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The manager above: systemd, or whoever set `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Manager(Option<(UnixDatagram, UnixAddr)>);

impl Manager {
    /// Of the variable's value; without one, nobody listens.
    ///
    /// # Errors
    /// An address that cannot be.
    pub fn of(address: Option<OsString>) -> Result<Manager, Errno> {
        let Some(address) = address.filter(|address| !address.is_empty()) else { return Ok(Manager(None)) };
        let to = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name)?,
            None => UnixAddr::new(Path::new(&address))?,
        };
        let own = UnixDatagram::unbound().and_then(|own| own.set_write_timeout(Some(PATIENCE)).map(|()| own));
        Ok(Manager(Some((own.map_err(|e| crate::sys::pidfd::errno_of(&e))?, to))))
    }

    /// Tells it something, as the main process, which this one is for it.
    ///
    /// # Errors
    /// What sendmsg(2) says: a manager that is gone, or does not read.
    pub fn say(&self, text: &[u8], descriptors: &[OwnedFd]) -> Result<(), Errno> {
        let Some((own, to)) = &self.0 else { return Ok(()) };
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let parts = [io::IoSlice::new(text)];
        socket::sendmsg(own.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, Some(to)).map(drop)
    }
}

/// Where the service sends its messages.
#[derive(Debug)]
pub struct Relay(AsyncFd<UnixDatagram>);

/// A message of the service.
#[derive(Debug)]
pub struct Message {
    /// Its lines.
    pub text: Vec<u8>,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
    /// Who sent it.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// The address of the relay of a wrap.
pub fn address(wrap: i32) -> String {
    format!("@shimd/wrap/{wrap}")
}

impl Relay {
    /// Binds it, within a tokio runtime.
    ///
    /// # Errors
    /// `EADDRINUSE`: another process of this network namespace has the name.
    pub fn bind(wrap: i32) -> io::Result<Relay> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Before the name: a message that came in between would have no credentials.
        socket::setsockopt(&socket, sockopt::PassCred, &true)?;
        let name = address(wrap);
        let at = UnixAddr::new_abstract(name.trim_start_matches('@').as_bytes())?;
        socket::bind(socket.as_raw_fd(), &at)?;
        // SAFETY: the descriptor is owned and never exchanged.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Relay(registered.map_err(io::Error::from)?))
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// Only where the socket itself is broken.
    pub async fn next(&self) -> io::Result<Message> {
        loop {
            let mut ready = self.0.readable().await?;
            match receive(ready.get_inner()) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Takes one datagram; `Ok(None)` for one that is too long or from nobody.
fn receive(socket: &UnixDatagram) -> Result<Option<Message>, Errno> {
    let mut text = vec![0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; MAX_DESCRIPTORS]);
    let (mut sender, mut descriptors) = (None, Vec::new());
    let (length, truncated) = {
        let mut parts = [io::IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let got = socket::recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        for part in got.cmsgs()? {
            match part {
                ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
                ControlMessageOwned::ScmRights(given) => {
                    // SAFETY: the kernel has just put these into our table; nobody else owns them.
                    descriptors.extend(given.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
                _ => {}
            }
        }
        (got.bytes, got.flags.contains(MsgFlags::MSG_TRUNC))
    };
    text.truncate(length);
    let Some(sender) = sender.filter(|sender| !truncated && sender.pid() > 0) else { return Ok(None) };
    Ok(Some(Message { text, descriptors, pid: sender.pid(), uid: sender.uid() }))
}

/// A message taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// It has READY=1.
    pub ready: bool,
    /// It has MAINPID=.
    pub main: Option<i32>,
    /// What goes on to the manager.
    pub rest: Vec<u8>,
}

/// Takes a message apart. `up`: READY=1 was said for the start, so one that comes now ends a reload.
pub fn parts(text: &[u8], up: bool) -> Parts {
    let mut parts = Parts::default();
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        if line == b"READY=1" {
            parts.ready = true;
            if !up {
                continue;
            }
        }
        if let Some(pid) = line.strip_prefix(b"MAINPID=") {
            parts.main =
                std::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok()).filter(|&pid| pid > 0);
            continue;
        }
        parts.rest.extend(line);
        parts.rest.push(b'\n');
    }
    parts
}

/// A descriptor on which readiness is told by a newline (s6's `notification-fd`).
#[derive(Debug)]
pub struct ReadyFd(OwnedFd);

impl ReadyFd {
    /// Takes over a descriptor that wrap was started with.
    ///
    /// # Errors
    /// `EBADF`: there is none of this number.
    pub fn take(number: i32) -> Result<ReadyFd, Errno> {
        // SAFETY: it is only asked for, and a number that is no descriptor is refused.
        Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
        // SAFETY: whoever started us named it for this use alone, and nothing else here has opened it.
        Ok(ReadyFd(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Says that the service is ready, and closes it.
    pub fn say(self) {
        // Who does not listen any more does not want to know.
        let _ = nix::unistd::write(&self.0, b"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_held_back_and_a_reload_is_not() {
        let text = b"READY=1\nSTATUS=up\nMAINPID=42\nX=1";
        let held = Parts { ready: true, main: Some(42), rest: b"STATUS=up\nX=1\n".to_vec() };
        assert_eq!(parts(text, false), held);
        assert_eq!(parts(text, true).rest, b"READY=1\nSTATUS=up\nX=1\n");
        assert_eq!(
            parts(b"READY=0\nMAINPID=-4\n", false),
            Parts { rest: b"READY=0\n".to_vec(), ..Parts::default() }
        );
        assert_eq!(parts(b"READY=1", false).rest, b"");
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        let manager = Manager::of(None).unwrap();
        assert_eq!(manager.say(b"READY=1", &[]), Ok(()));
        assert!(Manager::of(Some("x".repeat(200).into())).is_err());
    }
}
