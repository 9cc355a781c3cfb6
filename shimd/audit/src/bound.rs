//! Whether any socket is bound to a socket file, in one call and by what a client would meet.
//!
//! A dump lists one network namespace, may miss a socket while others come and go, and shows the low half of an inode's
//! number. connect(2) goes by the inode itself, in every network namespace; but to a listener of its own type it leaves a
//! connection, and of a stream socket that is bound and does not listen yet it says ECONNREFUSED, as of a dead file.
//!
//! So the question is put by a *datagram* socket. The kernel finds the socket that is bound to the inode, then compares
//! the types, and looks no further (`unix_find_bsd`, net/unix/af_unix.c):
//!
//! | bound to the inode | connect(2) of a datagram socket | what it does there |
//! | --- | --- | --- |
//! | a stream or seqpacket socket, listening or not | EPROTOTYPE | nothing |
//! | a datagram socket | 0; EPERM if that one has another peer | nothing: no message is sent, and only our own end has a peer |
//! | nothing: nobody listens, nor ever will, for an inode is bound once | ECONNREFUSED | |
//!
//! The file is named by a descriptor: no race with its path, and no length that would be too long.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{SFlag, fstat};

/// Whether any socket, listening or not, is bound to the socket file that a descriptor (an `O_PATH` one will do) is of.
/// `None` where the kernel does not say: no right to write to the file, no `/proc`, or no socket file at all.
pub(crate) fn is_bound(file: impl AsFd) -> Option<bool> {
    let file = file.as_fd();
    let kind = SFlag::from_bits_truncate(fstat(file).ok()?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFSOCK {
        return None;
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asker = socket(AddressFamily::Unix, SockType::Datagram, flags, None).ok()?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str()).ok()?;
    match connect(asker.as_raw_fd(), &address) {
        Err(Errno::ECONNREFUSED) => Some(false),
        Ok(()) | Err(Errno::EPROTOTYPE) => Some(true),
        // EPERM may also be a security module's.
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::Witness;
    use nix::sys::socket::{Backlog, bind, getsockname, listen, shutdown};
    use std::fs;
    use std::io::ErrorKind;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::path::Path;

    fn bound(path: &Path, kind: SockType) -> OwnedFd {
        let made = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(made.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        made
    }

    fn ask(path: &Path) -> Option<bool> {
        Witness::of(path).unwrap().is_bound()
    }

    #[test]
    fn a_file_is_dead_only_when_the_last_descriptor_of_its_socket_is_closed() {
        let folder = std::env::temp_dir().join(format!("socket-audit-bound-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        for kind in [SockType::Stream, SockType::SeqPacket, SockType::Datagram] {
            let path = folder.join(format!("{kind:?}.sock"));
            let made = bound(&path, kind);
            assert_eq!(ask(&path), Some(true), "{kind:?}, bound");
            if kind != SockType::Datagram {
                listen(&made, Backlog::new(8).unwrap()).unwrap();
                assert_eq!(ask(&path), Some(true), "{kind:?}, listening");
                shutdown(made.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
                assert_eq!(ask(&path), Some(true), "{kind:?}, shut down");
            }
            // By any of its names, and by none.
            fs::hard_link(&path, folder.join("other")).unwrap();
            let held = Witness::of(&path).unwrap();
            assert_eq!(ask(&folder.join("other")), Some(true), "{kind:?}, by its other name");
            fs::remove_file(folder.join("other")).unwrap();
            let copy = made.try_clone().unwrap();
            drop(made);
            assert_eq!(ask(&path), Some(true), "{kind:?}, held by a copy");
            drop(copy);
            assert_eq!(ask(&path), Some(false), "{kind:?}, closed");
            fs::remove_file(&path).unwrap();
            assert_eq!(held.is_bound(), Some(false), "{kind:?}, closed and removed");
        }
        fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn nobody_notices_that_it_was_asked() {
        let folder = std::env::temp_dir().join(format!("socket-audit-asked-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("stream")).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(ask(&folder.join("stream")), Some(true));
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        // What was accepted outlives the listener, bears its name, and keeps nothing alive.
        let client = UnixStream::connect(folder.join("stream")).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        drop(listener);
        let name: UnixAddr = getsockname(accepted.as_raw_fd()).unwrap();
        assert_eq!(name.path(), Some(folder.join("stream").as_path()));
        assert_eq!(ask(&folder.join("stream")), Some(false));
        drop((client, accepted));

        let server = UnixDatagram::bind(folder.join("dgram")).unwrap();
        server.set_nonblocking(true).unwrap();
        assert_eq!(ask(&folder.join("dgram")), Some(true));
        let nothing = server.recv(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        let peer = UnixDatagram::bind(folder.join("peer")).unwrap();
        peer.connect(folder.join("dgram")).unwrap();
        server.connect(folder.join("peer")).unwrap();
        assert_ne!(ask(&folder.join("dgram")), Some(false), "it has another peer");
        peer.send(b"x").unwrap();
        assert_eq!(server.recv(&mut [0]).unwrap(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn of_what_is_no_socket_nothing_is_said() {
        let path = std::env::temp_dir().join(format!("socket-audit-file-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        assert_eq!(ask(&path), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(ask(Path::new("/proc")), None);
    }
}
