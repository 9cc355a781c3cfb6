//! What the server has bound.

use crate::Result;
use crate::habits::Habits;
use crate::server::remove;
use nix::sys::socket::AddressFamily;
use nix::sys::socket::{Backlog, SockFlag, SockType, bind, listen, socket};
use scenarios::client::address;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};

/// Something bound.
pub enum Endpoint {
    /// Clients connect to it.
    Listener(SockType, UnixListener),
    /// Clients send to it.
    Datagram(UnixDatagram),
    /// Others pass listeners to it.
    Taker(UnixListener),
}

impl Endpoint {
    /// The endpoint of a bound socket.
    pub fn of(kind: SockType, fd: OwnedFd) -> Endpoint {
        match kind {
            SockType::Datagram => Endpoint::Datagram(UnixDatagram::from(fd)),
            kind => Endpoint::Listener(kind, UnixListener::from(fd)),
        }
    }

    /// Its type's name in a spec.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Endpoint::Datagram(_) => "dgram",
            Endpoint::Listener(SockType::SeqPacket, _) => "seqpacket",
            Endpoint::Listener(..) | Endpoint::Taker(_) => "stream",
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Endpoint::Listener(_, listener) | Endpoint::Taker(listener) => listener.as_fd(),
            Endpoint::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// Binds all paths, and listens.
pub fn bind_all(habits: &Habits) -> Result<Vec<Endpoint>> {
    let mut bound = Vec::new();
    for (kind, path) in &habits.sockets {
        // Workers share the listener: whoever is too late to accept must not block.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, *kind, flags, None)?;
        let mut name = path.clone();
        if habits.relative {
            std::env::set_current_dir(path.parent().ok_or("no folder")?)?;
            name = path.file_name().ok_or("no name")?.into();
        }
        if habits.temp_rename {
            name.set_extension(format!("{}.tmp", std::process::id()));
        } else if !habits.refuse_stale {
            remove([name.as_path()].into_iter());
        }
        match bind(fd.as_raw_fd(), &address(&name)?) {
            Err(_) if habits.run_on => continue,
            bound => bound.map_err(|errno| format!("{}: {errno}", path.display()))?,
        }
        if habits.temp_rename {
            fs::rename(&name, path)?;
        }
        std::thread::sleep(habits.listen_after);
        if *kind != SockType::Datagram {
            listen(&fd, Backlog::new(habits.backlog)?)?;
        }
        bound.push(Endpoint::of(*kind, fd));
    }
    if let Some(path) = &habits.take {
        remove([path.as_path()].into_iter());
        bound.push(Endpoint::Taker(UnixListener::bind(path)?));
    }
    Ok(bound)
}
