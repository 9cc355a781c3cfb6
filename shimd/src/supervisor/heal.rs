//! `socket.heal`: lost sockets put back because somebody asks for it.
//!
//! | at the path, says an audit of this moment | a declared socket | any other path |
//! | --- | --- | --- |
//! | nothing, or a dead socket file, and the listener lives | linked back from its pin, else bridged | bridged |
//! | put back by that very audit (`on_missing: relink`) | `relinked` | |
//! | a bridge | `bridged`, as it is | `bridged`, as it is |
//! | anything else | `not_possible`, with the verdict | `not_possible`, with the verdict |
//!
//! Nobody is restarted here: no connection is dropped, also where `on_missing` would restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shimd_api::rpc::RpcError;
use shimd_api::wire::{HealOutcome, HealRow};
use socket_audit::bridge::Bridge;
use socket_audit::{Expect, Finding, SocketKind, Verdict};

use super::Supervisor;
use super::commands::{Reply, answer, value};
use super::healing::is_lost;
use crate::bridge::{self, Order};

/// What one path gets.
enum Plan {
    /// It is settled.
    Done(HealRow),
    /// It gets a bridge.
    Bridge(Order),
}

impl Supervisor {
    /// Heals the sockets of services, and paths; answers when each is healed, or why it is not.
    pub(super) fn heal_on_demand(
        &mut self,
        names: Option<Vec<Arc<str>>>,
        paths: Option<Vec<PathBuf>>,
        reply: Reply,
    ) {
        if names.is_none() && paths.is_none() {
            return answer(reply, Err(RpcError::invalid_params("name, names or paths: say what to heal")));
        }
        let declared = |name: &Arc<str>| {
            let sockets = self.services.get(name).map(|service| service.sockets.iter());
            sockets.into_iter().flatten().map(|socket| socket.path.clone()).collect::<Vec<_>>()
        };
        let mut all: Vec<PathBuf> = names.iter().flatten().flat_map(declared).collect();
        for path in paths.into_iter().flatten() {
            if !all.contains(&path) {
                all.push(path);
            }
        }
        let plans: Vec<Plan> = all.iter().map(|path| self.plan_heal(path)).collect();
        self.settle_queue();
        // A bridge makes folders and a process: beside this task, and all of them at once.
        let work: Vec<_> =
            plans.into_iter().map(|plan| tokio::task::spawn_blocking(move || carry_out(plan))).collect();
        tokio::spawn(async move {
            let mut rows: Vec<HealRow> = Vec::with_capacity(work.len());
            for row in work {
                match row.await {
                    Ok(row) => rows.push(row),
                    Err(e) => return answer(reply, Err(RpcError::internal(e.to_string()))),
                }
            }
            answer(reply, value(rows));
        });
    }

    fn plan_heal(&mut self, path: &Path) -> Plan {
        let place = self.services.iter().find_map(|(name, service)| {
            Some((name.clone(), service.sockets.iter().position(|socket| socket.path == path)?))
        });
        match place {
            Some((name, index)) => self.plan_declared(&name, index, path),
            None => plan(&self.auditor.confirm(&Expect::path(path)), None),
        }
    }

    fn plan_declared(&mut self, name: &Arc<str>, index: usize, path: &Path) -> Plan {
        let count = |s: &Supervisor| {
            s.services.get(name).and_then(|s| s.sockets.get(index)).map_or(0, |socket| socket.care.relinked)
        };
        let before = count(self);
        self.audit_here(name);
        // That may begin a restart (`on_missing`).
        self.settle_queue();
        if count(self) > before {
            let reason = "its file was linked back; no connection was dropped".to_owned();
            return Plan::Done(row(path, HealOutcome::Relinked, reason));
        }
        let Some(service) = self.services.get(name) else {
            return Plan::Done(row(path, HealOutcome::NotPossible, "the service is gone".into()));
        };
        if !service.machine.settled() {
            let words = format!("its service is {}: look again when that is done", service.machine.status());
            return Plan::Done(row(path, HealOutcome::NotPossible, words));
        }
        let expect = service.expects(false, Some(&[index].into())).pop();
        let Some((_, expect)) = expect else {
            return Plan::Done(row(path, HealOutcome::NotPossible, "it is not declared any more".into()));
        };
        let finding = self.auditor.confirm(&expect);
        if !is_lost(&finding) {
            return plan(&finding, None);
        }
        match self.link_back(name, index, &finding) {
            Ok(()) => {
                self.record_healed(name, index, finding.verdict == Verdict::Replaced);
                self.dirty.insert(name.clone(), None);
                let reason = "its file was linked back; no connection was dropped".to_owned();
                Plan::Done(row(path, HealOutcome::Relinked, reason))
            }
            Err(why) => plan(&finding, Some(why.to_string())),
        }
    }
}

/// What a finding asks for. `unlinked`: why its file was not linked back, where that was tried.
fn plan(finding: &Finding, unlinked: Option<String>) -> Plan {
    let no = |reason: String| {
        let reason = unlinked.iter().fold(reason, |reason, why| format!("{reason}; not linked back: {why}"));
        Plan::Done(row(&finding.path, HealOutcome::NotPossible, reason))
    };
    if bridge_at(finding).is_some() {
        return Plan::Done(row(&finding.path, HealOutcome::Bridged, finding.reason.to_string()));
    }
    if !is_lost(finding) {
        return no(match finding.verdict {
            Verdict::Ok => "it is ok: nothing is lost".to_owned(),
            verdict => format!("it is {verdict}: {}", finding.reason),
        });
    }
    let Some(listener) = &finding.listener else { return no("no listener is known".into()) };
    if listener.kind != SocketKind::Stream {
        return no(format!(
            "it is a {} socket, and only the connections of a stream socket can be passed on; restart the service",
            listener.kind
        ));
    }
    let Some(holder) = &finding.holder else {
        return no(
            "the process that listens cannot be seen: run shimd as root, or restart the service".into()
        );
    };
    Plan::Bridge(Order {
        path: finding.path.clone(),
        pid: holder.pid,
        listener: listener.id(),
        creator: listener.uid,
        backlog: listener.backlog,
    })
}

/// The bridge that listens at the path.
fn bridge_at(finding: &Finding) -> Option<Bridge> {
    let stranger = finding.others.first().and_then(|party| party.holder.as_ref());
    [stranger, finding.holder.as_ref()]
        .into_iter()
        .flatten()
        .find_map(|process| Bridge::of(process.pid))
        .filter(|bridge| bridge.path == finding.path)
}

fn carry_out(plan: Plan) -> HealRow {
    match plan {
        Plan::Done(row) => row,
        Plan::Bridge(order) => match bridge::start(&order) {
            Ok(note) => {
                let words = format!(
                    "bridged: connections are passed on to pid {}'s listener, which has no name; restart the service",
                    order.pid
                );
                let words = note.iter().fold(words, |words, note| format!("{words}; {note}"));
                row(&order.path, HealOutcome::Bridged, words)
            }
            Err(why) => row(&order.path, HealOutcome::NotPossible, why.to_string()),
        },
    }
}

fn row(path: &Path, outcome: HealOutcome, reason: String) -> HealRow {
    HealRow { path: path.display().to_string(), outcome, reason: Some(reason) }
}
