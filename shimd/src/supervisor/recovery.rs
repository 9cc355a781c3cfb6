//! After the daemon's own start: what the store names is found again, or truthfully said to be gone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shimd_api::place::private_name;
use shimd_api::spec::{SocketMode, Spec};
use socket_audit::ListenerId;

use super::Supervisor;
use super::effects::{drop_cgroup, since_epoch};
use super::log_files::limits;
use super::publish::{own_paths, remove_dead, sweep_aside};
use super::service::{Instance, Service};
use super::socket::{Socket, Spell, declared};
use crate::core::machine::{Event, Found, Machine, Want};
use crate::store::{InstanceRecord, Loaded, Write};
use crate::sys::identity::Identity;
use crate::sys::tree::{self, Tree};

impl Supervisor {
    /// Takes the services of the store.
    pub(super) fn load(&mut self, loaded: Loaded) {
        let Loaded { services: records, mut verdicts, mut states, rebooted, damage, .. } = loaded;
        if rebooted {
            tracing::info!("the machine has booted since: no instance and no intent of before is taken up");
        }
        if let Some(damage) = damage {
            tracing::error!("{damage}");
            self.troubles.insert("damaged-store", damage);
        }
        // Once: what lives and bears our mark, whether the store knows of it or not.
        let marked = tree::marked(&self.tag);
        for (name, record) in records {
            let spec = match Spec::parse(&record.spec_json) {
                Ok(spec) => Arc::new(spec),
                Err(e) => {
                    // Kept in the store, to the letter; a shimd that can read it finds it there.
                    tracing::error!(service = %name, "the stored spec cannot be read: {e}");
                    self.troubles.insert("spec", format!("the stored spec of {name} cannot be read: {e}"));
                    continue;
                }
            };
            let durable = record.durable;
            let machine = Machine::restored(durable);
            let mut service = Service::new(spec, Arc::from(record.spec_json.as_str()), machine, &self.root);
            if let Some(last) = states.remove(&name) {
                service.told = last.status;
                service.status_since = at(last.since_ns);
            }
            service.generation = record.generation;
            service.trouble = record.rest_reason;
            service.current = record.current;
            for record in record.instances {
                let own = record.generation == service.current;
                let instance = self.found(&name, record);
                if own { service.instance = instance } else { service.second.instance = instance }
            }
            for own in [true, false] {
                let place = if own { &mut service.instance } else { &mut service.second.instance };
                // Nothing of it lives: an instance of which the store does not know may have taken its place.
                let dead = place.take_if(|i| matches!(found(Some(i)), Found::Gone | Found::None));
                let missing =
                    if own { service.instance.is_none() } else { service.second.instance.is_none() };
                let unrecorded = missing.then(|| self.unrecorded(&service, &marked)).flatten();
                if unrecorded.is_none() {
                    let place = if own { &mut service.instance } else { &mut service.second.instance };
                    *place = place.take().or(dead);
                } else if let Some(dead) = dead {
                    let write = Write::InstanceGone { name: name.clone(), generation: dead.generation };
                    self.store.note(write);
                }
                if let Some(instance) = unrecorded {
                    service.generation = service.generation.max(instance.generation);
                    if own {
                        (service.current, service.instance) = (instance.generation, Some(instance));
                    } else {
                        service.second.instance = Some(instance);
                    }
                }
            }
            if let Some(next) = succeeded(&mut service) {
                let (generation, started) = (next.generation, since_epoch(next.started));
                self.store.note(Write::Begun { name: name.clone(), generation, started, beside: false });
            }
            if let Some(i) = &service.instance {
                service.sockets = self.found_again(i);
            }
            if let Some(i) = &service.second.instance {
                service.second.sockets = self.found_again(i);
            }
            if service.instance.is_none() && durable.restart.is_none() {
                match service.spec.autostart {
                    Some(true) if durable.rest.is_none() => service.machine.want = Want::Up,
                    Some(false) => service.machine.want = Want::Down,
                    Some(true) | None => {}
                }
            }
            for socket in &mut service.sockets {
                let seen =
                    record.listeners.iter().find(|l| l.path == socket.path && l.boot_id == self.boot_id);
                socket.known = seen.map(|l| ListenerId { inode: l.inode, cookie: l.cookie });
                socket.served = socket.known.map(|_| service.current);
                // The history goes on: what has not changed since is no news.
                let path = socket.path.display().to_string();
                if let Some(last) = verdicts.remove(&(name.clone(), path)) {
                    socket.culprit = last.culprit;
                    socket.spell = Some(Spell { verdict: last.verdict, since: at(last.since_ns), event: 0 });
                }
            }
            self.logs.follow(&name, limits(service.live_spec()));
            self.services.insert(service.name.clone(), service);
        }
        let unknown: Vec<String> = marked
            .iter()
            .filter(|((name, _), _)| !self.services.contains_key(name.as_str()))
            .map(|((name, _), pids)| format!("{name} (pid {})", pids.first().copied().unwrap_or_default()))
            .collect();
        if !unknown.is_empty() {
            let trouble = format!("these run, but their specs are not known here: {}", unknown.join(", "));
            tracing::error!("{trouble}");
            self.troubles.insert("unknown-instances", trouble);
        }
        self.index_dependents();
        self.watch_folders();
    }

