//! Commands that wait for their outcome: start, stop, restart, delete.
//!
//! A waiter is answered when every service that it names has settled, or when its time is up: then the
//! rows say how far things are. The client may go meanwhile; the work goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::{RawValue, to_raw_value};
use shimd_api::rpc::RpcError;
use shimd_api::wire::{ActionRow, ChangeRow, Progress, ProgressRow, RestartRow, Status};
use tokio::sync::{mpsc, oneshot};

use super::clock::nanos;
use super::commands::answer;
use super::service::{CleanReport, Service};
use super::{KILL_AGAIN, Supervisor};
use crate::core::machine::{Phase, Want};
use crate::store::Write;

/// Which command waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `service.start`
    Start,
    /// `service.stop`
    Stop,
    /// `service.restart`
    Restart {
        /// `--clean`
        clean: bool,
        /// `--gapless`
        gapless: bool,
    },
    /// `service.delete`
    Delete,
}

/// A command under way.
pub struct Waiter {
    kind: Kind,
    began: Instant,
    deadline: Instant,
    /// The services that the answer shows, and those among them that have not settled.
    items: Vec<Item>,
    progress: Option<mpsc::Sender<Progress>>,
    next_progress: Instant,
    reply: Option<oneshot::Sender<Result<Box<RawValue>, RpcError>>>,
}

struct Item {
    name: Arc<str>,
    settled: Option<Instant>,
}

/// A service's turn in a restart: it may be long after the command.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// `None`: not yet.
    began: Option<Instant>,
    /// Its main process then.
    old_pid: Option<i32>,
    /// Why nothing was done.
    pub refused: Option<String>,
    /// That process serves on until another does.
    gapless: bool,
}

impl Turn {
    /// It is now.
    pub fn begun(old_pid: Option<i32>, gapless: bool) -> Turn {
        Turn { began: Some(Instant::now()), old_pid, refused: None, gapless }
    }
}

/// How often a client that asked for it hears how things stand.
const PROGRESS: Duration = Duration::from_secs(1);

impl Waiter {
    /// A command for `names` (with dependencies), whose answer shows `shown`.
    pub fn new(
        kind: Kind,
        names: &[Arc<str>],
        shown: &[Arc<str>],
        services: &BTreeMap<Arc<str>, Service>,
        progress: Option<mpsc::Sender<Progress>>,
        reply: oneshot::Sender<Result<Box<RawValue>, RpcError>>,
    ) -> Waiter {
        let began = Instant::now();
        // Nothing lasts longer than two whole attempts of each; a limit that is never met in good order.
        let one = |n: &Arc<str>| {
            services.get(n).map_or(Duration::ZERO, |s| {
                let spec = &s.spec;
                (spec.ready.timeout.saturating_add(spec.stop.timeout))
                    .saturating_mul(2)
                    .saturating_add(2 * KILL_AGAIN)
            })
        };
        let most: Duration = names.iter().map(one).fold(Duration::from_secs(10), Duration::saturating_add);
        let item = |n: &Arc<str>| Item { name: n.clone(), settled: None };
        Waiter {
            kind,
            began,
            deadline: began + most.min(Duration::from_secs(24 * 3600)),
            items: shown.iter().map(item).collect(),
            progress,
            next_progress: began + PROGRESS,
            reply: Some(reply),
        }
    }
}

impl Service {
    /// A command begins: what its rows will say starts from nothing.
    pub fn begin_command(&mut self, kind: Kind) {
        if !matches!(kind, Kind::Stop | Kind::Delete) {
            self.restarts = 0;
            self.fresh_start = true;
        }
        self.old_gone = None;
        self.cleaned = CleanReport::default();
    }
}

impl Supervisor {
    /// When the next waiter is to be looked at by the clock.
    pub(super) fn next_progress(&self) -> Option<Instant> {
        let at = |w: &Waiter| if w.progress.is_some() { w.deadline.min(w.next_progress) } else { w.deadline };
        self.waiters.iter().map(at).min()
    }

    /// Answers the waiters whose services have settled or whose time is up.
    pub(super) fn answer_waiters(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.retain_mut(|waiter| {
            for item in waiter.items.iter_mut().filter(|i| i.settled.is_none()) {
                let planned = waiter.kind != Kind::Start && self.rollout.holds(&item.name);
                let settled = !planned && self.services.get(&item.name).is_none_or(|s| s.machine.settled());
                item.settled = settled.then_some(now);
            }
            let all = waiter.items.iter().all(|i| i.settled.is_some());
            if !all && now < waiter.deadline {
                self.tell_progress(waiter, now);
                return true;
            }
            let rows = self.rows(waiter, now);
            if let Some(reply) = waiter.reply.take() {
                answer(reply, rows.map_err(|e| RpcError::internal(e.to_string())));
            }
            false
        });
        self.waiters.append(&mut waiters);
    }

