//! One step of one service: its machine is fed an event, its intent goes to the store, its actions are performed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shimd_api::duration::format_duration;

use super::clock::Alarm;
use super::{KILL_AGAIN, Supervisor};
use crate::core::machine::{Action, Beside, Deps, Event, Next, Phase, Timer};
use crate::core::policy;
use crate::store::Write;

impl Supervisor {
    /// One event of one service: the machine's step, its intent to the store, its actions.
    pub(super) fn step(&mut self, name: &Arc<str>, event: Event) {
        let Some(service) = self.services.get_mut(name) else { return };
        let (before, phase, beside) =
            (service.machine.durable(), service.machine.phase, service.machine.beside);
        let mut actions = VecDeque::from(service.machine.step(event, service.policy()));
        let swaps = actions.front() == Some(&Action::Swap);
        if swaps {
            // Who is who goes into the store with the step's intent.
            actions.pop_front();
            self.swap(name);
        }
        let Some(service) = self.services.get_mut(name) else { return };
        let retried =
            matches!(phase, Phase::Stopping(Next::Retry) | Phase::Killing(Next::Retry) | Phase::Spawning);
        if service.machine.phase == Phase::Failed
            && retried
            && !service.policy().allows(service.machine.starts)
        {
            service.say_limit();
        }
        let begins =
            matches!(service.machine.phase, Phase::Waiting { .. }) && !matches!(phase, Phase::Waiting { .. });
        // Why it ended by itself stays known, until somebody starts it, stops it or tells it to forget.
        let is_down = service.machine.phase == Phase::Inactive
            && (service.machine.rest.is_none() || event == Event::ResetFailed);
        if begins || is_down {
            service.trouble = None;
        }
        let now = service.machine.durable();
        // While the daemon shuts down with its services, what was wanted stays in the store.
        if now != before && (self.closing.is_none() || swaps) {
            let rest_reason = now.rest.and(service.trouble.clone());
            let current = service.current;
            let write = Write::Intent { name: name.to_string(), durable: now, rest_reason, current };
            if swaps || !before.has_only_left(now) {
                let store = &self.store;
                let recorded_early = actions.contains(&Action::Signal) && service.comes_early();
                service.intent = Some(match recorded_early {
                    true => store.submit_with_the_next(write),
                    false => store.submit(write),
                });
            } else {
                // That the old instance has left is seen again by a recovery, and the clean that follows is the one that is in
                // the store.
                self.store.note(write);
            }
        }
        if service.machine.phase != phase {
            tracing::debug!(service = %name, ?event, from = ?phase, to = ?service.machine.phase);
            self.on_phase(name, phase);
        }
        if self.services.get(name).is_some_and(|s| s.machine.beside != beside) {
            self.on_beside(name, beside, event);
        }
        let resumed = matches!(event, Event::Recovered { .. }) && before.restart.is_some();
        self.record_state(
            name,
            resumed.then_some("shimd was started anew: a restart that was under way goes on"),
        );
        self.tell_rollout(name);
        self.close_unwanted(name);
        for action in actions {
            self.perform(name, action);
        }
    }

    /// What follows from a change of phase beside the machine's actions.
    fn on_phase(&mut self, name: &Arc<str>, from: Phase) {
        let Some(service) = self.services.get_mut(name) else { return };
        let to = service.machine.phase;
        if to == Phase::Running {
            service.times.serving = Some(Instant::now());
            service.trouble = None;
            // Some servers bind twice at their start: the first good look is not yet the last.
            self.clock.arm(name, Alarm::Look, Duration::from_secs(1));
        } else if !matches!(to, Phase::Verifying | Phase::Impaired) {
            self.clock.disarm(name, Alarm::Look);
        }
        if matches!(to, Phase::Inactive | Phase::Failed) {
            self.pins.tidy();
        }
        if matches!(to, Phase::Inactive | Phase::Failed | Phase::Backoff) {
            self.tidy_names(name);
        }
        let Some(service) = self.services.get_mut(name) else { return };
        if service.instance.is_none()
            && !matches!(to, Phase::Waiting { blocked: false } | Phase::Preparing { .. })
        {
            service.drop_witnesses();
            if to != Phase::Spawning {
                self.forget_early(name);
            }
        }
        let Some(service) = self.services.get_mut(name) else { return };
        if to == Phase::Impaired && from == Phase::Verifying {
            let limit = format_duration(service.live_spec().ready.timeout);
            let why = service.health_reason(&self.root).unwrap_or_else(|| "it does not serve".into());
            service.trouble = Some(format!("not ready within {limit}: {why}"));
        }
        let waits = |n: &&Arc<str>| {
            self.services.get(*n).is_some_and(|s| matches!(s.machine.phase, Phase::Waiting { .. }))
        };
        let waiting: Vec<Arc<str>> =
            self.dependents.get(name).into_iter().flatten().filter(waits).cloned().collect();
        for dependent in waiting {
            self.check_deps(&dependent);
        }
    }

    fn perform(&mut self, name: &Arc<str>, action: Action) {
        match action {
            Action::CheckDeps => self.check_deps(name),
            Action::Clean { force } => self.clean(name, force),
            Action::Spawn => self.spawn(name, false),
            Action::Adopt => self.adopt(name, false),
            Action::Verify => self.verify(name),
            Action::Publish => self.publish(name),
            Action::Beside(deed) => self.second(name, deed),
            // Done before the step's intent was written.
            Action::Swap => {}
            Action::Signal => self.signal(name),
            Action::Kill => self.kill(name, false),
            Action::Arm(timer) => {
                let Some(service) = self.services.get(name) else { return };
                let spec = service.live_spec();
                let after = match timer {
                    Timer::Start => spec.ready.timeout,
                    Timer::Stop => spec.stop.timeout,
                    Timer::Beside => match service.machine.beside {
                        Some(Beside::Verifying) => service.second_spec().ready.timeout,
                        Some(Beside::Killing) => KILL_AGAIN,
                        _ => service.second_spec().stop.timeout,
                    },
                    Timer::Kill => KILL_AGAIN,
                    Timer::Backoff => {
                        policy::backoff(spec.restart.delay, spec.restart.max_delay, service.machine.starts)
                    }
                    Timer::Window => spec.restart.window,
                };
                self.clock.arm(name, Alarm::Machine(timer), after);
            }
            Action::Disarm(timer) => self.clock.disarm(name, Alarm::Machine(timer)),
        }
    }

    /// Tells a waiting service how its dependencies stand.
    pub(super) fn check_deps(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        if self.rollout.waits(name) {
            self.queue.push_back((name.clone(), Event::Deps(Deps::Pending)));
            return;
        }
        let mut deps = Deps::Ready;
        let mut trouble = None;
        for dependency in &service.spec.depends_on {
            let word = match self.services.get(dependency.as_str()) {
                None => "is not registered".to_owned(),
                Some(s) if s.machine.phase == Phase::Running => continue,
                Some(s) if s.machine.settled() => match s.health_reason(&self.root) {
                    Some(reason) => format!("is {}: {reason}", s.machine.status()),
                    None => format!("is {}", s.machine.status()),
                },
                Some(_) => {
                    deps = if deps == Deps::Ready { Deps::Pending } else { deps };
                    continue;
                }
            };
            deps = Deps::Blocked;
            trouble = Some(format!("dependency {dependency} {word}"));
        }
        if let Some(service) = self.services.get_mut(name) {
            service.trouble = trouble;
        }
        if deps == Deps::Ready && !self.rollout.may_start(name) {
            deps = Deps::Pending;
        }
        self.queue.push_back((name.clone(), Event::Deps(deps)));
    }
}
