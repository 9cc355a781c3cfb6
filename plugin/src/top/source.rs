//! The daemon, asked from a thread of its own, so that a key is answered at once however long an answer takes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use nu_protocol::LabeledError;
use serde_json::{Value as Json, json};
use shimd_api::ClientError;
use shimd_api::event::EventRow;
use shimd_api::wire::{ActionRow, RestartRow};

use super::model::{Act, Look, SPAN};
use crate::daemon::Reach;
use crate::stop::Stop;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(500);

/// What the thread has to tell.
pub enum News {
    /// What happened before the first look.
    Past(Vec<EventRow>),
    /// How it is now.
    Look(Box<Look>),
    /// What came of a command.
    Done(String),
    /// Why there is no look.
    Trouble(String),
}

/// The thread. Once this is dropped it ends by itself, within the time of one request: whoever leaves does not wait for it.
pub struct Source {
    /// What it has to tell.
    pub news: Receiver<News>,
    acts: Sender<Act>,
    stop: Stop,
}

impl Source {
    /// Begins to look.
    pub fn start(reach: Reach, stop: &Stop) -> Source {
        let (told, news) = channel();
        let (acts, asked) = channel();
        let source = Source { news, acts, stop: stop.clone() };
        let stop = stop.clone();
        thread::spawn(move || ask(&reach, &stop, &told, &asked));
        source
    }

    /// Has a command carried out.
    pub fn act(&self, act: Act) {
        // A thread that has ended was told to.
        let _ = self.acts.send(act);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.set();
    }
}

fn ask(reach: &Reach, stop: &Stop, told: &Sender<News>, asked: &Receiver<Act>) {
    let since = json!({ "kinds": ["verdict", "state"], "since": SPAN });
    if let Ok(past) = answer(reach, stop, "event.list", &since) {
        let _ = told.send(News::Past(past));
    }
    while !stop.is_set() {
        let news = match look(reach, stop) {
            Ok(look) => News::Look(Box::new(look)),
            Err(problem) => News::Trouble(problem.msg.clone()),
        };
        if told.send(news).is_err() {
            return;
        }
        match asked.recv_timeout(PERIOD) {
            Ok(act) => {
                if let Some(done) = command(reach, stop, &act) {
                    let _ = told.send(News::Done(done));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn answer<T: serde::de::DeserializeOwned>(
    reach: &Reach,
    stop: &Stop,
    method: &str,
    params: &Json,
) -> Result<T, LabeledError> {
    reach.understand(method, reach.call(method, params, stop))
}

fn look(reach: &Reach, stop: &Stop) -> Result<Look, LabeledError> {
    let none = json!({});
    let info = answer(reach, stop, "shim.info", &none)?;
    let services = answer(reach, stop, "service.list", &none)?;
    let sockets = answer(reach, stop, "socket.check", &none)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Look { now: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX), info, services, sockets })
}

/// Carries it out; gives what came of it, in words.
fn command(reach: &Reach, stop: &Stop, act: &Act) -> Option<String> {
    let (method, params) = match act {
        Act::Quit | Act::Look => return None,
        Act::Restart(name) => ("service.restart", json!({ "name": name, "clean": true })),
        Act::Start(name) => ("service.start", json!({ "name": name })),
        Act::Stop(name) => ("service.stop", json!({ "name": name })),
    };
    let said = match (act, reach.call(method, &params, stop)) {
        (_, Err(ClientError::Cancelled)) => return None,
        (_, Err(problem)) => problem.to_string(),
        (Act::Restart(_), answer) => match reach.understand::<Vec<RestartRow>>(method, answer) {
            Ok(rows) => rows.first().map(|row| with_reason(&row.outcome, row.health_reason.as_ref()))?,
            Err(problem) => problem.msg.clone(),
        },
        (_, answer) => match reach.understand::<Vec<ActionRow>>(method, answer) {
            Ok(rows) => {
                rows.first().map(|row| with_reason(&row.status.to_string(), row.health_reason.as_ref()))?
            }
            Err(problem) => problem.msg.clone(),
        },
    };
    Some(format!("{}: {said}", act.words()))
}

fn with_reason(outcome: &str, reason: Option<&String>) -> String {
    reason.map_or_else(|| outcome.to_owned(), |reason| format!("{outcome}: {reason}"))
}
