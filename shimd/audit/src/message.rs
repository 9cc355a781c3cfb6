//! The bytes of sock_diag for Unix sockets (`linux/netlink.h`, `linux/unix_diag.h`; native byte order).
//!
//! ```text
//! nlmsghdr       16: u32 len; u16 type; u16 flags; u32 seq; u32 pid        each message aligned to 4
//! unix_diag_req  24: u8 family, u8 protocol, u16 pad; u32 states; u32 ino; u32 show; u32 cookie[2]
//! unix_diag_msg  16: u8 family, u8 type, u8 state, u8 pad; u32 ino; u32 cookie[2]
//! nlattr          4: u16 len; u16 type                                     each attribute aligned to 4
//!   NAME 0 bytes   VFS 1 {u32 ino, u32 dev}   ICONS 3 [u32 ino]   RQLEN 4 {u32 pending, u32 backlog}
//!   SHUTDOWN 6 u8   UID 7 u32
//! ```
//!
//! Nothing here trusts a length: any bytes give messages or [`Malformed`], never a panic.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::listener::{Listener, ListenerId, ListenerState, Name, SocketKind, Vfs};
use crate::queue::Waiting;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST.
pub(crate) const REQUEST: u16 = 1;
/// NLM_F_ROOT | NLM_F_MATCH.
pub(crate) const DUMP: u16 = 0x300;

/// A state mask: sockets in LISTEN.
pub(crate) const LISTEN: u32 = 1 << TCP_LISTEN;
/// A state mask: sockets in CLOSE (bound datagram sockets, and all that are not connected).
pub(crate) const CLOSE: u32 = 1 << TCP_CLOSE;
/// A state mask: sockets in ESTABLISHED (connections, and datagram sockets with a peer).
pub(crate) const ESTABLISHED: u32 = 1 << TCP_ESTABLISHED;
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

/// Show NAME, VFS, RQLEN and UID; SHUTDOWN comes unasked.
pub(crate) const SHOW: u32 = 1 | 2 | 0x10 | 0x40;
/// A bit of what to show: VFS, the inode that a socket bears.
pub(crate) const SHOW_VFS: u32 = 2;
/// Show who waits. Not in a dump: it would name every waiting connection of the machine.
pub(crate) const SHOW_ICONS: u32 = 8;
/// A bit of what to show: RQLEN, the queue's length and room.
pub(crate) const SHOW_RQLEN: u32 = 0x10;
const RCV_SHUTDOWN: u8 = 1;

/// An answer that breaks its own lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A socket: the bytes after the netlink header.
    Socket(&'a [u8]),
    /// The end of a dump; an errno, or 0.
    Done(i32),
    /// A refusal (errno), or an acknowledgement (0).
    Error(i32),
    /// Nothing that was asked for: another sequence number, or another type.
    Other,
}

/// A request for what is in `show`: of one socket by `inode` and `cookie`, or with [`DUMP`] of all in `states`.
pub(crate) fn request(flags: u16, seq: u32, states: u32, show: u32, inode: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend_from_slice(&40u32.to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&seq.to_ne_bytes());
    bytes.extend_from_slice(&0u32.to_ne_bytes());
    bytes.extend_from_slice(&[libc::AF_UNIX as u8, 0, 0, 0]);
    for field in [states, inode, show, cookie as u32, (cookie >> 32) as u32] {
        bytes.extend_from_slice(&field.to_ne_bytes());
    }
    bytes
}

/// The messages of one datagram that answer the request `seq`.
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
    seq: u32,
}

