//! The way to a listener whose file is gone: connect(2) to `/proc/self/fd/N` of an `O_PATH` descriptor of its inode.
//!
//! The kernel finds a listener by the inode that a path leads to, and the magic link of the descriptor leads to it
//! without any name. The descriptor is had of the process that listens ([`socket_audit::file_of_listener`]), which takes
//! root. The permission bits of the inode are asked as on any other way.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{FileStat, fstat};
use socket_audit::{AuditError, Diag, FileError, ListenerId, file_of_listener};

/// A listener without a name.
#[derive(Debug)]
pub struct Nameless {
    file: OwnedFd,
    listener: ListenerId,
}

impl Nameless {
    /// The listener that `pid` holds.
    ///
    /// # Errors
    /// [`FileError`]: this user may not ask, or the process holds it no more.
    pub fn open(pid: i32, listener: ListenerId) -> Result<Nameless, FileError> {
        Ok(Nameless { file: file_of_listener(pid, listener.inode)?, listener })
    }

    /// Its inode: owner, group and mode are what its clients went by.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn stat(&self) -> Result<FileStat, Errno> {
        fstat(&self.file)
    }

    /// Whether it still listens, in this network namespace.
    ///
    /// # Errors
    /// The kernel would not say.
    pub fn lives(&self, diag: &mut Diag) -> Result<bool, AuditError> {
        diag.query(self.listener.inode, self.listener.cookie).map(|found| found.is_some())
    }

    /// A connection to it, not blocking.
    ///
    /// # Errors
    /// `EAGAIN` while its queue is full, `ECONNREFUSED` once nobody listens, `EACCES` where the caller may not.
    pub fn connect(&self) -> Result<UnixStream, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let address = UnixAddr::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()).as_str())?;
        connect(stream.as_raw_fd(), &address)?;
        Ok(stream.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    use nix::unistd::geteuid;
    use socket_audit::{Auditor, Expect, Verdict};

    /// A listener whose file is gone, as an audit sees it.
    fn lost(folder: &std::path::Path) -> (UnixListener, ListenerId) {
        let path = folder.join("lost.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let found = Auditor::new().unwrap().confirm(&Expect::path(&path));
        assert_eq!(found.verdict, Verdict::Dangling);
        (listener, found.listener.unwrap().id())
    }

    #[test]
    fn a_listener_without_a_name_is_reached_until_it_is_closed() {
        if !geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (listener, id) = lost(folder.path());
        let nameless = Nameless::open(std::process::id() as i32, id).unwrap();
        let mut client = nameless.connect().unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"hello").unwrap();
        client.set_nonblocking(false).unwrap();
        let mut word = [0; 5];
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"hello");
        assert_eq!(nameless.stat().unwrap().st_uid, folder.path().metadata().unwrap().uid());
        let mut diag = Diag::open().unwrap();
        assert!(nameless.lives(&mut diag).unwrap());
        drop(listener);
        assert!(!nameless.lives(&mut diag).unwrap());
        assert_eq!(nameless.connect().unwrap_err(), Errno::ECONNREFUSED);
    }

    #[test]
    fn why_it_cannot_be_had_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (_listener, id) = lost(folder.path());
        let elsewhere = ListenerId { inode: u64::from(u32::MAX) + id.inode, ..id };
        let error = Nameless::open(std::process::id() as i32, elsewhere).unwrap_err();
        assert_eq!((error.errno, error.pid), (Errno::ENOENT, std::process::id() as i32));
        assert!(error.to_string().contains("look again"), "{error}");
        let error = Nameless::open(i32::MAX, id).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the descriptors of pid 2147483647"), "{error}");
    }
}