    /// What bears the mark of a service whose instance the store does not name (its disk was full, or failed): the
    /// oldest of its processes is the main one. It is in the store from now on.
    fn unrecorded(&self, service: &Service, marked: &BTreeMap<(String, u64), Vec<i32>>) -> Option<Instance> {
        let known = |generation: u64| {
            let instances = service.instance.iter().chain(&service.second.instance);
            instances.into_iter().any(|i| i.generation == generation)
        };
        let of_it = |((name, generation), _): &(&(String, u64), &Vec<i32>)| {
            **name == *service.name && !known(*generation)
        };
        let ((name, generation), pids) = marked.iter().rfind(of_it)?;
        let processes = pids.iter().filter_map(|pid| Identity::of(*pid).ok());
        let identity = processes.min_by_key(|process| (process.start_ticks, process.pid))?;
        let mark = tree::mark(&self.tag, name, *generation);
        let started = SystemTime::now();
        let record = InstanceRecord {
            generation: *generation,
            identity: identity.clone(),
            cgroup: None,
            spec_json: service.spec_json.to_string(),
            started: since_epoch(started),
            begun: true,
        };
        let (name, record) = (name.clone(), Box::new(record));
        self.store.note(Write::Instance { name, record, beside: *generation < service.generation });
        Some(Instance {
            generation: *generation,
            tree: Tree::new(identity.clone(), mark, None),
            identity,
            spec: service.spec.clone(),
            started,
            main_lives: true,
            begun: true,
        })
    }

    /// The sockets of an instance that was found.
    fn found_again(&self, instance: &Instance) -> Vec<Socket> {
        let mut sockets = declared(&instance.spec, &self.root, &[]);
        own_paths(&mut sockets, &instance.spec, &self.root, instance.generation);
        sockets.iter_mut().for_each(Socket::found_again);
        sockets
    }

    /// The recorded instance, with whatever of its tree still lives.
    fn found(&self, name: &str, record: InstanceRecord) -> Option<Instance> {
        let spec = Arc::new(Spec::parse(&record.spec_json).ok()?);
        let mark = tree::mark(&self.tag, name, record.generation);
        let tree = Tree::new(record.identity.clone(), mark, record.cgroup);
        Some(Instance {
            generation: record.generation,
            main_lives: !matches!(record.identity.still_alive(), Ok(None)),
            identity: record.identity,
            begun: record.begun,
            tree,
            spec,
            started: at(record.started),
        })
    }

