//! What must be so after each recovery.
//!
//! | of each service | by whose word |
//! | --- | --- |
//! | it is registered, with the spec of before or after a change that was cut off, to the letter; of after, where it was answered | the daemon's |
//! | it is `running`, or truthfully `inactive` or `failed` with a reason; as it was wanted | the daemon's |
//! | `running`: a client is answered, and exactly one instance has processes | the socket's, `/proc`'s |
//! | `inactive`: it has no process, and no client gets in | `/proc`'s, the socket's |
//! | its folder holds the public name, and the private one of its live generation; nothing else | the file system's |
//! | no pin but of a live socket | the file system's |
//! | the ids of events go on without a gap, and none comes twice | the daemon's history |
//! | what was answered of a start, a stop or a restart is in the history of the daemon that was killed | its store, before another daemon is started: `kept.rs` |
//! | each state that it tells follows the last that it told, and the last is the one that it is in | the daemon's history |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use super::deeds::Service;
use crate::client::ping;
use crate::{Json, Result, World, ensure};

/// What was not so after a kill.
#[derive(Debug)]
pub struct Violation {
    /// Which kill it was.
    pub kill: usize,
    /// What was under way.
    pub deeds: Vec<String>,
    /// What was not so.
    pub what: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kill {}, {}: {}", self.kill, self.deeds.join(", "), self.what.join("; "))
    }
}

/// Looks at a world.
pub struct Looker<'a> {
    world: &'a World,
    last_event: i64,
    /// The last state of each service that the history has.
    told: BTreeMap<String, String>,
}

