//! The history as it happens: each event is told to those who follow, then handed to the store.
//!
//! A follower's queue is bounded. What does not fit is left out, and said by a `gap` before the next event that fits:
//! the store still has it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;
use shimd_api::event::{EventDetail, EventKind, EventRow};
use shimd_api::rpc::RpcError;
use shimd_api::wire::{Culprit, Status};
use tokio::sync::{mpsc, oneshot};

use super::clock::{nanos, rfc3339};
use super::commands::{self, Reply, answer};
use super::socket::{Socket, Spell};
use super::{Supervisor, service::Service};
use crate::core::machine::Phase;
use crate::server::News;
use crate::store::{EventQuery, EventRecord, Write};

/// How many events wait for a follower that does not read.
const WAITING: usize = 1024;
/// How many past events an answer holds at most, where the caller does not say.
const LIMIT: usize = 10_000;

/// What a method that streams is answered with: the past, say, and the stream.
pub type Following = Result<(Box<RawValue>, mpsc::Receiver<News>), RpcError>;

/// Who follows, and the number of the next event.
#[derive(Default)]
pub struct Events {
    last: u64,
    followers: Vec<Follower>,
}

struct Follower {
    services: Vec<String>,
    kinds: Vec<EventKind>,
    out: mpsc::Sender<News>,
    missed: u64,
}

/// The params of `event.list` and `event.follow`.
#[derive(Deserialize)]
struct Asked {
    name: Option<String>,
    names: Option<Vec<String>>,
    since: Option<u64>,
    after: Option<u64>,
    kinds: Option<Vec<EventKind>>,
    limit: Option<usize>,
}

impl Events {
    /// Goes on after the store's last event.
    pub fn after(last: u64) -> Events {
        Events { last, followers: Vec::new() }
    }

    fn tell(&mut self, row: &EventRow) {
        self.followers.retain_mut(|follower| follower.tell(row));
    }
}

impl Follower {
    /// False once nobody reads any more.
    fn tell(&mut self, row: &EventRow) -> bool {
        if self.out.is_closed() {
            return false;
        }
        let wanted = (self.kinds.is_empty() || self.kinds.contains(&row.kind))
            && (self.services.is_empty()
                || row.service.as_ref().is_some_and(|service| self.services.contains(service)));
        if !wanted {
            return true;
        }
        if self.missed > 0 && self.out.capacity() > 1 {
            let reason =
                format!("{} events were not read in time; proc events --since has them", self.missed);
            let detail = EventDetail { reason: Some(reason), ..EventDetail::default() };
            let gap = EventRow { id: 0, time: row.time.clone(), service: None, kind: EventKind::Gap, detail };
            let _ = self.out.try_send(gap.into());
            self.missed = 0;
        }
        if self.missed > 0 || self.out.try_send(row.clone().into()).is_err() {
            self.missed += 1;
        }
        true
    }
}

impl Supervisor {
    /// Tells and keeps an event; gives its number.
    pub(super) fn record(&mut self, service: Option<&Arc<str>>, kind: EventKind, detail: EventDetail) -> u64 {
        self.record_at(SystemTime::now(), service, kind, detail)
    }

