//! The sockets of services as their verdicts change: the daemon's events tell when, `socket.check` gives the row.
//!
//! A verdict may have changed again by the time that its row is asked for (a relink takes a millisecond). The event is one
//! row all the same: then it, and not the row, says the verdict, why, who and since when, and what the row tells of the
//! listener's queue, which belongs to another moment, is left out.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use chrono::DateTime;
use nu_protocol::LabeledError;
use serde_json::{Value as Json, json};
use shimd_api::ClientError;
use shimd_api::event::{EventKind, EventRow};
use shimd_api::rpc::kind;
use shimd_api::wire::SocketRow;

use crate::daemon::{Daemon, Reach};
use crate::follow::Events;
use crate::look::bare_row;
use crate::stop::Stop;

/// The method that gives rows.
const CHECK: &str = "socket.check";

/// The rows of these services' sockets, then one for each change.
pub struct Watch {
    events: Events,
    reach: Reach,
    /// What `socket.check` is asked for.
    params: Json,
    /// The row that was given last, by service and path.
    known: HashMap<Key, SocketRow>,
    rows: VecDeque<SocketRow>,
    stop: Stop,
}

type Key = (Option<String>, String);

fn key(row: &SocketRow) -> Key {
    (row.service.clone(), row.path.clone())
}

impl Watch {
    /// `params` names the services, or none for all.
    ///
    /// # Errors
    /// What the daemon says, or why it could not be asked.
    pub fn open(daemon: Daemon, params: Json, stop: &Stop) -> Result<Watch, LabeledError> {
        let reach = daemon.reach();
        let mut wanted = params.clone();
        if let Some(wanted) = wanted.as_object_mut() {
            wanted.insert("kinds".into(), json!([EventKind::Verdict, EventKind::Culprit]));
        }
        // First the events, then the rows: what changes in between is in both, and nothing is in neither.
        let events = Events::follow(daemon, wanted, stop)?.past_at_most(0);
        let rows: Vec<SocketRow> = reach.understand(CHECK, reach.call(CHECK, &params, stop))?;
        let known = rows.iter().map(|row| (key(row), row.clone())).collect();
        Ok(Watch { events, reach, params, known, rows: rows.into(), stop: stop.clone() })
    }

    /// Makes rows of one event.
    fn take(&mut self, event: &EventRow) -> Result<(), LabeledError> {
        match event.kind {
            EventKind::Verdict | EventKind::Culprit => {
                let Some((key, verdict)) = subject(event) else { return Ok(()) };
                let known = self.known.get(&key);
                let is_news = match event.kind {
                    EventKind::Verdict => {
                        known.is_none_or(|row| row.verdict != verdict && !is_before(event, row))
                    }
                    _ => {
                        known.is_some_and(|row| row.verdict == verdict && row.culprit != event.detail.culprit)
                    }
                };
                if is_news {
                    let rows = self.ask(&json!({ "names": [key.0] }))?;
                    let found = rows.into_iter().find(|row| self::key(row) == key);
                    self.give(at(event, &key, verdict, found));
                }
            }
            // Events were lost: all may have changed.
            EventKind::Gap => {
                for row in self.ask(&self.params)? {
                    let known = self.known.get(&key(&row));
                    if known.is_none_or(|known| known.verdict != row.verdict || known.since != row.since) {
                        self.give(row);
                    }
                }
            }
            EventKind::State | EventKind::Control | EventKind::Relinked | EventKind::Listener => {}
        }
        Ok(())
    }

    fn give(&mut self, row: SocketRow) {
        self.known.insert(key(&row), row.clone());
        self.rows.push_back(row);
    }

    /// The rows, none for a service that is gone by now.
    fn ask(&self, params: &Json) -> Result<Vec<SocketRow>, LabeledError> {
        match self.reach.call(CHECK, params, &self.stop) {
            Err(ClientError::Rpc(problem)) if problem.kind() == kind::UNKNOWN_SERVICE => Ok(Vec::new()),
            answer => self.reach.understand(CHECK, answer),
        }
    }
}

impl Iterator for Watch {
    type Item = Result<SocketRow, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Some(Ok(row));
            }
            let took = self.events.next()?.and_then(|event| self.take(&event));
            match took {
                // What Ctrl-C cut short is no error.
                Err(_) if self.stop.is_set() => return None,
                Err(problem) => return Some(Err(problem)),
                Ok(()) => {}
            }
        }
    }
}

/// The socket that an event is about, and its verdict from then on.
fn subject(event: &EventRow) -> Option<(Key, &str)> {
    let service = event.service.clone()?;
    Some(((Some(service), event.detail.path.clone()?), event.detail.verdict.as_deref()?))
}

/// Whether the row tells of a later moment. Where that cannot be told, it does not.
fn is_before(event: &EventRow, row: &SocketRow) -> bool {
    let time = |text: &str| DateTime::parse_from_rfc3339(text).ok();
    let since = row.since.as_deref().and_then(time);
    time(&event.time).zip(since).is_some_and(|(event, since)| event < since)
}

/// The row of the moment of an event: what `socket.check` found after it, as far as that still is that moment.
fn at(event: &EventRow, key: &Key, verdict: &str, found: Option<SocketRow>) -> SocketRow {
    let detail = &event.detail;
    match found {
        Some(row) if row.verdict == verdict => {
            SocketRow { culprit: detail.culprit.clone().or(row.culprit), ..row }
        }
        found => {
            let bare = || SocketRow { service: key.0.clone(), ..bare_row(Path::new(&key.1)) };
            let row = found.unwrap_or_else(bare);
            SocketRow {
                socket: detail.socket.clone().unwrap_or(row.socket),
                verdict: verdict.into(),
                reason: detail.reason.clone(),
                pid: detail.pid,
                inode: None,
                pending: None,
                backlog: None,
                since: Some(event.time.clone()),
                culprit: detail.culprit.clone(),
                ..row
            }
        }
    }
}
