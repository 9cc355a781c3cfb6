//! Asks the kernel which Unix sockets there are: NETLINK_SOCK_DIAG, spoken by hand.
//!
//! A dump can miss a live socket while others come and go, so what it does not show is a suspicion; a single
//! query is an answer. Only sockets of the network namespace that the [`Diag`] was opened in are seen.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, sendto, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::AuditError;
use crate::listener::{Listener, ListenerId, Vfs};
use crate::message::{self, Malformed, Message, Messages};
use crate::queue::Waiting;

/// What the kernel fills at most; a larger buffer is no faster.
const BUFFER: usize = 32 * 1024;
/// The kernel answers at once; this only keeps a broken one from hanging its caller.
const PATIENCE_SECONDS: i64 = 5;

/// All listeners of one dump.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) listeners: Vec<Listener>,
    /// Equal for two dumps that saw the same sockets in LISTEN and CLOSE, listeners or not.
    pub(crate) fingerprint: u64,
}

/// A conversation with the kernel's sock_diag. Needs no privilege.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
    /// Whether a fresh socket may take the place of a failed one: it would be of the thread's namespace.
    reopens: bool,
}

impl Diag {
    /// Opens a conversation about the calling thread's network namespace.
    ///
    /// # Errors
    /// [`AuditError::Diag`] where the kernel or a sandbox forbids it.
    pub fn open() -> Result<Diag, AuditError> {
        Ok(Diag { socket: connect()?, seq: 0, buffer: vec![0; BUFFER], reopens: true })
    }

    /// Opens a conversation that must stay with the namespace the calling thread is in now.
    pub(crate) fn open_here() -> Result<Diag, AuditError> {
        Ok(Diag { reopens: false, ..Diag::open()? })
    }

    /// Every bound socket that is no connection, datagram sockets with a peer included. May miss some and
    /// show some twice while others come and go.
    ///
    /// # Errors
    /// [`AuditError::Diag`] or [`AuditError::Malformed`], after a second attempt.
    pub fn dump(&mut self) -> Result<Vec<Listener>, AuditError> {
        self.dump_states(message::LISTEN | message::CLOSE | message::ESTABLISHED).map(|dump| dump.listeners)
    }

    /// The same without ESTABLISHED: it passes over every connection, and over datagram sockets with a peer.
    pub(crate) fn dump_quick(&mut self) -> Result<Dump, AuditError> {
        self.dump_states(message::LISTEN | message::CLOSE)
    }

    /// As [`Diag::dump`], with the fingerprint.
    pub(crate) fn dump_deep(&mut self) -> Result<Dump, AuditError> {
        self.dump_states(message::LISTEN | message::CLOSE | message::ESTABLISHED)
    }

    /// The one socket with this inode and cookie, if it still lives and is no connection.
    ///
    /// # Errors
    /// [`AuditError::Diag`] or [`AuditError::Malformed`], after a second attempt.
    pub fn query(&mut self, inode: u64, cookie: u64) -> Result<Option<Listener>, AuditError> {
        self.ask(inode, cookie, message::SHOW, message::listener)
    }

    /// The listeners that connections wait for. The kernel is asked for their queues alone, which makes this the
    /// cheapest dump there is.
    ///
    /// # Errors
    /// [`AuditError::Diag`] or [`AuditError::Malformed`], after a second attempt.
    pub fn waited_for(&mut self) -> Result<Vec<ListenerId>, AuditError> {
        self.twice(|diag| {
            let mut found = Vec::new();
            let flags = message::REQUEST | message::DUMP;
            let show = message::SHOW_RQLEN;
            let refused = diag.converse(flags, message::LISTEN, show, 0, u64::MAX, &mut |socket| {
                if message::waiting(socket)?.is_some_and(|waiting| waiting.pending > 0) {
                    found.push(message::id(socket)?);
                }
                Ok(())
            })?;
            match refused {
                0 => Ok(found),
                errno => Err(AuditError::Diag { step: "dump", errno: Errno::from_raw(errno) }),
            }
        })
    }

    /// The queue of one listener: who waits to be accepted. `None` for a socket that is gone or that takes no
    /// connections. Needs no privilege, and nothing is connected to.
    ///
    /// # Errors
    /// [`AuditError::Diag`] or [`AuditError::Malformed`], after a second attempt.
    pub fn waiting(&mut self, inode: u64, cookie: u64) -> Result<Option<Waiting>, AuditError> {
        let named = self.ask(inode, cookie, message::SHOW | message::SHOW_ICONS, message::waiting);
        match named {
            // An answer has to fit into about a page.
            Err(AuditError::Diag { errno: Errno::EMSGSIZE, .. }) => {
                self.ask(inode, cookie, message::SHOW, message::waiting)
            }
            named => named,
        }
    }