    fn record_at(
        &mut self,
        time: SystemTime,
        service: Option<&Arc<str>>,
        kind: EventKind,
        detail: EventDetail,
    ) -> u64 {
        self.events.last += 1;
        let id = self.events.last;
        let service = service.map(ToString::to_string);
        if !self.events.followers.is_empty() {
            let row =
                EventRow { id, time: rfc3339(time), service: service.clone(), kind, detail: detail.clone() };
            self.events.tell(&row);
        }
        let time = nanos(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        // Nobody waits for it; what the disk does not take is counted by the store.
        self.store.note(Write::Event(Box::new(EventRecord { id, time, service, kind, detail })));
        id
    }

    /// The verdict of a service's socket is another than the history's last.
    pub(super) fn record_verdict(&mut self, name: &Arc<str>, index: usize) {
        let Some(socket) = self.services.get(name).and_then(|s| s.sockets.get(index)) else { return };
        let now = SystemTime::now();
        let detail = verdict_detail(socket, now);
        let verdict = detail.verdict.clone().unwrap_or_default();
        let event = self.record_at(now, Some(name), EventKind::Verdict, detail);
        if let Some(socket) = self.services.get_mut(name).and_then(|s| s.sockets.get_mut(index)) {
            let why = socket.why().unwrap_or_default();
            tracing::info!(service = %name, socket = %socket.name, verdict, "{why}");
            socket.spell = Some(Spell { verdict, since: now, event });
        }
    }

    /// Sockets that are no longer declared have no verdict from now on: what the history said of them last has ended.
    pub(super) fn record_undeclared(&mut self, name: &Arc<str>, before: &[Socket]) {
        let now = SystemTime::now();
        let declared = |path: &std::path::Path| {
            self.services.get(name).is_some_and(|s| s.sockets.iter().any(|now| now.path == path))
        };
        let gone: Vec<EventDetail> = before
            .iter()
            .filter(|socket| socket.spell.is_some() && !declared(&socket.path))
            .map(|socket| EventDetail {
                reason: Some("no longer declared".into()),
                ..spell_detail(socket, now)
            })
            .collect();
        for detail in gone {
            self.record_at(now, Some(name), EventKind::Verdict, detail);
        }
    }

    /// Who did it became known after the verdict was told.
    pub(super) fn record_culprit(&mut self, name: &Arc<str>, index: usize, culprit: Culprit) {
        let Some(socket) = self.services.get_mut(name).and_then(|s| s.sockets.get_mut(index)) else { return };
        socket.culprit = Some(culprit.clone());
        let event = socket.spell.as_ref().map_or(0, |spell| spell.event);
        let detail = EventDetail {
            socket: Some(socket.name.clone()),
            path: Some(socket.path.display().to_string()),
            verdict: socket.verdict.map(|verdict| verdict.as_str().to_owned()),
            reason: socket.why(),
            culprit: Some(culprit.clone()),
            ..EventDetail::default()
        };
        self.store.note(Write::EventCulprit { id: event, culprit });
        self.record(Some(name), EventKind::Culprit, detail);
    }

    /// Tells the state that users see, where it is another than the history says last. `resumed`: what this daemon found
    /// under way when it was started, and carries on: told in any case.
    pub(super) fn record_state(&mut self, name: &Arc<str>, resumed: Option<&str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let status = service.machine.status();
        // An instance that was found alive is what it was until it has been looked at.
        let unseen = match service.machine.phase {
            Phase::Loaded => true,
            Phase::Verifying | Phase::Publishing { .. } => service.times.spawned.is_none(),
            _ => false,
        };
        if resumed.is_none() && (status == service.told || unseen) {
            return;
        }
        let was = std::mem::replace(&mut service.told, status);
        let now = SystemTime::now();
        let since = std::mem::replace(&mut service.status_since, now);
        let mut detail =
            state_detail(service, was, now.duration_since(since).unwrap_or_default(), &self.root);
        detail.reason = detail.reason.or_else(|| resumed.map(str::to_owned));
        self.record_at(now, Some(name), EventKind::State, detail);
    }

    /// `event.list`
    pub(super) fn list_events(&mut self, params: &RawValue, reply: Reply) {
        let query = match self.event_query(params) {
            Ok(query) => query,
            Err(e) => return answer(reply, Err(e)),
        };
        let known = self.known(&query);
        let rows = self.store.events(query);
        self.clients.spawn(async move {
            let rows = match known.await {
                Ok(()) => rows.await.map_err(|e| RpcError::internal(e.to_string())),
                Err(unknown) => Err(unknown),
            };
            answer(reply, rows.and_then(commands::value));
        });
    }

    /// `event.follow`
    pub(super) fn follow_events(&mut self, params: &RawValue, reply: oneshot::Sender<Following>) {
        let query = match self.event_query(params) {
            Ok(query) => query,
            Err(e) => {
                let _ = reply.send(Err(e));
                return;
            }
        };
        let known = self.known(&query);
        let (out, stream) = mpsc::channel(WAITING);
        let (services, kinds) = (query.services.clone(), query.kinds.clone());
        self.events.followers.push(Follower { services, kinds, out, missed: 0 });
        // From here on the stream has every event; the past ends with the last before.
        let last = self.events.last;
        let past = (query.since.is_some() || query.after.is_some()).then(|| self.store.events(query));
        self.clients.spawn(async move {
            let rows = match (known.await, past) {
                (Err(unknown), _) => Err(unknown),
                (Ok(()), Some(rows)) => rows.await.map_err(|e| RpcError::internal(e.to_string())),
                (Ok(()), None) => Ok(Vec::new()),
            };
            let rows = rows.and_then(|mut rows| {
                rows.retain(|row| row.id <= last);
                commands::value(rows)
            });
            let _ = reply.send(rows.map(|rows| (rows, stream)));
        });
    }

    /// Whether each of these is or was a service: the history outlives them, so a name that is no longer registered is asked
    /// for in good faith, but one that nothing ever happened to is a slip.
    fn known(&self, query: &EventQuery) -> impl Future<Output = Result<(), RpcError>> + use<> {
        let gone = query.services.iter().filter(|name| !self.services.contains_key(name.as_str()));
        let asked: Vec<_> = gone
            .map(|name| {
                let services = vec![name.clone()];
                let any = EventQuery { services, since: None, after: None, kinds: Vec::new(), limit: 1 };
                (self.unknown(name), self.store.events(any))
            })
            .collect();
        async move {
            for (unknown, events) in asked {
                // A store that cannot be read says so by itself.
                if events.await.is_ok_and(|events| events.is_empty()) {
                    return Err(unknown);
                }
            }
            Ok(())
        }
    }

    fn event_query(&self, params: &RawValue) -> Result<EventQuery, RpcError> {
        let asked: Asked = commands::parse(params)?;
        let services: Vec<String> = asked.name.into_iter().chain(asked.names.into_iter().flatten()).collect();
        let since = asked.since.map(|back| {
            let then = SystemTime::now().checked_sub(Duration::from_nanos(back));
            then.and_then(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, nanos)
        });
        let kinds = asked.kinds.unwrap_or_default();
        Ok(EventQuery { services, since, after: asked.after, kinds, limit: asked.limit.unwrap_or(LIMIT) })
    }
}

fn verdict_detail(socket: &Socket, now: SystemTime) -> EventDetail {
    EventDetail {
        verdict: socket.verdict.map(|verdict| verdict.as_str().to_owned()),
        reason: socket.why(),
        pid: socket.pid,
        culprit: socket.culprit.clone(),
        ..spell_detail(socket, now)
    }
}

/// Which socket it is, and what the history says of it so far.
fn spell_detail(socket: &Socket, now: SystemTime) -> EventDetail {
    let lasted = |spell: &Spell| nanos(now.duration_since(spell.since).unwrap_or_default());
    EventDetail {
        socket: Some(socket.name.clone()),
        path: Some(socket.path.display().to_string()),
        was: socket.spell.as_ref().map(|spell| spell.verdict.clone()),
        lasted: socket.spell.as_ref().map(lasted),
        ..EventDetail::default()
    }
}

fn state_detail(service: &Service, was: Status, lasted: Duration, root: &std::path::Path) -> EventDetail {
    EventDetail {
        status: Some(service.machine.status().to_string()),
        was: Some(was.to_string()),
        lasted: Some(nanos(lasted)),
        reason: service.health_reason(root),
        pid: service.pid(),
        ..EventDetail::default()
    }
}
