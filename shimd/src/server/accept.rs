//! The listeners behind the control socket: the one at the path, and those that have lost it.
//!
//! A listener that another has taken the place of takes no more connections (shutdown(2): a newcomer who still found its
//! dentry is refused, not lost), and goes once those that wait in its queue have been accepted. A client that waits for
//! room in that queue is woken by this, and looks the path up again (unix_stream_connect in net/unix/af_unix.c).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{self, UnixListener};
use std::task::{Context, Poll};

use interprocess::os::unix::uds_local_socket::tokio::Listener;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Where connections come from.
#[derive(Debug)]
pub(super) struct Listeners {
    current: Listener,
    /// Those that are being drained, the oldest first.
    retired: Vec<UnixListener>,
    successors: mpsc::UnboundedReceiver<Listener>,
}

impl Listeners {
    /// One listener; each of `successors` takes its predecessor's place.
    pub(super) fn new(first: Listener, successors: mpsc::UnboundedReceiver<Listener>) -> Self {
        Listeners { current: first, retired: Vec::new(), successors }
    }

    /// The next connection; those in the queue of a listener that was replaced come first. Dropping the future loses none.
    pub(super) async fn accept(&mut self) -> io::Result<UnixStream> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        while let Poll::Ready(Some(successor)) = self.successors.poll_recv(context) {
            match retire(std::mem::replace(&mut self.current, successor)) {
                Ok(retired) => self.retired.push(retired),
                Err(error) => tracing::warn!(%error, "a lost control socket cannot be drained"),
            }
        }
        while let Some(oldest) = self.retired.first() {
            match oldest.accept() {
                Ok((stream, _)) => return Poll::Ready(adopt(stream)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(self.retired.remove(0)),
                // Descriptors ran out, say: who waits is not given up for that.
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.current.inner().poll_accept(context).map_ok(|(stream, _)| stream)
    }
}

/// Lets nobody into the queue any more. The reactor is of no use then: it says without end that such a socket is readable.
fn retire(listener: Listener) -> io::Result<UnixListener> {
    shutdown(listener.as_fd().as_raw_fd(), Shutdown::Read)?;
    Ok(OwnedFd::try_from(listener)?.into())
}

fn adopt(stream: net::UnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
