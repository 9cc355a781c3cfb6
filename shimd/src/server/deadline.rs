//! A stream whose writes may not take forever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Fails with `TimedOut` when what was written has not been flushed within the limit: a peer that reads now and then
/// a byte gets no more time than one that reads nothing.
pub(super) struct WriteDeadline<S> {
    stream: S,
    limit: Duration,
    /// Set from the first write that had to wait until the next flush.
    running: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        WriteDeadline { stream, limit, running: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            return Poll::Ready(written);
        }
        let limit = self.limit;
        let running = self.running.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(running.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answers")))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.running = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_too_slowly_ends_the_write() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = WriteDeadline::new(near, Duration::from_millis(200));
        let write = async {
            near.write_all(&[0; 1000]).await?;
            near.flush().await
        };
        let trickle = async {
            while far.read_u8().await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let error = tokio::select! {
            result = write => result.expect_err("it takes too long"),
            () = trickle => panic!("the writer lives"),
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn each_flush_begins_anew() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = WriteDeadline::new(near, Duration::from_secs(1));
        let write = async {
            for _ in 0..10 {
                near.write_all(&[0; 32]).await?;
                near.flush().await?;
            }
            io::Result::Ok(())
        };
        let read = async {
            loop {
                sleep(Duration::from_millis(75)).await;
                if far.read_exact(&mut [0; 16]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            result = write => result.expect("each takes under a second, all together two"),
            () = read => panic!("the writer lives"),
        }
    }
}