    fn tell_progress(&self, waiter: &mut Waiter, now: Instant) {
        if now < waiter.next_progress {
            return;
        }
        waiter.next_progress = now + PROGRESS;
        if let Some(progress) = &waiter.progress {
            let row = |i: &Item| {
                let service = self.services.get(&i.name)?;
                let began = match waiter.kind {
                    Kind::Restart { .. } => service.turn.began.filter(|_| !self.rollout.queues(&i.name)),
                    _ => Some(waiter.began),
                };
                let until = i.settled.unwrap_or(now);
                Some(ProgressRow {
                    name: i.name.to_string(),
                    status: service.machine.status(),
                    settled: i.settled.is_some(),
                    took: began.map(|began| nanos(until.saturating_duration_since(began))),
                })
            };
            let services = waiter.items.iter().filter_map(row).collect();
            // A client that reads too slowly misses one; the next tells the same and more.
            let _ = progress.try_send(Progress { services, elapsed: nanos(now - waiter.began) });
        }
    }

    fn rows(&mut self, waiter: &Waiter, now: Instant) -> serde_json::Result<Box<RawValue>> {
        let until = |i: &Item| i.settled.unwrap_or(now);
        let took = |i: &Item| nanos(until(i) - waiter.began);
        match waiter.kind {
            Kind::Start | Kind::Stop => {
                let row = |i: &Item| {
                    let service = self.services.get(&i.name)?;
                    Some(ActionRow {
                        name: i.name.to_string(),
                        status: service.machine.status(),
                        health_reason: service.health_reason(&self.root),
                        pid: service.pid(),
                        took: took(i),
                    })
                };
                to_raw_value(&waiter.items.iter().filter_map(row).collect::<Vec<_>>())
            }
            Kind::Restart { .. } => {
                let rows: Vec<_> =
                    waiter.items.iter().map(|i| self.restart_row(waiter, i, until(i))).collect();
                to_raw_value(&rows)
            }
            Kind::Delete => {
                let rows: Vec<_> = waiter.items.iter().map(|i| self.delete(&i.name)).collect();
                to_raw_value(&rows)
            }
        }
    }

    fn restart_row(&self, waiter: &Waiter, item: &Item, until: Instant) -> RestartRow {
        let mut row = RestartRow {
            name: item.name.to_string(),
            outcome: "failed".to_owned(),
            health_reason: Some("it was unregistered before it was restarted".to_owned()),
            old_pid: None,
            new_pid: None,
            stopped_in: None,
            ready_in: None,
            took: nanos(until.saturating_duration_since(waiter.began)),
            cleaned: Vec::new(),
            killed: Vec::new(),
            sockets: Vec::new(),
        };
        let Some(service) = self.services.get(&item.name) else { return row };
        row.health_reason = service.health_reason(&self.root);
        row.new_pid = service.pid();
        row.sockets = service.socket_rows();
        let (turn, times) = (&service.turn, service.times);
        match turn.began.filter(|_| !self.rollout.queues(&item.name)) {
            Some(began) => {
                let since = |at: Option<Instant>, from: Instant| {
                    at.filter(|at| *at >= from).map(|at| nanos(at.saturating_duration_since(from)))
                };
                let serves_on = turn.gapless && row.new_pid == turn.old_pid;
                if serves_on && turn.refused.is_none() && service.machine.settled() {
                    row.health_reason = Some(service.gapless_failure());
                } else if service.machine.status() == Status::Running && !serves_on && turn.refused.is_none()
                {
                    row.outcome = "restarted".to_owned();
                }
                row.old_pid = turn.old_pid;
                row.stopped_in = turn.old_pid.and_then(|_| since(service.old_gone, began));
                row.ready_in =
                    times.spawned.filter(|at| *at >= began).and_then(|at| since(times.serving, at));
                row.took = nanos(until.saturating_duration_since(began));
                row.cleaned = service.cleaned.removed.clone();
                row.killed = service.cleaned.killed.clone();
            }
            None if row.health_reason.is_none() => {
                row.health_reason = Some("its turn has not come".to_owned());
            }
            None => {}
        }
        if let Some(why) = &turn.refused {
            row.health_reason = Some(why.clone());
        } else if service.machine.want == Want::Down {
            row.health_reason = Some("another command has stopped it meanwhile".to_owned());
        }
        row
    }

    /// Forgets a service that has stopped.
    fn delete(&mut self, name: &Arc<str>) -> ChangeRow {
        let stopped = self
            .services
            .get(name)
            .is_some_and(|s| matches!(s.machine.phase, Phase::Inactive) && s.machine.beside.is_none());
        if !stopped {
            return ChangeRow { name: name.to_string(), change: "unchanged".to_owned() };
        }
        let gone = self.services.remove(name);
        self.record_undeclared(name, gone.as_ref().map_or(&[], |service| &service.sockets));
        self.rollout.remove(name);
        self.clock.forget(name);
        self.logs.forget(name);
        self.index_dependents();
        self.watch_changed = true;
        self.store.note(Write::Delete { name: name.to_string() });
        ChangeRow { name: name.to_string(), change: "deleted".to_owned() }
    }
}
