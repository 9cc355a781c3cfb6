//! Streams: a request that is answered at once and then goes on telling, until its client leaves or the daemon ends.
//!
//! | message | when |
//! | --- | --- |
//! | the answer: `result` holds what happened before | first |
//! | `{"method": "event", "params": {..., "stream": ID}}` | for each event |
//! | `{"method": "log", "params": {"lines": ..., "stream": ID}}` | for each batch of lines that a service wrote |
//! | `{"method": "end", "params": {"stream": ID}}` | the daemon has ended the stream: nothing more comes of it |
//!
//! An `end` holds `"complete": true` where all that was asked for has been told, or `error`, why it cannot be.
//!
//! `ID` is the request's, byte for byte. A stream without an `end` was cut off: its daemon died.
//!
//! Whose client does not read lines of a log waits, for ever if need be: they are kept in files. Whose client does not
//! read events is dropped after [`Limits::write`](super::Limits::write): the events fill the connection's queue, then the handler's channel, which says
//! in a `gap` what it had to drop. Dropping the receiver tells the handler that nobody follows any more. That
//! happens at once when the client hangs up (see `lines`), loses its connection, or the server stops.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use shimd_api::event::EventRow;
use shimd_api::rpc::{RpcError, code};
use shimd_api::wire::LogLines;
use tokio::sync::{Semaphore, mpsc};

use super::clients::{Client, Work};
use super::dispatch::{Outgoing, caught};
use super::message::{Id, notification};
use super::{Handler, News, Shared, methods};

/// The params of an `event` notification.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(flatten)]
    row: &'a EventRow,
    stream: &'a Id,
}

/// The params of a `log` notification.
#[derive(Serialize)]
struct Log<'a> {
    lines: LogLines,
    stream: &'a Id,
}

/// The params of an `end` notification.
#[derive(Serialize)]
struct End<'a> {
    stream: &'a Id,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RpcError>,
}

/// How many batches of lines wait to be written.
const ROOM: usize = 4;

/// A stream that has begun.
pub(super) struct Stream {
    news: mpsc::Receiver<News>,
    /// Keeps the client's seat.
    work: Work,
}

/// Begins a stream: its answer, and what is to come.
pub(super) async fn begin<H: Handler>(
    shared: &Shared<H>,
    name: &str,
    params: &RawValue,
    mut work: Work,
) -> Result<(Box<RawValue>, Stream), RpcError> {
    methods::find(name)?.check(params)?;
    if !work.becomes_stream() {
        let limit = shared.limits.streams;
        let problem = format!("{limit} streams on one connection are the most");
        return Err(RpcError::busy(problem, "open another connection, or follow all services in one stream"));
    }
    let (past, news) = caught(name, shared.handler.follow(name, params)).await?;
    Ok((past, Stream { news, work }))
}

impl Stream {
    /// Sends what comes, until there is nothing more, the server stops, the connection is to end, or nobody takes it.
    pub(super) async fn pump<H: Handler>(
        mut self,
        shared: &Shared<H>,
        id: &Id,
        out: &mpsc::Sender<Outgoing>,
    ) {
        let mut closing = false;
        let mut end = End { stream: id, complete: false, error: None };
        let room = Arc::new(Semaphore::new(ROOM));
        loop {
            tokio::select! {
                news = self.news.recv() => {
                    let message = match news {
                        Some(News::Event(row)) => {
                            Outgoing::notice(notification("event", Event { row: &row, stream: id }))
                        }
                        Some(News::Log(lines)) => {
                            let text = notification("log", Log { lines, stream: id });
                            // It is not closed.
                            let Ok(room) = room.clone().acquire_owned().await else { return };
                            Outgoing::of_stream(text, room)
                        }
                        Some(News::Complete) => {
                            end.complete = true;
                            break;
                        }
                        Some(News::Failed(error)) => {
                            end.error = Some(error);
                            break;
                        }
                        None => break,
                    };
                    if out.send(message).await.is_err() {
                        return;
                    }
                }
                () = ending(shared, self.work.client()), if !closing => {
                    closing = true;
                    // What has come already is still sent.
                    self.news.close();
                }
            }
        }
        let _ = out.send(Outgoing::notice(notification("end", end))).await;
    }
}

/// Resolves once the server stops or the connection is to end.
async fn ending<H: Handler>(shared: &Shared<H>, client: &Client) {
    tokio::select! {
        () = shared.closing() => {}
        () = client.leaving() => {}
    }
}

/// Why a stream cannot be had: in a batch, as a notification, or over HTTP.
pub(super) fn out_of_place(method: &str) -> RpcError {
    let problem =
        format!("{method} is answered by a stream, which a batch, a notification and HTTP cannot carry");
    let help = "send it as a request of its own in a line (not over HTTP), with an id";
    RpcError { code: code::INVALID_REQUEST, ..RpcError::failed(problem, help) }
}
