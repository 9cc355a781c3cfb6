//! The fault matrix with `on_missing: relink`: the same is done to the same services, and the row says where it must end.
//!
//! A world can be told to relink: then each service that comes [`up`](World::up) in it does, and the row is held to its
//! [`Relink`] where else it is held to its verdict. For most rows the story ends there: what follows is the cure of a service that
//! was not healed.

use crate::fault_matrix::Row;
use crate::probe::Seen;
use crate::scenario::{scenario, scenario_as};
use crate::wait::{holds_for, wait_for, wait_until};
use crate::world::locked;
use crate::{Fault, Json, Need, Result, World, ensure, processes, specs};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How long what stays as it is must stay so, and how long what is healed must hold.
const HOLDS: Duration = Duration::from_secs(1);

/// How long a daemon may take to be stopped by SIGSTOP.
const STOPS: Duration = Duration::from_secs(4);

/// How long a pin may take after its socket was first in order.
const PINNED: Duration = Duration::from_secs(4);

/// Where a fault ends with `on_missing: relink`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relink {
    /// Put back, all sockets of the service: the same process and the same listener serve, and nothing is restarted.
    PutBack,
    /// It cannot be put back, with the reason: the loss is told, and a clean restart makes it good.
    Restarted(&'static str),
    /// Nothing may be put there, with the reason: it stays as with `report`, and nothing is restarted.
    Stays(&'static str),
    /// There is nothing to put back: all is as with `report`.
    Same,
    /// Not tried: the fault is none of a dentry's.
    Untried,
}

impl Relink {
    /// The cell of the docs' table.
    pub fn cell(self) -> String {
        match self {
            Relink::PutBack => "put back".into(),
            Relink::Restarted(why) => format!("restarted: {why}"),
            Relink::Stays(why) => format!("stays: {why}"),
            Relink::Same => "the same".into(),
            Relink::Untried => String::new(),
        }
    }
}

/// What a world that relinks knows.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Each service's main process and the inodes of its listeners by socket, when it was last in order.
    services: BTreeMap<String, (i32, BTreeMap<String, i64>)>,
    /// A row was held to its `Relink`.
    held: bool,
}

/// The row's trials, as its user and, where the row needs no root, as `ordinary`.
pub(crate) fn trials(
    row: Row,
    needs: &[Need],
    ordinary: Option<&'static str>,
    run: fn(&World) -> Result,
) -> Vec<Trial> {
    if row.relink == Relink::Untried {
        return Vec::new();
    }
    let held = move |world: &World| {
        *locked(&world.relinking) = Some(Known::default());
        let told = run(world);
        let held = locked(&world.relinking).as_ref().is_some_and(|known| known.held);
        match told {
            // The end of the story: see `hold_to_relinking`.
            Err(_) if held && row.relink != Relink::Same => Ok(()),
            Ok(()) if !held => Err(Fault::new("the row was never held to what relinking makes of it")),
            told => told,
        }
    };
    let mut trials = vec![scenario(&format!("{}::relink", row.name), needs, held)];
    trials.extend(
        ordinary.map(|user| scenario_as(user, &format!("{}::relink_as_user", row.name), needs, held)),
    );
    trials
}

impl World {
    /// Whether the services of this world relink.
    pub fn relinks(&self) -> bool {
        locked(&self.relinking).is_some()
    }

    /// The spec as this world has it: with `on_missing: relink` in a world that relinks.
    pub(crate) fn relinking_spec(&self, spec: &Value) -> Value {
        if self.relinks() {
            return specs::with(spec.clone(), json!({"on_missing": "relink"}));
        }
        spec.clone()
    }

    /// In a world that relinks: waits until the service's sockets have their pins, and remembers who serves them.
    pub(crate) fn remember(&self, service: &str) -> Result {
        if !self.relinks() {
            return Ok(());
        }
        let pid = self.service(service)?.pid("pid")?;
        let rows = self.rpc("socket.check", json!({"name": service}))?;
        let mut listeners = BTreeMap::new();
        for row in rows.rows()? {
            let path = row.text("path")?;
            if !path.starts_with('@') {
                wait_for(PINNED, format!("{path} has a pin"), || {
                    Ok(std::fs::metadata(path).is_ok_and(|file| file.nlink() > 1))
                })?;
            }
            listeners.insert(row.text("socket")?.to_owned(), row.int("inode")?);
        }
        if let Some(known) = locked(&self.relinking).as_mut() {
            known.services.insert(service.to_owned(), (pid, listeners));
        }
        Ok(())
    }

    /// The deed itself brings another listener of the service.
    pub fn binds_anew(&self, service: &str) {
        let mut relinking = locked(&self.relinking);
        if let Some((_, listeners)) = relinking.as_mut().and_then(|known| known.services.get_mut(service)) {
            listeners.clear();
        }
    }