impl<'a> Looker<'a> {
    /// Of a world whose daemon answers.
    pub fn new(world: &'a World) -> Result<Looker<'a>> {
        Ok(Looker { world, last_event: 0, told: BTreeMap::new() })
    }

    /// All that is not so.
    pub fn look(&mut self, services: &[Service]) -> Result<Vec<String>> {
        let rows = self.world.rpc("service.list", json!({}))?;
        let rows = rows.rows()?;
        let instances = instances(self.world);
        let mut found = Vec::new();
        let mut live = BTreeSet::new();
        for service in services {
            let row = rows.iter().find(|row| row.text("name").is_ok_and(|name| name == service.name));
            let generations = instances.get(&service.name).cloned().unwrap_or_default();
            let Some(row) = row else {
                if !service.may_be_gone {
                    found.push(format!("{} is not registered any more", service.name));
                }
                if !generations.is_empty() {
                    found.push(format!("{} is not registered and runs: {generations:?}", service.name));
                }
                continue;
            };
            if let Err(fault) = self.is_well(service, row, &generations) {
                found.push(format!("{}: {fault}: {row}", service.name));
            }
            if let Ok(dentry) = self.world.socket(&service.name, "rpc.sock").symlink_metadata() {
                live.insert(dentry.ino());
            }
        }
        for (pin, inode) in pins(&self.world.sockets().join(".shimd")) {
            if !live.contains(&inode) {
                let of = services.iter().find(|service| pin.contains(&format!(".{}.", service.name)));
                let row = of.and_then(|of| {
                    rows.iter().find(|row| row.text("name").is_ok_and(|name| name == of.name))
                });
                let dentry = of
                    .map(|of| self.world.socket(&of.name, "rpc.sock").symlink_metadata().map(|it| it.ino()));
                let live = of.and_then(|of| instances.get(&of.name));
                found.push(format!("a stray pin: {pin} of inode {inode}; {dentry:?}, {live:?}, {row:?}"));
            }
        }
        Ok(found)
    }

    fn spec(&self, service: &Service) -> Result<Value> {
        let got = self.world.rpc("service.get", json!({"name": service.name}))?;
        Ok(serde_json::from_str(got.text("spec_json")?)?)
    }

    fn is_well(&self, service: &Service, row: &Value, generations: &BTreeSet<u64>) -> Result {
        let spec = self.spec(service)?;
        ensure!(service.specs.contains(&spec), "its spec {spec} is none of {:?}", service.specs);
        let status = row.text("status")?;
        match status {
            "running" => {
                ensure!(service.up != Some(false), "it runs, and was stopped");
                let answers = ping(&self.world.socket(&service.name, "rpc.sock"))?;
                ensure!(generations.len() == 1, "{} instances: {generations:?}", generations.len());
                ensure!(answers > 0, "nobody answers");
            }
            "inactive" => {
                ensure!(service.up != Some(true), "it is down, and was to run");
                ensure!(generations.is_empty(), "it is down, and has processes: {generations:?}");
                let path = self.world.socket(&service.name, "rpc.sock");
                ensure!(UnixStream::connect(path).is_err(), "it is down, and a client gets in");
            }
            "failed" => {
                ensure!(!row.text("health_reason")?.is_empty(), "it has failed without a reason");
                ensure!(generations.len() <= 1, "{} instances: {generations:?}", generations.len());
                // The servers are well: no failure is true for long.
                return Err(crate::Fault::new("it has failed"));
            }
            other => return Err(crate::Fault(format!("it is {other} still"))),
        }
        for name in names(&self.world.sockets().join(&service.name)) {
            let own = name.strip_prefix(".rpc.sock.").and_then(|generation| generation.parse().ok());
            let known = name == "rpc.sock" || own.is_some_and(|own| generations.contains(&own));
            ensure!(known, "a stray name: {name}");
        }
        Ok(())
    }

    /// What is so now is what is to be so from now on; events are looked at once. What is gone is registered again.
    ///
    /// # Errors
    /// Events that are missing, or came twice; a daemon that refuses what is well.
    pub fn settle(&mut self, services: &mut [Service]) -> Result {
        let rows = self.world.rpc("service.list", json!({}))?;
        for service in &mut *services {
            let row = rows.rows()?.iter().find(|row| row.text("name").is_ok_and(|name| name == service.name));
            match row {
                None => {
                    self.world.rpc("service.set", json!({"spec": service.spec}))?;
                    self.world.rpc("service.start", json!({"name": service.name}))?;
                    service.up = Some(true);
                }
                Some(row) => {
                    service.up = Some(row.text("status")? != "inactive");
                    service.spec = self.spec(service)?;
                }
            }
            service.may_be_gone = false;
            service.specs = vec![service.spec.clone()];
        }
        let rows = self.world.rpc("service.list", json!({}))?;
        let query = json!({"after": self.last_event, "limit": 100_000});
        for event in self.world.rpc("event.list", query)?.rows()? {
            let id = event.int("id")?;
            ensure!(id == self.last_event + 1, "event {id} follows {}", self.last_event);
            self.last_event = id;
            if event.text("kind")? == "state" {
                self.follows(services, event)?;
            }
        }
        for row in rows.rows()? {
            let (name, status) = (row.text("name")?, row.text("status")?);
            let told = self.told.get(name).map(String::as_str);
            ensure!(told == Some(status), "the history's last word of {name} is {told:?}: {row}");
        }
        services.iter_mut().for_each(|service| service.renewed = false);
        Ok(())
    }
}

impl Looker<'_> {
    /// A state of a service's follows the last that was told, unless the service was made anew.
    fn follows(&mut self, services: &[Service], event: &Value) -> Result {
        let name = event.text("service")?;
        let detail = event.field("detail");
        let (was, status) = (detail.text("was")?, detail.text("status")?);
        let renewed = services.iter().any(|service| service.name == name && service.renewed);
        let last = self.told.insert(name.to_owned(), status.to_owned());
        let follows = last.as_deref().is_none_or(|last| last == was) || renewed && was == "inactive";
        ensure!(follows, "a state is missing in the history: after {last:?} comes {event}");
        Ok(())
    }
}

/// The generations of each service that have processes, by the marks in their environments.
fn instances(world: &World) -> BTreeMap<String, BTreeSet<u64>> {
    let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for process in world.processes() {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let mark = environment
            .split(|byte| *byte == 0)
            .filter_map(|variable| std::str::from_utf8(variable).ok()?.strip_prefix("SHIMD_INSTANCE="))
            .find_map(|mark| {
                let mut parts = mark.rsplitn(3, '/');
                let generation = parts.next()?.parse().ok()?;
                Some((parts.next()?.to_owned(), generation))
            });
        if let Some((name, generation)) = mark {
            found.entry(name).or_default().insert(generation);
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn pins(folder: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path().display().to_string(), entry.metadata().ok()?.ino())))
        .collect()
}
