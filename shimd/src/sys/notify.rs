//! The receiving end of sd_notify(3): services that say themselves when they are ready.
//!
//! The address is abstract, `@shimd/<home tag>/notify`, and not a file in the run folder: that one is 0700, and a
//! service that runs as another user could not reach it. An abstract name is reached from the whole network namespace,
//! and from no other. Anybody there may send; the kernel says who did (`SCM_CREDENTIALS`), and it is for the caller
//! to see whether that process belongs to an instance.
#![allow(unsafe_code)] // descriptors that came with a message become owned

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::pidfd::errno_of;
use super::tree::environ_mark;

/// The longest message: what systemd takes (`NOTIFY_BUFFER_MAX`, PIPE_BUF). A longer one is dropped.
const MAX_MESSAGE: usize = 4096;

/// What one message says. Fields that are not listed here are ignored, as sd_notify(3) asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`: the start, or the reload, is over.
    pub ready: bool,
    /// `RELOADING=1`.
    pub reloading: bool,
    /// `STOPPING=1`.
    pub stopping: bool,
    /// `STATUS=`: one line for a person to read.
    pub status: Option<String>,
    /// `ERRNO=`: why the service fails.
    pub errno: Option<i32>,
    /// `MAINPID=`: which process is the main one from now on, as the service says.
    pub main_pid: Option<i32>,
}

impl Notification {
    /// Reads the lines `KEY=value` of a message; `None` where it is not UTF-8 or has no such line.
    pub fn parse(message: &[u8]) -> Option<Notification> {
        let text = std::str::from_utf8(message).ok()?;
        let mut seen = Notification::default();
        let mut any = false;
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            any = true;
            match key {
                "READY" => seen.ready = value == "1",
                "RELOADING" => seen.reloading = value == "1",
                "STOPPING" => seen.stopping = value == "1",
                "STATUS" => seen.status = Some(value.to_owned()),
                "ERRNO" => seen.errno = value.parse().ok(),
                "MAINPID" => seen.main_pid = value.parse().ok().filter(|&pid| pid > 0),
                _ => {}
            }
        }
        any.then_some(seen)
    }
}

/// A message and who sent it, as the kernel says.
#[derive(Debug)]
pub struct Message {
    /// The sender, which may have exited since.
    pub pid: i32,
    /// The sender's user.
    pub uid: u32,
    /// The mark in the sender's environ, read at once. It is a hint and not a proof: a process chooses its own
    /// environ. For a helper that is gone by the time anybody looks, it is what there is; ask for the right `uid` too.
    pub mark: Option<String>,
    /// What it says.
    pub notification: Notification,
    /// A sender that waits until its message has been dealt with (`BARRIER=1`) waits until this is dropped.
    _barrier: Option<OwnedFd>,
}

/// The receiver could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen for notifications at {address}: {}", errno.desc())]
pub struct NotifyError {
    /// The address, `@` standing for the NUL of an abstract name.
    pub address: String,
    /// `EADDRINUSE`: another process of this network namespace has the name.
    pub errno: Errno,
}

/// The daemon's notification socket.
#[derive(Debug)]
pub struct Notify {
    socket: AsyncFd<UnixDatagram>,
    address: String,
}

impl Notify {
    /// Binds the address of the home with this tag. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`NotifyError`].
    pub fn bind(home_tag: &str) -> Result<Notify, NotifyError> {
        let name = format!("shimd/{home_tag}/notify");
        let address = format!("@{name}");
        let failed = |errno| NotifyError { address: address.clone(), errno };
        let failed_io = |e: io::Error| failed(errno_of(&e));
        let socket = UnixDatagram::unbound().map_err(failed_io)?;
        socket.set_nonblocking(true).map_err(failed_io)?;
        // Before the name: a message that came in between would have no credentials.
        socket::setsockopt(&socket, sockopt::PassCred, &true).map_err(failed)?;
        let at = UnixAddr::new_abstract(name.as_bytes()).map_err(failed)?;
        socket::bind(socket.as_raw_fd(), &at).map_err(failed)?;
        // SAFETY: the descriptor is owned, so its number is this one file's as long as it is registered.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        let socket = socket.map_err(|e| failed_io(e.into()))?;
        Ok(Notify { socket, address })
    }

    /// What `NOTIFY_SOCKET` is to be for a service.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next message. What is malformed, too long or without a sender is dropped.
    ///
    /// # Errors
    /// Only where the socket itself is broken.
    pub async fn recv(&self) -> io::Result<Message> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref()).map_err(io::Error::from)) {
                Ok(Ok(Some(message))) => return Ok(message),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// Takes one datagram; `Ok(None)` for one to be dropped.
fn receive(socket: &UnixDatagram) -> Result<Option<Message>, Errno> {
    let mut text = [0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!(UnixCredentials, [RawFd; 4]);
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
    let message = text.get(..length).unwrap_or_default();
    let (Some(notification), Some(sender)) = (Notification::parse(message), sender) else { return Ok(None) };
    if truncated || sender.pid() <= 0 {
        return Ok(None); // 0: from outside of our pid namespace
    }
    // Descriptors of other messages (FDSTORE) are closed: nothing here stores them.
    let barrier = message.split(|&b| b == b'\n').any(|line| line == b"BARRIER=1");
    Ok(Some(Message {
        pid: sender.pid(),
        uid: sender.uid(),
        mark: environ_mark(sender.pid()),
        notification,
        _barrier: descriptors.into_iter().next().filter(|_| barrier),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_fields_are_read_and_others_ignored() {
        let said =
            Notification::parse(b"READY=1\nSTATUS=a=b\nX_OTHER=1\nMAINPID=42\nERRNO=2\nnonsense").unwrap();
        let expected = Notification {
            ready: true,
            status: Some("a=b".into()),
            main_pid: Some(42),
            errno: Some(2),
            ..Notification::default()
        };
        assert_eq!(said, expected);
        assert_eq!(Notification::parse(b"READY=0\nMAINPID=-1"), Some(Notification::default()));
    }

    #[test]
    fn what_holds_no_field_is_no_notification() {
        assert_eq!(Notification::parse(b""), None);
        assert_eq!(Notification::parse(b"READY"), None);
        assert_eq!(Notification::parse(b"READY=1\n\xff"), None);
    }

    proptest! {
        #[test]
        fn parse_never_panics(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            Notification::parse(&message);
        }
    }
}
