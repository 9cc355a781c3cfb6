//! What the server has bound.
#![allow(unsafe_code)] // descriptors that were handed over become owned

use crate::Result;
use crate::habits::Habits;
use crate::server::remove;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::AddressFamily;
use nix::sys::socket::{Backlog, SockFlag, SockType, bind, listen, socket};
use scenarios::client::address;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
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

/// Takes what sd_listen_fds(3) hands over.
pub fn handed_over(habits: &Habits) -> Result<Vec<Endpoint>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == Some(std::process::id()));
    let wanted = habits.sockets.len();
    if count.map(usize::try_from) != Some(Ok(wanted)) {
        return Err(format!("{wanted} listeners are wanted, and {count:?} were handed over").into());
    }
    let take = |(fd, (kind, _)): (RawFd, &(SockType, _))| {
        // SAFETY: the environment says that this one is ours, and nothing else has been opened yet.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // As servers with an event loop do: their successors find it so, unless somebody puts it back.
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Endpoint::of(*kind, fd))
    };
    (3..).zip(&habits.sockets).map(take).collect()
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
