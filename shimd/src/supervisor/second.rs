//! The second instance of a service, during a gapless restart: [`core::beside`](crate::core::beside) run.
//!
//! Until it is published the new one is looked at here, at its own paths, by itself: audits, healing and the history are
//! of the instance that serves. Then the two change places, and this is the old one, until it is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shimd_api::duration::format_duration;
use shimd_api::spec::Spec;
use socket_audit::{Expect, Owner};

use super::Supervisor;
use super::clock::Alarm;
use super::early::HeadStart;
use super::effects::drop_cgroup;
use super::publish::remove_dead;
use super::readiness::{outlived, said_ready, unreached};
use super::reasons::Reason;
use super::service::{Instance, Service};
use super::socket::{Socket, audit_kind};
use crate::core::machine::{Beside, Deed, Event, Phase, Sign};
use crate::store::Write;

/// The longest wait between two looks: most of them are one lstat(2).
const LOOK: Duration = Duration::from_millis(20);

/// The second instance and what is known of it.
#[derive(Default)]
pub struct Second {
    /// From its record until its tree is gone.
    pub instance: Option<Instance>,
    /// The sockets as this instance has them.
    pub sockets: Vec<Socket>,
    /// READY=1 has come.
    pub notified: bool,
    /// When it was let go.
    pub spawned: Option<Instant>,
    /// How long the next look waits.
    pub look_after: Duration,
    /// Why the last one that was to take over did not.
    pub failed: Option<String>,
}

impl Second {
    fn serves(&self, root: &std::path::Path) -> bool {
        let ready =
            |i: &Instance| said_ready(&i.spec, self.notified, root) && outlived(&i.spec, self.spawned);
        self.instance.as_ref().is_some_and(ready) && self.sockets.iter().all(|s| s.own.is_none() || s.is_ok())
    }

    fn trouble(&self, root: &std::path::Path) -> Option<String> {
        let spec = &self.instance.as_ref()?.spec;
        let own: Vec<Socket> = self.sockets.iter().filter(|s| s.own.is_some()).cloned().collect();
        let why = unreached(&own, said_ready(spec, self.notified, root), spec, self.notified, root);
        let limit = format_duration(spec.ready.timeout);
        Some(format!("not ready within {limit}: {}", why.unwrap_or_else(|| "it does not serve".into())))
    }
}

impl Service {
    /// Why the row of a gapless restart says `failed`, and what became of the old instance.
    pub fn gapless_failure(&self) -> String {
        let why = self.second.failed.as_deref().unwrap_or("it ended");
        match self.pid() {
            Some(pid) => {
                let goes_on =
                    if self.machine.phase == Phase::Running { "serves on" } else { "was left as it is" };
                format!("the new instance did not take over: {why}; process {pid} {goes_on}")
            }
            None => format!("the new instance did not take over: {why}"),
        }
    }

    /// The spec that counts for the second instance.
    pub fn second_spec(&self) -> &Arc<Spec> {
        self.second.instance.as_ref().map_or(&self.spec, |i| &i.spec)
    }
}

impl Supervisor {
    /// Performs what the machine asks for the second instance.
    pub(super) fn second(&mut self, name: &Arc<str>, deed: Deed) {
        match deed {
            Deed::Clean => self.clean_beside(name),
            Deed::Spawn => self.spawn(name, true),
            Deed::Adopt => self.adopt(name, true),
            Deed::Verify => {
                if let Some(service) = self.services.get_mut(name) {
                    service.second.look_after = Duration::from_millis(1);
                    self.clock.arm(name, Alarm::Second, service.second.look_after);
                }
            }
            Deed::Publish => self.publish_second(name),
            Deed::Drain => self.drain(name),
            Deed::Signal => self.signal_instance(name, true, HeadStart::default()),
            Deed::Kill => self.kill(name, true),
        }
    }

    /// Looks at the new one, and again until it serves.
    pub(super) fn look_at_second(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.machine.beside != Some(Beside::Verifying) {
            return;
        }
        let Some(instance) = &service.second.instance else { return };
        let mut pids = None;
        for socket in &mut service.second.sockets {
            // An `activate` socket listens all the time.
            if socket.own.is_none() {
                continue;
            }
            if super::socket::lstat_id(socket.place()).is_none() {
                socket.not_bound_yet();
                continue;
            }
            let asked = Instant::now();
            let pids = pids.get_or_insert_with(|| instance.tree.pids_now());
            let expect = Expect {
                path: socket.place().to_owned(),
                kind: Some(audit_kind(socket.kind)),
                known: socket.known,
                owner: Owner::Pids(pids.clone()),
                witness: None,
                peers: socket.peers.clone(),
            };
            // What keeps it from serving is asked only once that takes long.
            let glance = self.auditor.glance(std::slice::from_ref(&expect)).pop().flatten();
            let finding = match glance {
                Some(finding) => finding,
                None if service.second.look_after < LOOK => continue,
                None => self.auditor.confirm(&expect),
            };
            let reason = Reason { done: None, stands: finding.reason.to_string() };
            socket.take(&finding, reason, asked, instance.generation);
        }
        if service.second.serves(&self.root) {
            self.queue.push_back((name.clone(), Event::Beside(Sign::Serving)));
            return;
        }
        let wait = (service.second.look_after * 5 / 4).clamp(Duration::from_millis(1), LOOK);
        service.second.look_after = wait;
        self.clock.arm(name, Alarm::Second, wait);
    }