    /// Tells each machine what is left of its instances.
    pub(super) fn recover(&mut self) {
        let sockets = self.services.values().flat_map(|service| &service.sockets);
        let paths = sockets.map(|socket| socket.path.as_path()).filter(|path| path.is_absolute());
        let folders = paths.filter_map(Path::parent).map(Path::to_owned).collect();
        sweep_aside(&folders, &mut self.auditor);
        let names: Vec<Arc<str>> = self.services.keys().cloned().collect();
        for name in names {
            let Some(service) = self.services.get_mut(&name) else { continue };
            let (current, other) =
                (found(service.instance.as_ref()), found(service.second.instance.as_ref()));
            if current == Found::Gone {
                service.trouble = Some("it ended while shimd was down; its exit status is not known".into());
                service.sockets.iter_mut().for_each(Socket::is_nobodys);
            }
            if [current, other].iter().all(|found| matches!(found, Found::None | Found::Gone)) {
                // The last daemon may have died between the end of an instance and the removal of its names.
                remove_dead(last_names(service, &self.root));
            }
            // What was said to the last daemon is not known.
            service.notified = current == Found::Alive;
            service.second.notified = other == Found::Alive;
            let gone = [(current, &mut service.instance), (other, &mut service.second.instance)];
            for (_, instance) in
                gone.into_iter().filter(|(found, _)| matches!(found, Found::Gone | Found::None))
            {
                if let Some(gone) = instance.take() {
                    drop_cgroup(gone.tree);
                    let write = Write::InstanceGone { name: name.to_string(), generation: gone.generation };
                    service.intent = Some(self.store.submit(write));
                }
            }
            self.queue.push_back((name, Event::Recovered { current, other }));
        }
        // One audit for all, before the first answer shows a state.
        self.settle_queue();
        let names: Vec<Arc<str>> = self.services.keys().cloned().collect();
        self.dirty.extend(names.into_iter().map(|name| (name, None)));
    }
}

/// The names that the last instances' sockets had, were they published; with the public ones of those that are, where no other
/// is to come.
fn last_names(service: &Service, root: &Path) -> Vec<PathBuf> {
    let spec = &service.spec;
    // Whatever their modes are now: the last instance may have had another spec.
    let paths = spec.sockets.iter().map(|declared| spec.socket_path(root, declared));
    let mut names: Vec<PathBuf> = paths
        .filter(|path| path.is_absolute())
        .flat_map(|path| (service.current..=service.generation).map(move |own| private_name(&path, own)))
        .collect();
    if service.machine.want == Want::Down {
        let published = service.sockets.iter().zip(&spec.sockets);
        let published = published.filter(|(_, declared)| declared.mode == SocketMode::Publish);
        names.extend(published.map(|(socket, _)| socket.path.clone()));
    }
    names
}

/// A time of the store.
fn at(nanoseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds.max(0).unsigned_abs())
}

/// The next instance of a plain restart is recorded while the last one is there, and let go once nothing of that is left. The
/// daemon may have died before the store knew so: what came early then is the service's own, and has not to leave.
fn succeeded(service: &mut Service) -> Option<&Instance> {
    let gone = |instance: Option<&Instance>| matches!(found(instance), Found::Gone | Found::None);
    let restart = service.machine.restart.as_mut().filter(|restart| !restart.gapless)?;
    let early = |next: &mut Instance| !next.begun && next.generation > service.current && !gone(Some(next));
    if !gone(service.instance.as_ref()) {
        return None;
    }
    let next = service.second.instance.take_if(early)?;
    restart.leaving = false;
    service.current = next.generation;
    if let Some(dead) = service.instance.replace(next) {
        drop_cgroup(dead.tree);
    }
    service.instance.as_ref()
}

fn found(instance: Option<&Instance>) -> Found {
    match instance {
        None => Found::None,
        Some(i) if i.main_lives => Found::Alive,
        Some(i) if !i.tree.pids_now().is_empty() => Found::Remains,
        // The daemon died between its record and its exec: it has not ended, and its start goes on.
        Some(i) if !i.begun => Found::None,
        Some(_) => Found::Gone,
    }
}
