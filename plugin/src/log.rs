//! A service's log as the daemon sends it, a batch at a time.

use std::vec;

use nu_protocol::LabeledError;
use serde_json::Value as Json;
use shimd_api::wire::{LogLines, LogNews, LogRow};
use shimd_api::{ClientError, Follow};

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::stop::Stop;

/// The method that streams it.
const METHOD: &str = "log.stream";

/// The batches of a log.
pub struct Log {
    follow: Follow,
    stop: Stop,
    blame: Blame,
}

impl Log {
    /// Asks for it.
    ///
    /// # Errors
    /// What the daemon says, or why it could not be asked.
    pub fn open(daemon: Daemon, params: Json, stop: &Stop) -> Result<Log, LabeledError> {
        let blame = daemon.blame().clone();
        let (_, follow): (Json, Follow) = daemon.follow(METHOD, params)?;
        Ok(Log { follow, stop: stop.clone(), blame })
    }

    /// Its lines, which were asked for as rows.
    pub fn rows(self) -> Rows {
        Rows { log: self, batch: Vec::new().into_iter() }
    }

    /// Its bytes, which were asked for raw.
    pub fn bytes(self) -> impl Iterator<Item = Result<Vec<u8>, LabeledError>> + Send {
        let mut log = self;
        std::iter::from_fn(move || {
            let lines = log.next()?;
            Some(lines.and_then(|lines| match lines {
                LogLines::Text(text) => Ok(text.into_bytes()),
                LogLines::Bytes(bytes) => Ok(bytes),
                LogLines::Rows(_) => Err(log.odd("rows where bytes were asked for")),
            }))
        })
    }

    fn odd(&self, problem: &str) -> LabeledError {
        let problem = <serde_json::Error as serde::de::Error>::custom(problem);
        error::odd_answer(METHOD, &problem, self.blame.head)
    }
}

impl Iterator for Log {
    type Item = Result<LogLines, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        let stop = &self.stop;
        let head = self.blame.head;
        match self.follow.next_as::<LogNews>(&|| stop.is_set()) {
            Ok(Some(Ok(news))) => Some(Ok(news.lines)),
            Ok(Some(Err(problem))) => Some(Err(error::odd_answer(METHOD, &problem, head))),
            Err(ClientError::Cancelled) => None,
            Ok(None) if self.follow.is_complete() => None,
            Ok(None) | Err(ClientError::Closed { .. }) => Some(Err(error::log_ended(head))),
            Err(problem) => Some(Err(error::request(problem, &self.blame))),
        }
    }
}

/// The lines of a log.
pub struct Rows {
    log: Log,
    batch: vec::IntoIter<LogRow>,
}

impl Iterator for Rows {
    type Item = Result<LogRow, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.batch.next() {
                return Some(Ok(row));
            }
            match self.log.next()? {
                Ok(LogLines::Rows(rows)) => self.batch = rows.into_iter(),
                Ok(_) => return Some(Err(self.log.odd("bytes where rows were asked for"))),
                Err(problem) => return Some(Err(problem)),
            }
        }
    }
}
