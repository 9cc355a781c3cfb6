//! What the kernel knows of a bound Unix socket.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The socket's type (`socket(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketKind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Dgram,
    /// SOCK_SEQPACKET.
    Seqpacket,
}

impl SocketKind {
    /// `stream`, `dgram` or `seqpacket`, as specs say it.
    pub fn as_str(self) -> &'static str {
        match self {
            SocketKind::Stream => "stream",
            SocketKind::Dgram => "dgram",
            SocketKind::Seqpacket => "seqpacket",
        }
    }
}

impl std::fmt::Display for SocketKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a bound socket has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerState {
    /// A stream or seqpacket socket in LISTEN, or a bound datagram socket (CLOSE, or ESTABLISHED once a
    /// peer has connected to it).
    Listening,
    /// A stream or seqpacket socket that is bound and has not called `listen`: clients are refused.
    Bound,
    /// Shut down for reading (`shutdown(2)`): it will never take anyone again, though it is not closed.
    Shut,
}

/// The name a socket was bound to. It never changes: a later rename or unlink does not show in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// The path as it was given to `bind`: it may be relative, hold `//` or `..`, or have been renamed since.
    Path(Arc<Path>),
    /// An abstract name, without the leading NUL.
    Abstract(Arc<[u8]>),
}

/// The inode a socket was bound to, as sock_diag names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vfs {
    /// The superblock's device in the kernel's encoding, `major << 20 | minor` (mountinfo's, not `st_dev`).
    pub dev: u32,
    /// The low 32 bits of the inode number.
    pub ino: u32,
}

/// Names one kernel socket for as long as the machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListenerId {
    /// The socket's inode (`ss -e`, `/proc/<pid>/fd`), which may be used again once the socket is gone.
    pub inode: u64,
    /// The kernel's cookie, which never is.
    pub cookie: u64,
}

/// A bound Unix socket that can be, or soon will be, or once was there for clients. Connections are none,
/// even those that carry their listener's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The kernel socket's inode, not the dentry's.
    pub inode: u64,
    /// The kernel's cookie of this socket.
    pub cookie: u64,
    /// Its type.
    pub kind: SocketKind,
    /// How far it has got.
    pub state: ListenerState,
    /// The name it was bound to.
    pub name: Option<Name>,
    /// The inode it was bound to; none for an abstract name.
    pub vfs: Option<Vfs>,
    /// Connections that wait to be accepted; for a datagram socket, bytes that wait to be read.
    pub pending: u32,
    /// How many connections may wait; more than this many pending is full.
    pub backlog: u32,
    /// The user who created the socket; `None` before Linux 5.3.
    pub uid: Option<u32>,
}

impl Listener {
    /// What tells this socket from every other of this boot.
    pub fn id(&self) -> ListenerId {
        ListenerId { inode: self.inode, cookie: self.cookie }
    }

    /// The path it was bound to, if its name is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.name {
            Some(Name::Path(path)) => Some(path),
            Some(Name::Abstract(_)) | None => None,
        }
    }
}
