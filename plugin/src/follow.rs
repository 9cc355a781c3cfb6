//! The daemon's events as they happen.

use std::vec;

use nu_protocol::LabeledError;
use serde_json::Value as Json;
use shimd_api::event::EventRow;
use shimd_api::{ClientError, Follow};

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::stop::Stop;

/// The method that streams them.
const METHOD: &str = "event.follow";

/// Past events, then those to come.
pub struct Events {
    past: vec::IntoIter<EventRow>,
    follow: Follow,
    stop: Stop,
    blame: Blame,
}

impl Events {
    /// Asks for them.
    ///
    /// # Errors
    /// What the daemon says, or why it could not be asked.
    pub fn follow(daemon: Daemon, params: Json, stop: &Stop) -> Result<Events, LabeledError> {
        let blame = daemon.blame().clone();
        let (past, follow): (Vec<EventRow>, Follow) = daemon.follow(METHOD, params)?;
        Ok(Events { past: past.into_iter(), follow, stop: stop.clone(), blame })
    }

    /// The same with so many of the past, the latest.
    pub fn past_at_most(mut self, limit: usize) -> Events {
        let surplus = self.past.len().saturating_sub(limit);
        self.past.by_ref().take(surplus).for_each(drop);
        self
    }
}

impl Iterator for Events {
    type Item = Result<EventRow, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.past.next() {
            return Some(Ok(row));
        }
        let stop = &self.stop;
        match self.follow.next(&|| stop.is_set()) {
            Ok(Some(event)) => Some(
                serde_json::from_value(event)
                    .map_err(|problem| error::odd_answer(METHOD, &problem, self.blame.head)),
            ),
            Err(ClientError::Cancelled) => None,
            Ok(None) | Err(ClientError::Closed { .. }) => Some(Err(error::daemon_ended(self.blame.head))),
            Err(problem) => Some(Err(error::request(problem, &self.blame))),
        }
    }
}