    /// The two change places: what was the second is the service's own from this step on.
    pub(super) fn swap(&mut self, name: &Arc<str>) {
        // Named after the public paths, they are the other's now.
        self.drop_pins(name);
        let Some(service) = self.services.get_mut(name) else { return };
        let Service { instance, second, sockets, notified, times, .. } = service;
        std::mem::swap(instance, &mut second.instance);
        std::mem::swap(sockets, &mut second.sockets);
        std::mem::swap(notified, &mut second.notified);
        std::mem::swap(&mut times.spawned, &mut second.spawned);
        for socket in sockets.iter_mut() {
            let Some(old) = second.sockets.iter_mut().find(|old| old.path == socket.path) else { continue };
            if socket.own.is_none() && old.own.is_none() {
                // One of the mode `activate` is the same for both.
                std::mem::swap(socket, old);
                // Whose process has it is looked up anew.
                socket.pid = None;
            } else {
                // The history goes on, and what was learnt of whoever removes the name.
                (socket.spell, socket.care) = (old.spell.clone(), old.care.of_the_next());
            }
        }
        // What is left of the pins are those of listeners that go on: the other has them now, unless its spec has dropped them.
        for old in &mut second.sockets {
            let pin = old.care.pin.take();
            if !sockets.iter().any(|socket| socket.path == old.path)
                && let Some(pin) = pin.and_then(Arc::into_inner)
            {
                pin.remove();
            }
        }
        // One that is being spawned is the last generation.
        service.current = service.instance.as_ref().map_or(service.generation, |i| i.generation);
        let before = service.second.sockets.clone();
        self.record_undeclared(name, &before);
        self.watch_changed = true;
    }

    /// After a step that moved the second instance: what is to be known of it, or done beside the machine's actions.
    pub(super) fn on_beside(&mut self, name: &Arc<str>, from: Option<Beside>, event: Event) {
        let Some(service) = self.services.get_mut(name) else { return };
        tracing::debug!(service = %name, ?event, ?from, to = ?service.machine.beside, "beside");
        match (from, service.machine.beside) {
            (Some(Beside::Verifying), Some(Beside::Stopping))
                if event == Event::Timer(crate::core::machine::Timer::Beside) =>
            {
                service.second.failed = service.second.trouble(&self.root);
            }
            (Some(Beside::Publishing), Some(Beside::Draining)) => {
                service.times.serving = Some(Instant::now());
                service.second.failed = None;
                let old = service.second.instance.as_ref().map(|old| old.identity.pid);
                self.store_listeners(name);
                self.release_unwanted(name);
                // Its state is the same as before, and it is another process.
                let from = old.map(|pid| format!(" from process {pid}")).unwrap_or_default();
                self.record_state(name, Some(&format!("took over{from} without a gap")));
            }
            (None, Some(Beside::Preparing)) => service.second.failed = None,
            _ => {}
        }
        if service_verifies(self.services.get(name)) {
            return;
        }
        self.clock.disarm(name, Alarm::Second);
    }

    /// No process of the second instance is left.
    pub(super) fn second_gone(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let second = &mut service.second;
        let Some(instance) = second.instance.take() else { return };
        self.mains.remove(&instance.identity.pid);
        if instance.generation < service.current {
            service.old_gone.get_or_insert_with(Instant::now);
        }
        // A dead socket's file may be removed and its file system unmounted.
        let rests = matches!(service.machine.phase, Phase::Inactive | Phase::Failed | Phase::Backoff);
        let declared: Vec<_> = service.sockets.iter().map(|s| s.path.clone()).collect();
        let names = |s: Socket| {
            // With no other instance there or on its way, or none that has such a socket, the public name may be this one's.
            let public = (rests || !declared.contains(&s.path)).then_some(s.path);
            s.own.into_iter().flat_map(move |own| [Some(own.path), public.clone()]).flatten()
        };
        remove_dead(std::mem::take(&mut second.sockets).into_iter().flat_map(names).collect());
        let gone = Write::InstanceGone { name: name.to_string(), generation: instance.generation };
        service.intent = Some(self.store.submit(gone));
        drop_cgroup(instance.tree);
    }

    /// The second instance's main process ended. `how`: in words.
    pub(super) fn second_ended(&mut self, name: &Arc<str>, how: String) {
        let Some(service) = self.services.get_mut(name) else { return };
        if let Some(instance) = &mut service.second.instance {
            instance.main_lives = false;
        }
        if matches!(service.machine.beside, Some(Beside::Verifying | Beside::Publishing)) {
            service.second.failed = Some(format!("{how} before its sockets were ok"));
        }
        self.queue.push_back((name.clone(), Event::Beside(Sign::Exited)));
    }

    /// Whether what is in flight, a clean or a spawn, is for the second instance.
    pub(super) fn is_for_second(service: &Service) -> bool {
        service.machine.phase != Phase::Spawning
            && matches!(service.machine.beside, Some(Beside::Preparing | Beside::Spawning))
    }
}

fn service_verifies(service: Option<&Service>) -> bool {
    service.is_some_and(|s| s.machine.beside == Some(Beside::Verifying))
}
