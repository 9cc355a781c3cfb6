//! Streams: a request that is answered at once and then goes on telling, until its client leaves or the daemon ends.
//!
//! | message | when |
//! | --- | --- |
//! | the answer: `result` holds what happened before | first |
//! | `{"method": "event", "params": {..., "stream": ID}}` | for each event |
//! | `{"method": "end", "params": {"stream": ID}}` | the daemon has ended the stream: nothing more comes of it |
//!
//! `ID` is the request's, byte for byte. A stream without an `end` was cut off: its daemon died.
//!
//! Whose client does not read waits: the events fill the connection's queue, then the handler's channel, which says
//! in a `gap` what it had to drop. Dropping the receiver tells the handler that nobody follows any more. That
//! happens at once when the client hangs up (see `lines`), loses its connection, or the server stops.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use shimd_api::event::EventRow;
use shimd_api::rpc::{RpcError, code};
use tokio::sync::mpsc;

use super::clients::{Client, Work};
use super::dispatch::{Outgoing, caught};
use super::message::{Id, notification};
use super::{Handler, Shared, methods};

/// The params of an `event` notification.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(flatten)]
    row: &'a EventRow,
    stream: &'a Id,
}

/// The params of an `end` notification.
#[derive(Serialize)]
struct End<'a> {
    stream: &'a Id,
}

/// A stream that has begun.
pub(super) struct Stream {
    events: mpsc::Receiver<EventRow>,
    /// Keeps the client's seat.
    work: Work,
}

/// Begins a stream: its answer, and what is to come.
pub(super) async fn begin<H: Handler>(
    shared: &Shared<H>,
    name: &str,
    params: &RawValue,
    mut work: Work,
) -> Result<(Value, Stream), RpcError> {
    methods::find(name)?.check(params)?;
    if !work.becomes_stream() {
        let limit = shared.limits.streams;
        let problem = format!("{limit} streams on one connection are the most");
        return Err(RpcError::busy(problem, "open another connection, or follow all services in one stream"));
    }
    let (past, events) = caught(name, shared.handler.follow(name, params)).await?;
    Ok((past, Stream { events, work }))
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
        loop {
            tokio::select! {
                event = self.events.recv() => {
                    let Some(row) = event else { break };
                    let text = notification("event", Event { row: &row, stream: id });
                    if out.send(Outgoing::notice(text)).await.is_err() {
                        return;
                    }
                }
                () = ending(shared, self.work.client()), if !closing => {
                    closing = true;
                    // What has come already is still sent.
                    self.events.close();
                }
            }
        }
        let end = notification("end", End { stream: id });
        let _ = out.send(Outgoing::notice(end)).await;
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
