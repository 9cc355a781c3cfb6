//! A stream of the daemon's, read one event at a time.
//!
//! | from the daemon | is |
//! | --- | --- |
//! | `event` with this stream's id | the next event |
//! | `end` with this stream's id | the end, in good order |
//! | another notification | passed over: a newer daemon may tell more than this client knows |
//! | the end of the connection | [`ClientError::Closed`]: the daemon died, or dropped a client that did not read |

use std::time::Duration;

use nix::poll::PollFlags;
use serde_json::Value;

use super::{Client, ClientError, MAX_LINE, Message, TICK};

/// A connection that has become a stream. Dropped, it hangs up, and the daemon stops.
#[derive(Debug)]
pub struct Follow {
    client: Client,
    /// The request that streams.
    id: u64,
    method: String,
    /// How much of what is unread holds no newline.
    seen: usize,
    ended: bool,
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
        Ok((result, Follow { client: self, id, method: method.into(), seen: 0, ended: false }))
    }
}

impl Follow {
    /// Waits for the next event, however long it takes; `None` once the daemon has ended the stream in good order.
    ///
    /// `cancelled` is asked at least every 20 ms. After [`ClientError::Cancelled`] the stream goes on: nothing is lost.
    ///
    /// # Errors
    /// [`ClientError::Closed`] if the daemon went without a word, [`ClientError::Protocol`], [`ClientError::Io`],
    /// [`ClientError::Cancelled`].
    pub fn next(&mut self, cancelled: &dyn Fn() -> bool) -> Result<Option<Value>, ClientError> {
        while !self.ended {
            // What has come is given first: also what a daemon that is gone has sent.
            if let Some(line) = self.client.line(&mut self.seen) {
                match self.understand(&line)? {
                    Some(Told::Event(params)) => return Ok(Some(params)),
                    Some(Told::End) => self.ended = true,
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

    /// What a line means to this stream; `None` for what is not for it.
    fn understand(&self, line: &[u8]) -> Result<Option<Told>, ClientError> {
        let Message { method: Some(method), mut params, .. } = self.client.message(line)? else {
            return Err(self.client.protocol("an answer that was not asked for".into()));
        };
        if params.get("stream") != Some(&Value::from(self.id)) {
            return Ok(None);
        }
        Ok(match method.as_str() {
            "event" => {
                if let Some(event) = params.as_object_mut() {
                    event.remove("stream");
                }
                Some(Told::Event(params))
            }
            "end" => Some(Told::End),
            _ => None,
        })
    }
}

enum Told {
    Event(Value),
    End,
}
