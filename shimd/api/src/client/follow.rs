//! A stream of the daemon's, read one notification at a time.
//!
//! | from the daemon | is |
//! | --- | --- |
//! | `event`, `log` with this stream's id | the next event, or lines |
//! | `end` with this stream's id | the end, in good order; with an `error`, that error |
//! | another notification | passed over: a newer daemon may tell more than this client knows |
//! | the end of the connection | [`ClientError::Closed`]: the daemon died, or dropped a client that did not read |

use std::time::Duration;

use nix::poll::PollFlags;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Client, ClientError, MAX_LINE, Message, TICK, text_of};
use crate::rpc::RpcError;

/// A connection that has become a stream. Dropped, it hangs up, and the daemon stops.
#[derive(Debug)]
pub struct Follow {
    client: Client,
    /// The request that streams.
    id: u64,
    method: String,
    /// How much of what is unread holds no newline.
    seen: usize,
    /// How it ended.
    ended: Option<End>,
}

impl Client {
    /// Calls a method that streams: its result, which holds what happened before, and what is to come.
    ///
    /// `deadline` and `cancelled` are as in [`Client::call`], and hold until the result has come.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn follow(
        mut self,
        method: &str,
        params: Value,
        deadline: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Value, Follow), ClientError> {
        let id = self.next_id;
        let result = self.call(method, params, deadline, &mut |_| {}, cancelled)?;
        Ok((result, Follow { client: self, id, method: method.into(), seen: 0, ended: None }))
    }
}

impl Follow {
    /// Waits for the next event, however long it takes; `None` once the daemon has ended the stream in good order.
    ///
    /// `cancelled` is asked at least every 20 ms. After [`ClientError::Cancelled`] the stream goes on: nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the daemon went without a word, [`ClientError::Protocol`], [`ClientError::Io`],
    /// [`ClientError::Cancelled`]; [`ClientError::Rpc`] where the stream ended in an error.
    pub fn next(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Option<Value>, ClientError> {
        let Some(params) = self.next_as::<Value>(cancelled)? else { return Ok(None) };
        let mut event = params.map_err(|e| self.client.protocol(e.to_string()))?;
        if let Some(event) = event.as_object_mut() {
            event.remove("stream");
        }
        Ok(Some(event))
    }

    /// The same, with the notification's params as a type that passes over their `stream`; or why they are none of it.
    ///
    /// # Errors
    /// As [`Follow::next`].
    pub fn next_as<T: DeserializeOwned>(
        &mut self,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<serde_json::Result<T>>, ClientError> {
        while self.ended.is_none() {
            // What has come is given first: also what a daemon that is gone has sent.
            if let Some(line) = self.client.line(&mut self.seen) {
                match self.understand(&line)? {
                    Some(Told::Event(params)) => return Ok(Some(serde_json::from_str(params.get()))),
                    Some(Told::End(mut end)) => {
                        let error = end.error.take();
                        self.ended = Some(end);
                        if let Some(error) = error {
                            return Err(error.into());
                        }
                    }
                    None => {}
                }
                continue;
            }
            if self.client.unread.len() > MAX_LINE {
                return Err(self.client.protocol(format!("a line of more than {MAX_LINE} bytes")));
            }
            if cancelled() {
                return Err(ClientError::Cancelled);
            }
            let ready = self.client.wait(PollFlags::POLLIN, TICK)?;
            if !ready.is_empty() {
                self.client.receive(&format!("in the midst of {}", self.method))?;
            }
        }
        Ok(None)
    }

    /// Whether all that was asked for has come. A stream that ended otherwise ended with its daemon.
    pub fn is_complete(&self) -> bool {
        self.ended.as_ref().is_some_and(|end| end.complete)
    }

    /// What a line means to this stream; `None` for what is not for it.
    fn understand(&self, line: &[u8]) -> Result<Option<Told>, ClientError> {
        let Message { method: Some(method), params, .. } = self.client.message(line)? else {
            return Err(self.client.protocol("an answer that was not asked for".into()));
        };
        let end: End = serde_json::from_str(text_of(&params)).unwrap_or_default();
        Ok(match (method.as_str(), params) {
            _ if end.stream != self.id => None,
            ("event" | "log", Some(params)) => Some(Told::Event(params)),
            ("end", _) => Some(Told::End(end)),
            _ => None,
        })
    }
}

enum Told {
    Event(Box<RawValue>),
    End(End),
}

/// What the params of every notification of a stream may hold.
#[derive(Debug, Default, Deserialize)]
struct End {
    stream: Value,
    #[serde(default)]
    complete: bool,
    error: Option<RpcError>,
}