    /// Does what takes two steps, between which a daemon that relinks may put back what the first one took: in a world that
    /// relinks it is stopped meanwhile, as on a machine too busy to run it.
    pub fn too_late_for_relinking<T>(&self, deed: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.relinks() {
            return deed();
        }
        let daemon = self.daemon_pid()?;
        processes::signal(daemon, Signal::SIGSTOP);
        wait_until(STOPS, "each thread of the daemon is stopped", || processes::stopped(daemon))?;
        let done = deed();
        processes::signal(daemon, Signal::SIGCONT);
        done
    }

    /// In a world that relinks: holds the service to the row's `relink`, and then ends the story with an error that the trial
    /// takes for what it is. Does nothing where the row is held to its verdict.
    pub(crate) fn hold_to_relinking(
        &self,
        row: &Row,
        service: &str,
        socket: &str,
        limit: Duration,
        client: Option<&User>,
    ) -> Result {
        let known = locked(&self.relinking).as_ref().map(|known| known.services.get(service).cloned());
        let Some(known) = known else { return Ok(()) };
        let before = known.ok_or_else(|| Fault(format!("{service} was never in order")))?;
        match row.relink {
            Relink::PutBack => self.is_put_back(service, &before, limit)?,
            Relink::Restarted(_) => self.is_restarted(row, service, socket, before.0, limit)?,
            Relink::Stays(_) => self.stays(row, service, socket, before.0, limit)?,
            Relink::Same | Relink::Untried => {}
        }
        let goes_on = row.relink == Relink::Same;
        if !goes_on {
            let seen = self.client_sees(service, socket, client)?.to_string();
            let answers = Seen::Answers.to_string();
            let wanted = if matches!(row.relink, Relink::Stays(_)) { row.clients } else { &answers };
            ensure!(seen == wanted, "a client sees {seen}, and not {wanted}");
        }
        if let Some(known) = locked(&self.relinking).as_mut() {
            known.held = true;
        }
        if goes_on {
            return Ok(());
        }
        Err(Fault::new("the end of the story: it is as the row says of relinking"))
    }

    fn is_put_back(
        &self,
        service: &str,
        (pid, listeners): &(i32, BTreeMap<String, i64>),
        limit: Duration,
    ) -> Result {
        let rows = || -> Result<Vec<Value>> {
            Ok(self.rpc("socket.check", json!({"name": service}))?.rows()?.to_vec())
        };
        let well = |row: &Value| row.text("verdict").is_ok_and(|verdict| verdict == "ok");
        wait_for(limit, format!("a lost socket of {service} is put back, and all are ok"), || {
            let rows = rows()?;
            Ok(rows.iter().any(|row| row.int("relinked").is_ok_and(|times| times > 0))
                && rows.iter().all(well))
        })?;
        let listed = self.wait_status(service, "running", limit)?;
        ensure!(listed.pid("pid")? == *pid && listed.int("restarts")? == 0, "nothing is restarted: {listed}");
        for row in rows()? {
            let same =
                listeners.get(row.text("socket")?).is_none_or(|inode| row.int("inode").ok() == Some(*inode));
            ensure!(same, "the same listener serves as before, of {listeners:?}: {row}");
        }
        let told = self.nu_json(&format!("proc events {service} | where kind == relinked"))?;
        ensure!(!told.rows()?.is_empty(), "it is told");
        holds_for(HOLDS, format!("{service} is well"), || {
            Ok(rows()?.iter().all(well) && self.service(service)?.pid("pid")? == *pid)
        })
    }

    fn is_restarted(&self, row: &Row, service: &str, socket: &str, pid: i32, limit: Duration) -> Result {
        wait_for(limit, format!("{service} is restarted, and its {socket} is ok"), || {
            let listed = self.service(service)?;
            let serves = listed.text("status")? == "running" && listed.pid("pid")? != pid;
            Ok(serves && self.socket_row(service, socket)?.text("verdict")? == "ok")
        })?;
        let listed = self.service(service)?;
        ensure!(listed.int("restarts")? == 1, "one restart makes it good: {listed}");
        let told = self.nu_json(&format!("proc events {service} | where kind == verdict"))?;
        let detail = |event: &Value, name| event.field("detail").text(name).unwrap_or_default().to_owned();
        let lost = told.rows()?.iter().any(|event| detail(event, "verdict") == row.verdict);
        let why = told.rows()?.iter().any(|event| detail(event, "reason").contains("not linked back: "));
        ensure!(lost && why, "the loss is told, and why it was not put back: {told}");
        Ok(())
    }

    fn stays(&self, row: &Row, service: &str, socket: &str, pid: i32, limit: Duration) -> Result {
        self.wait_status(service, "failed", limit)?;
        self.wait_verdict(service, socket, row.verdict, row.reason, limit)?;
        holds_for(HOLDS, format!("{service}'s {socket} is {}, and nothing is restarted", row.verdict), || {
            let listed = self.service(service)?;
            let same = listed.text("status")? == "failed" && listed.pid("pid")? == pid;
            Ok(same && self.socket_row(service, socket)?.text("verdict")? == row.verdict)
        })
    }
}
