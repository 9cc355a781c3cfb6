//! The daemon's end of the channel to a trampoline.
//!
//! It waits for what comes, and only where it must for room to write. Whoever waits for both is woken each time that the
//! other side has read something: twice in each start, and mostly while the trampoline wants the processor.
#![allow(unsafe_code)] // a descriptor is registered with epoll for one direction alone

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::activation::Held;
use super::super::exec::{Report, handover};
use super::SpawnError;

/// The longest report of a trampoline: two paths and a little.
const MAX_REPORT: usize = 64 * 1024;

/// One end of a socket pair.
#[derive(Debug)]
pub(super) struct Channel(AsyncFd<UnixStream>);

impl Channel {
    /// Needs a tokio runtime.
    pub fn new(own: UnixStream) -> io::Result<Channel> {
        own.set_nonblocking(true)?;
        // SAFETY: the stream is owned, so its number is this one file's as long as it is registered.
        Ok(Channel(unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?))
    }

    /// Sends what there is room for, and gives how much.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_ref().write(bytes)
    }

    /// Sends all of it.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut own = self.0.get_ref();
        while !bytes.is_empty() {
            let sent = self.once_there_is_room(|| own.write(bytes)).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Hands the listeners over.
    pub async fn send_listeners(&self, listeners: &[Arc<Held>]) -> io::Result<()> {
        let fds: Vec<_> = listeners.iter().map(|listener| listener.as_fd()).collect();
        let mut rest = fds.as_slice();
        while !rest.is_empty() {
            let sent = self.once_there_is_room(|| handover::send(self.0.get_ref(), rest)).await?;
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// The next report, or `None` at the end of file. There are two at most, and the second comes only after a word to the
    /// trampoline: nothing is read too far.
    pub async fn report(&self) -> Result<Option<Report>, SpawnError> {
        let mut line = Vec::new();
        loop {
            if let Some(text) = line.strip_suffix(b"\n") {
                return serde_json::from_slice(text).map(Some).map_err(|_| SpawnError::died());
            }
            let mut part = [0; 512];
            let read = self.0.async_io(Interest::READABLE, |mut own| own.read(&mut part)).await;
            match read {
                Ok(0) if line.is_empty() => return Ok(None),
                Ok(n) if n > 0 && line.len() < MAX_REPORT => {
                    line.extend_from_slice(part.get(..n).unwrap_or_default());
                }
                // An end with the plan unread is a reset, and no less an end.
                Err(e) if line.is_empty() && e.kind() == ErrorKind::ConnectionReset => return Ok(None),
                _ => return Err(SpawnError::died()),
            }
        }
    }

    async fn once_there_is_room<T>(&self, mut send: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match send() {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // A descriptor of its own: epoll knows each only once.
                    tokio::net::UnixStream::from_std(self.0.get_ref().try_clone()?)?.writable().await?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                sent => return sent,
            }
        }
    }
}
