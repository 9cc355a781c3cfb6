//! The signals that wrap gets: all of them, read one by one, none lost to a default.
#![allow(unsafe_code)] // registering a descriptor with tokio is unsafe

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A source of signals. They are blocked before (see [`Inherited::take`](super::inherited::Inherited::take)).
#[derive(Debug)]
pub struct Signals(AsyncFd<Descriptor>);

#[derive(Debug)]
struct Descriptor(SignalFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Signals {
    /// Opens it, within a tokio runtime.
    ///
    /// # Errors
    /// Where descriptors are short.
    pub fn open() -> io::Result<Signals> {
        let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // SAFETY: the descriptor is owned and never exchanged.
        let registered = unsafe { AsyncFd::register_with_interest(Descriptor(signals), Interest::READABLE) };
        Ok(Signals(registered.map_err(io::Error::from)?))
    }

    /// Waits for a signal and gives its number. Cancel-safe.
    ///
    /// # Errors
    /// Only where the descriptor is broken.
    pub async fn next(&self) -> io::Result<i32> {
        let own = std::process::id();
        loop {
            let mut ready = self.0.readable().await?;
            match ready.get_inner().0.read_signal() {
                // SIGPIPE, of a standard error that nobody reads any more.
                Ok(Some(signal)) if signal.ssi_pid == own => {}
                Ok(Some(signal)) => return Ok(signal.ssi_signo as i32),
                Ok(None) => ready.clear_ready(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
