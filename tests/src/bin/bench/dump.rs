//! The least that an audit can cost: one dump as the kernel writes it, read and not looked at. With all that an audit
//! needs to know of each socket (name, inode, queue, user), which is what makes the kernel write it.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use scenarios::{Result, ensure};
use std::os::fd::{AsRawFd, OwnedFd};

/// `NLMSG_DONE`.
const DONE: u16 = 3;

/// A netlink socket to ask.
pub struct Dump {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Dump {
    /// Opens it.
    pub fn open() -> Result<Dump> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let diag = SockProtocol::NetlinkSockDiag;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, diag)?;
        Ok(Dump { socket, buffer: vec![0; 32 * 1024] })
    }

    /// One dump; gives how many bytes it had.
    pub fn take(&mut self) -> Result<usize> {
        let fd = self.socket.as_raw_fd();
        sendto(fd, &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut total = 0;
        loop {
            let count = recv(fd, &mut self.buffer, MsgFlags::empty())?;
            ensure!(count > 0, "the kernel ended a dump without a word");
            total += count;
            if ends(self.buffer.get(..count).unwrap_or_default()) {
                return Ok(total);
            }
        }
    }
}

/// `nlmsghdr` and `unix_diag_req`: all in LISTEN or CLOSE, with NAME, VFS, RQLEN and UID.
fn request() -> Vec<u8> {
    let words: [u32; 10] = [40, 20 | 0x301 << 16, 1, 0, 1, 1 << 10 | 1 << 7, 0, 0x53, !0, !0];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Whether a datagram holds the last message.
fn ends(mut datagram: &[u8]) -> bool {
    while let Some(&[a, b, c, d, e, f]) = datagram.first_chunk::<6>() {
        if u16::from_ne_bytes([e, f]) == DONE {
            return true;
        }
        let length = u32::from_ne_bytes([a, b, c, d]).next_multiple_of(4).max(16);
        datagram = datagram.get(length as usize..).unwrap_or_default();
    }
    false
}
