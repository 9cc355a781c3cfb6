//! JSON-RPC in lines: one message a line in, one message a line out.
//!
//! Reading and writing go on side by side. The client may close its writing end and still gets its answers and streams
//! (`nc -N`, `socat`); once it is gone altogether, its requests are dropped at once. A line over the limit is answered
//! with `too_large`, and ends the connection: where the next message begins is not worth knowing.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use shimd_api::rpc::RpcError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::ReadHalf;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::clients::Client;
use super::connection::hangup;
use super::dispatch::{Calls, Evicted, Outgoing};
use super::message;
use super::{Handler, Shared};

/// The least that is read at once.
const CHUNK: usize = 8 << 10;
/// A buffer larger than this is given back once it is empty.
const KEEP: usize = 64 << 10;

/// Serves one client until it is done, the server is, or it takes no answers any more.
pub(super) async fn serve<H: Handler>(
    stream: &mut UnixStream,
    client: &Arc<Client>,
    shared: &Arc<Shared<H>>,
) {
    // Room for every answer under way, and as much again for progress.
    let (out, queue) = mpsc::channel(2 * shared.limits.in_flight);
    let gone = hangup(stream.as_fd().try_clone_to_owned());
    let (reader, writer) = stream.split();
    let mut answers = pin!(write_all(writer, queue, shared.limits.write));
    // The requests are still read to the last: there may be notifications among them.
    let watch = async {
        gone.await;
        client.hang_up();
        std::future::pending().await
    };
    tokio::select! {
        result = &mut answers => return log_end(result),
        () = requests(reader, client, shared, out) => {}
        () = watch => {}
    }
    log_end(answers.await);
}

fn log_end(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a client was dropped");
    }
}

/// Reads requests; returns once all of them are answered, or nobody wants their answers.
async fn requests<H: Handler>(
    reader: ReadHalf<'_>,
    client: &Arc<Client>,
    shared: &Arc<Shared<H>>,
    out: mpsc::Sender<Outgoing>,
) {
    let mut lines = Lines::new(reader, shared.limits.message);
    let mut calls = Calls::new(shared, client, out.clone(), true);
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = shared.closing() => break,
        };
        match line {
            Ok(Line::Text(text)) if text.trim_ascii().is_empty() => {}
            Ok(Line::Text(text)) => {
                if let Err(Evicted) = calls.submit(text).await {
                    return;
                }
            }
            Ok(Line::TooLong) => {
                let error = message::refusal(RpcError::too_large(shared.limits.message));
                let _ = out.send(Outgoing::notice(error)).await;
                client.leave();
                break;
            }
            Ok(Line::End) => break,
            Err(error) => return log_end(Err(error)),
        }
    }
    drop(out);
    calls.finish().await;
}

async fn write_all(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Outgoing>,
    deadline: Duration,
) -> io::Result<()> {
    while let Some(mut outgoing) = queue.recv().await {
        outgoing.text.push('\n');
        let written = writer.write_all(outgoing.text.as_bytes());
        if outgoing.is_patient() {
            written.await?;
            continue;
        }
        timeout(deadline, written)
            .await
            .map_err(|_| io::Error::new(ErrorKind::TimedOut, "the client does not read its answers"))??;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// A line without its newline; the last one may have had none.
    Text(&'a [u8]),
    /// More bytes than the limit came without a newline.
    TooLong,
    End,
}

/// Cuts what is read into lines.
struct Lines<R> {
    source: R,
    limit: usize,
    buffer: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// Up to where no newline was found.
    scanned: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(source: R, limit: usize) -> Self {
        Lines { source, limit, buffer: Vec::new(), start: 0, scanned: 0 }
    }

    /// The next line. Dropping the future loses nothing.
    async fn next(&mut self) -> io::Result<Line<'_>> {
        loop {
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(newline) = fresh.iter().position(|byte| *byte == b'\n') {
                let end = self.scanned + newline;
                return Ok(self.take(end, end + 1));
            }
            self.scanned = self.buffer.len();
            if self.scanned - self.start > self.limit {
                return Ok(Line::TooLong);
            }
            self.make_room();
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Ok(if self.start == self.buffer.len() {
                    Line::End
                } else {
                    self.take(self.buffer.len(), self.buffer.len())
                });
            }
        }
    }

    fn take(&mut self, end: usize, next: usize) -> Line<'_> {
        let line = self.start..end;
        (self.start, self.scanned) = (next, next);
        match self.buffer.get(line) {
            Some(text) if text.len() <= self.limit => Line::Text(text),
            _ => Line::TooLong,
        }
    }

    fn make_room(&mut self) {
        if self.start == self.buffer.len() && self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..self.start);
        }
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.reserve(CHUNK);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn cut(bytes: &[u8], limit: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(bytes, limit);
        let mut found = Vec::new();
        loop {
            match lines.next().await.expect("memory can be read") {
                Line::Text(text) => found.push(Some(text.to_vec())),
                Line::TooLong => {
                    found.push(None);
                    return found;
                }
                Line::End => return found,
            }
        }
    }

    #[tokio::test]
    async fn lines_are_cut_at_newlines_and_at_the_end() {
        let some = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(cut(b"", 4).await, []);
        assert_eq!(cut(b"a\n\nbc", 4).await, [some("a"), some(""), some("bc")]);
        assert_eq!(cut(b"1234\n", 4).await, [some("1234")]);
        assert_eq!(cut(b"12345\n", 4).await, [None]);
        assert_eq!(cut(b"12345", 4).await, [None]);
    }

    #[tokio::test]
    async fn a_large_buffer_is_given_back() {
        let mut text = vec![b'x'; 1 << 20];
        text.push(b'\n');
        let mut lines = Lines::new(text.as_slice(), 1 << 20);
        assert!(matches!(lines.next().await, Ok(Line::Text(_))));
        assert_eq!(lines.next().await.expect("memory can be read"), Line::End);
        assert!(lines.buffer.capacity() <= KEEP);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_the_reads(lines in prop::collection::vec("[a-z]{0,20}", 0..50), chunk in 1_usize..64) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let found = runtime.block_on(async {
                let (mut near, far) = tokio::io::duplex(chunk);
                let write = async move { near.write_all(text.as_bytes()).await.expect("the reader lives") };
                let read = async {
                    let mut cutter = Lines::new(far, 32);
                    let mut found = Vec::new();
                    while let Ok(Line::Text(text)) = cutter.next().await {
                        found.push(String::from_utf8_lossy(text).into_owned());
                    }
                    found
                };
                tokio::join!(write, read).1
            });
            prop_assert_eq!(found, lines);
        }
    }
}
