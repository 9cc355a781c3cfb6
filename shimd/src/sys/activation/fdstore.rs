//! systemd keeps descriptors for a unit that restarts: it is given them by sd_notify(3) (`FDSTORE=1`) and hands them to
//! the unit's next process as it hands over sockets (sd_listen_fds(3)). Needs `FileDescriptorStoreMax=` in the unit.
#![allow(unsafe_code)] // descriptors that were inherited become owned

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use super::MAX_NAME;

/// Where the first handed-over descriptor is (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More descriptors than systemd hands over.
const MOST: RawFd = 1 << 16;

/// The service manager's store of descriptors.
#[derive(Debug)]
pub struct FdStore {
    socket: UnixDatagram,
    address: UnixAddr,
}

impl FdStore {
    /// The store of the manager that `NOTIFY_SOCKET` names; `None` where there is no such manager. Whether it keeps
    /// what it is given is not told.
    pub fn of(notify_socket: Option<&OsStr>) -> Option<FdStore> {
        let text = notify_socket?;
        let address = match text.as_bytes().strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name),
            None if Path::new(text).is_absolute() => UnixAddr::new(Path::new(text)),
            None => return None, // vsock, of a virtual machine
        };
        Some(FdStore { socket: UnixDatagram::unbound().ok()?, address: address.ok()? })
    }

    /// Gives a listener to the store. What it has already it does not store again.
    ///
    /// # Errors
    /// Where the manager could not be reached.
    pub fn keep(&self, service: &str, declared: &str, listener: impl AsFd) -> Result<(), Errno> {
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={}", store_name(service, declared));
        self.send(&text, &[listener.as_fd().as_raw_fd()])
    }

    /// Takes a listener from the store, when it is closed.
    ///
    /// # Errors
    /// As [`FdStore::keep`].
    pub fn forget(&self, service: &str, declared: &str) -> Result<(), Errno> {
        self.forget_named(&store_name(service, declared))
    }

    /// The same, by the name that [`inherited`] gave.
    ///
    /// # Errors
    /// As [`FdStore::keep`].
    pub fn forget_named(&self, name: &str) -> Result<(), Errno> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Tells the manager that the unit is up (sd_notify(3)), for `Type=notify`.
    ///
    /// # Errors
    /// As [`FdStore::keep`].
    pub fn say_ready(&self) -> Result<(), Errno> {
        self.send("READY=1", &[])
    }

    fn send(&self, text: &str, fds: &[RawFd]) -> Result<(), Errno> {
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let parts = [std::io::IoSlice::new(text.as_bytes())];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg(self.socket.as_raw_fd(), &parts, control, flags, Some(&self.address)).map(drop)
    }
}

/// The name in the store: the service and the socket as declared. No two have the same, unless it had to be cut.
fn store_name(service: &str, declared: &str) -> String {
    let mut name = format!("{service}/");
    for byte in declared.bytes() {
        match byte {
            b':' | b'%' | ..b' ' | 127.. => name.push_str(&format!("%{byte:02X}")),
            plain => name.push(char::from(plain)),
        }
    }
    name.truncate(MAX_NAME);
    name
}

/// The descriptors that this process was started with by `LISTEN_FDS`, close-on-exec from now on, with their names. The
/// first call gives them, before the process opens anything: later ones find none.
pub fn inherited(get: &dyn Fn(&str) -> Option<OsString>) -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
    let for_us = text("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let count = text("LISTEN_FDS").and_then(|n| n.parse::<RawFd>().ok());
    let Some(count) = count.filter(|n| for_us && (1..MOST).contains(n)) else { return Vec::new() };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let names = text("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    let take = |number: RawFd| {
        let name = names.next().unwrap_or_default();
        // SAFETY: whoever started us says that this descriptor is there for us; it is looked at before it is owned.
        let open = Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) }).is_ok();
        // SAFETY: it is open, and given away here and once only.
        let fd = open.then(|| unsafe { OwnedFd::from_raw_fd(number) })?;
        let _ = fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)); // cannot fail on an open descriptor
        Some((name, fd))
    };
    (FIRST..FIRST + count).filter_map(take).collect()
}