    /// How many connections that were accepted from a listener bound to one of these inodes are still open. They bear
    /// their listener's inode for as long as they live, whatever became of its name. May miss some while others come
    /// and go.
    ///
    /// # Errors
    /// [`AuditError::Diag`] or [`AuditError::Malformed`], after a second attempt.
    pub fn connections(&mut self, of: &[Vfs]) -> Result<usize, AuditError> {
        self.twice(|diag| {
            let mut open = 0;
            let flags = message::REQUEST | message::DUMP;
            let (states, show) = (message::ESTABLISHED, message::SHOW_VFS);
            let refused = diag.converse(flags, states, show, 0, u64::MAX, &mut |socket| {
                open += usize::from(message::connection(socket)?.is_some_and(|vfs| of.contains(&vfs)));
                Ok(())
            })?;
            match refused {
                0 => Ok(open),
                errno => Err(AuditError::Diag { step: "dump", errno: Errno::from_raw(errno) }),
            }
        })
    }

    /// What `read` makes of one socket, by inode and cookie.
    fn ask<T>(
        &mut self,
        inode: u64,
        cookie: u64,
        show: u32,
        read: fn(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, AuditError> {
        let Ok(inode) = u32::try_from(inode) else { return Ok(None) };
        if inode == 0 {
            return Ok(None);
        }
        self.twice(|diag| {
            let mut found = None;
            let refused = diag.converse(message::REQUEST, 0, show, inode, cookie, &mut |socket| {
                found = read(socket)?;
                Ok(())
            })?;
            match refused {
                0 => Ok(found),
                libc::ENOENT | libc::ESTALE => Ok(None),
                errno => Err(AuditError::Diag { step: "query", errno: Errno::from_raw(errno) }),
            }
        })
    }

    fn dump_states(&mut self, states: u32) -> Result<Dump, AuditError> {
        self.twice(|diag| {
            let mut dump = Dump::default();
            let flags = message::REQUEST | message::DUMP;
            let refused = diag.converse(flags, states, message::SHOW, 0, u64::MAX, &mut |socket| {
                dump.fingerprint = dump.fingerprint.wrapping_add(message::fingerprint(socket));
                dump.listeners.extend(message::listener(socket)?);
                Ok(())
            })?;
            match refused {
                0 => Ok(dump),
                errno => Err(AuditError::Diag { step: "dump", errno: Errno::from_raw(errno) }),
            }
        })
    }

    /// Asks again on a fresh socket after a failure: the old one may still hold a half-read answer.
    fn twice<T>(&mut self, mut ask: impl FnMut(&mut Diag) -> Result<T, AuditError>) -> Result<T, AuditError> {
        match ask(self) {
            Err(_) if self.reopens => {
                self.socket = connect()?;
                ask(self)
            }
            answer => answer,
        }
    }

    /// One request and its whole answer; gives the errno that ended it, or 0.
    fn converse(
        &mut self,
        flags: u16,
        states: u32,
        show: u32,
        inode: u32,
        cookie: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<i32, AuditError> {
        self.seq = self.seq.wrapping_add(1);
        let request = message::request(flags, self.seq, states, show, inode, cookie);
        retry(|| sendto(self.socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty()))
            .map_err(|errno| AuditError::Diag { step: "request", errno })?;
        loop {
            let len = self.receive()?;
            let datagram = self.buffer.get(..len).unwrap_or_default();
            for message in Messages::new(datagram, self.seq) {
                match message? {
                    Message::Socket(socket) => {
                        each(socket)?;
                        if flags & message::DUMP == 0 {
                            return Ok(0);
                        }
                    }
                    Message::Done(errno) | Message::Error(errno) => return Ok(errno),
                    Message::Other => {}
                }
            }
        }
    }

    /// One datagram of the kernel's into the buffer.
    fn receive(&mut self) -> Result<usize, AuditError> {
        loop {
            let (bytes, cut, from) = retry(|| {
                let mut room = [IoSliceMut::new(&mut self.buffer)];
                let got =
                    recvmsg::<NetlinkAddr>(self.socket.as_raw_fd(), &mut room, None, MsgFlags::empty())?;
                Ok((got.bytes, got.flags.contains(MsgFlags::MSG_TRUNC), got.address.map(|from| from.pid())))
            })
            .map_err(|errno| AuditError::Diag { step: "answer", errno })?;
            if cut {
                return Err(AuditError::Malformed("a datagram is larger than the kernel's own limit"));
            }
            if bytes == 0 {
                return Err(AuditError::Malformed("an empty datagram"));
            }
            if from.is_none_or(|pid| pid == 0) {
                return Ok(bytes);
            }
        }
    }
}

impl From<Malformed> for AuditError {
    fn from(Malformed(what): Malformed) -> AuditError {
        AuditError::Malformed(what)
    }
}

fn connect() -> Result<OwnedFd, AuditError> {
    let open = || {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        Ok(socket)
    };
    open().map_err(|errno| AuditError::Diag { step: "open", errno })
}

/// Again after a signal.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