impl<'a> Messages<'a> {
    /// Reads `datagram`.
    pub(crate) fn new(datagram: &'a [u8], seq: u32) -> Messages<'a> {
        Messages { rest: datagram, seq }
    }

    fn take(&mut self) -> Result<Message<'a>, Malformed> {
        let len = read_u32(self.rest, 0).ok_or(Malformed("a header is cut short"))? as usize;
        let kind = read_u16(self.rest, 4).ok_or(Malformed("a header is cut short"))?;
        let seq = read_u32(self.rest, 8).ok_or(Malformed("a header is cut short"))?;
        let payload = self.rest.get(16..len).ok_or(Malformed("a message is cut short"))?;
        self.rest = self.rest.get(aligned(len)..).unwrap_or_default();
        if seq != self.seq {
            return Ok(Message::Other);
        }
        match kind {
            SOCK_DIAG_BY_FAMILY => Ok(Message::Socket(payload)),
            NLMSG_DONE => Ok(Message::Done(read_errno(payload).unwrap_or(0))),
            NLMSG_ERROR => read_errno(payload).map(Message::Error).ok_or(Malformed("an error has no number")),
            _ => Ok(Message::Other),
        }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.take();
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

/// A number that changes when a socket comes, goes or changes its state: of all sockets of a dump, added
/// up, it tells whether two dumps saw the same ones. 0 in ESTABLISHED, which not every dump asks for.
pub(crate) fn fingerprint(socket: &[u8]) -> u64 {
    if socket.get(2) == Some(&TCP_ESTABLISHED) {
        return 0;
    }
    let word = |at| u64::from(read_u32(socket, at).unwrap_or(0));
    let (kind_and_state, inode, cookie) = (word(0), word(4), word(8) | word(12) << 32);
    (cookie ^ inode.rotate_left(32) ^ kind_and_state.rotate_left(16)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The listener that a socket message tells of; `None` for a socket that is no listener: unbound, or a
/// connection.
pub(crate) fn listener(socket: &[u8]) -> Result<Option<Listener>, Malformed> {
    let Some(&[family, kind, state, _]) = socket.first_chunk::<4>() else {
        return Err(Malformed("a socket is cut short"));
    };
    let (Some(inode), Some(low), Some(high), Some(rest)) =
        (read_u32(socket, 4), read_u32(socket, 8), read_u32(socket, 12), socket.get(16..))
    else {
        return Err(Malformed("a socket is cut short"));
    };
    let kind = match i32::from(kind) {
        libc::SOCK_STREAM => SocketKind::Stream,
        libc::SOCK_DGRAM => SocketKind::Dgram,
        libc::SOCK_SEQPACKET => SocketKind::Seqpacket,
        _ => return Ok(None),
    };
    let state = match (kind, state) {
        (SocketKind::Dgram, TCP_CLOSE | TCP_ESTABLISHED) => ListenerState::Listening,
        (SocketKind::Stream | SocketKind::Seqpacket, TCP_LISTEN) => ListenerState::Listening,
        (SocketKind::Stream | SocketKind::Seqpacket, TCP_CLOSE) => ListenerState::Bound,
        _ => return Ok(None),
    };
    if i32::from(family) != libc::AF_UNIX || rest.is_empty() {
        return Ok(None);
    }
    let cookie = u64::from(low) | u64::from(high) << 32;
    let mut listener = Listener {
        inode: u64::from(inode),
        cookie,
        kind,
        state,
        name: None,
        vfs: None,
        pending: 0,
        backlog: 0,
        uid: None,
    };
    for attribute in (Attributes { rest }) {
        let (attribute, value) = attribute?;
        match attribute {
            0 => listener.name = name(value),
            1 => {
                let both = read_u32(value, 0).zip(read_u32(value, 4));
                listener.vfs = both.map(|(ino, dev)| Vfs { dev, ino });
            }
            4 => {
                listener.pending = read_u32(value, 0).unwrap_or(0);
                listener.backlog = read_u32(value, 4).unwrap_or(0);
            }
            6 if value.first().is_some_and(|how| how & RCV_SHUTDOWN != 0) => {
                listener.state = ListenerState::Shut
            }
            7 => listener.uid = read_u32(value, 0),
            _ => {}
        }
    }
    Ok((listener.name.is_some() || listener.vfs.is_some()).then_some(listener))
}

/// The queue of a socket in LISTEN, with the icons if they were asked for; `None` for any other socket.
pub(crate) fn waiting(socket: &[u8]) -> Result<Option<Waiting>, Malformed> {
    if socket.get(2) != Some(&TCP_LISTEN) {
        return Ok(None);
    }
    let mut waiting = Waiting { pending: 0, backlog: 0, icons: None };
    for attribute in (Attributes { rest: socket.get(16..).unwrap_or_default() }) {
        match attribute? {
            (3, icons) => {
                let words = icons.as_chunks().0.iter();
                waiting.icons = Some(words.map(|word| u32::from_ne_bytes(*word)).collect());
            }
            (4, value) => {
                waiting.pending = read_u32(value, 0).unwrap_or(0);
                waiting.backlog = read_u32(value, 4).unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(Some(waiting))
}

/// The inode that an open connection bears: of an accepted one, its listener's. `None` for a datagram socket.
pub(crate) fn connection(socket: &[u8]) -> Result<Option<Vfs>, Malformed> {
    if socket.get(1).is_none_or(|kind| i32::from(*kind) == libc::SOCK_DGRAM) {
        return Ok(None);
    }
    for attribute in (Attributes { rest: socket.get(16..).unwrap_or_default() }) {
        if let (1, value) = attribute? {
            let both = read_u32(value, 0).zip(read_u32(value, 4));
            return Ok(both.map(|(ino, dev)| Vfs { dev, ino }));
        }
    }
    Ok(None)
}

/// What tells a socket from every other.
pub(crate) fn id(socket: &[u8]) -> Result<ListenerId, Malformed> {
    let word = |at| read_u32(socket, at).map(u64::from).ok_or(Malformed("a socket is cut short"));
    Ok(ListenerId { inode: word(4)?, cookie: word(8)? | word(12)? << 32 })
}

/// The attributes of a socket message: type and value.
struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let length = read_u16(self.rest, 0).map(usize::from);
        let attribute =
            length.and_then(|length| Some((length, read_u16(self.rest, 2)?, self.rest.get(4..length)?)));
        let Some((length, kind, value)) = attribute else {
            self.rest = &[];
            return Some(Err(Malformed("an attribute is cut short")));
        };
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some(Ok((kind, value)))
    }
}

/// A path ends at its NUL; an abstract name begins with one and may hold more.
fn name(value: &[u8]) -> Option<Name> {
    match value {
        [] => None,
        [0, name @ ..] => Some(Name::Abstract(name.into())),
        path => {
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            path.get(..end).map(|path| Name::Path(Path::new(OsStr::from_bytes(path)).into()))
        }
    }
}

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

/// Errors travel as negative numbers.
fn read_errno(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|chunk| i32::from_ne_bytes(*chunk).saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn socket(kind: u8, state: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![1, kind, state, 0];
        bytes.extend(77u32.to_ne_bytes());
        bytes.extend(5u32.to_ne_bytes());
        bytes.extend(1u32.to_ne_bytes());
        bytes.extend(attributes.concat());
        bytes
    }

    fn message(kind: u16, seq: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32 + 16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(seq.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn two_words(first: u32, second: u32) -> Vec<u8> {
        [first.to_ne_bytes(), second.to_ne_bytes()].concat()
    }

    #[test]
    fn a_listener_is_read_whole() {
        let bytes = socket(
            1,
            10,
            &[
                attribute(0, b"/run/x.sock\0"),
                attribute(1, &two_words(42, 8 << 20 | 1)),
                attribute(4, &two_words(2, 128)),
                attribute(6, &[0]),
                attribute(7, &1000u32.to_ne_bytes()),
            ],
        );
        let listener = listener(&bytes).unwrap().unwrap();
        assert_eq!(listener.id(), crate::ListenerId { inode: 77, cookie: 5 | 1 << 32 });
        assert_eq!(listener.path(), Some(std::path::Path::new("/run/x.sock")));
        assert_eq!(listener.vfs, Some(Vfs { dev: 8 << 20 | 1, ino: 42 }));
        assert_eq!((listener.pending, listener.backlog, listener.uid), (2, 128, Some(1000)));
        assert_eq!((listener.kind, listener.state), (SocketKind::Stream, ListenerState::Listening));
    }

    #[test]
    fn a_queue_is_read_in_its_order() {
        let numbers = attribute(4, &two_words(2, 128));
        let read = |bytes: &[u8]| waiting(bytes).unwrap();
        let named = socket(1, 10, &[numbers.clone(), attribute(3, &two_words(31, 0))]);
        assert_eq!(read(&named), Some(Waiting { pending: 2, backlog: 128, icons: Some(vec![31, 0]) }));
        let unnamed = socket(1, 10, &[numbers]);
        assert_eq!(read(&unnamed), Some(Waiting { pending: 2, backlog: 128, icons: None }));
        assert_eq!(read(&socket(1, 10, &[attribute(3, &[])])).unwrap().icons, Some(Vec::new()));
        assert_eq!(read(&socket(1, 1, &[attribute(3, &two_words(31, 0))])), None, "a connection");
    }

    #[test]
    fn states_tell_listeners_from_connections() {
        let named = [attribute(0, b"x\0")];
        let state = |kind, state| listener(&socket(kind, state, &named)).unwrap().map(|found| found.state);
        assert_eq!(state(1, 10), Some(ListenerState::Listening));
        assert_eq!(state(1, 7), Some(ListenerState::Bound));
        assert_eq!(state(1, 1), None, "an accepted connection keeps its listener's name");
        assert_eq!(state(5, 10), Some(ListenerState::Listening));
        assert_eq!(state(2, 7), Some(ListenerState::Listening));
        assert_eq!(state(2, 1), Some(ListenerState::Listening));
        assert_eq!(listener(&socket(1, 7, &[])), Ok(None), "an unbound socket");
        let shut = socket(1, 10, &[attribute(0, b"x\0"), attribute(6, &[3])]);
        assert_eq!(listener(&shut).unwrap().unwrap().state, ListenerState::Shut);
    }

    #[test]
    fn an_abstract_name_keeps_every_byte() {
        let bytes = socket(1, 10, &[attribute(0, b"\0a\0b")]);
        assert_eq!(listener(&bytes).unwrap().unwrap().name, Some(Name::Abstract(b"a\0b".as_slice().into())));
    }

    #[test]
    fn the_end_of_a_dump_may_carry_an_errno_and_strangers_are_passed_over() {
        let mut bytes = message(NLMSG_DONE, 6, &0i32.to_ne_bytes());
        bytes.extend(message(20, 7, &[9; 16]));
        bytes.extend(message(NLMSG_DONE, 7, &(-libc::EINTR).to_ne_bytes()));
        let found: Vec<_> = Messages::new(&bytes, 7).map(Result::unwrap).collect();
        assert_eq!(found, [Message::Other, Message::Socket(&[9; 16]), Message::Done(libc::EINTR)]);
    }

    #[test]
    fn a_request_is_forty_bytes_in_the_kernels_order() {
        let bytes = request(REQUEST, 3, LISTEN, SHOW, 9, 0x0000_0002_0000_0001);
        assert_eq!(bytes.len(), 40);
        assert_eq!(read_u32(&bytes, 24), Some(9));
        assert_eq!((read_u32(&bytes, 32), read_u32(&bytes, 36)), (Some(1), Some(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), seq: u32) {
            for message in Messages::new(&bytes, seq) {
                if let Ok(Message::Socket(socket)) = message {
                    let _ = (listener(socket), waiting(socket), fingerprint(socket));
                }
            }
            let _ = (listener(&bytes), waiting(&bytes));
        }

        #[test]
        fn a_damaged_answer_ends(
            cut in 0usize..120, flips in proptest::collection::vec((0usize..120, any::<u8>()), 0..6)
        ) {
            let one = socket(1, 10, &[attribute(0, b"/run/x.sock\0"), attribute(1, &two_words(42, 1)), attribute(7, &[0; 4])]);
            let mut bytes = [message(20, 1, &one), message(NLMSG_DONE, 1, &[0; 4])].concat();
            for (at, value) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut);
            let messages: Vec<_> = Messages::new(&bytes, 1).collect();
            prop_assert!(messages.len() <= bytes.len() / 16 + 1);
            for socket in messages.iter().filter_map(|message| match message { Ok(Message::Socket(socket)) => Some(socket), _ => None }) {
                let _ = listener(socket);
            }
        }
    }
}
