//! Restarts and stops of many, run: the plan of [`rollout`](super::rollout) is asked what is next, and hears how services stand.
//!
//! A service's intent is in the store from its turn on: a daemon that ends in the middle carries on, after its next
//! start, what was begun, in the order of the dependencies, and leaves running what was still queued. A plan that was
//! stored whole would restart, hours later perhaps, services that serve well.
//!
//! A service that is down for its restart is held where a service waits whose dependency is on its way: the machine
//! knows of no plan.

use std::path::Path;
use std::sync::Arc;

use socket_audit::Verdict;

use super::Supervisor;
use super::rollout::{Name, Stand, Task};
use super::service::Service;
use super::socket::Socket;
use super::sweep::{self, Sweep};
use super::waiters::{Kind, Turn};
use crate::core::machine::{Event, Next, Phase};

/// How many services of one command are at work at a time, for each processor: most of a restart is a wait, for an
/// exit or for a socket.
const EACH: usize = 4;

/// The same for this machine.
pub fn bound() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) * EACH
}

impl Supervisor {
    /// A command to restart these.
    pub(super) fn roll(&mut self, names: &[Arc<str>], clean: bool, gapless: bool) {
        let goes_down = |n: &Name| {
            let phase = self.services.get(n).map(|s| s.machine.phase);
            matches!(phase, Some(Phase::Stopping(Next::Again) | Phase::Killing(Next::Again)))
        };
        let joined = self.rollout.add(names, Task::Restart { clean }, goes_down);
        for name in names {
            if joined.contains(name) {
                if clean {
                    self.queue.push_back((name.clone(), Event::Restart { clean, gapless: false }));
                }
            } else if let Some(service) = self.services.get_mut(name) {
                (service.turn, service.gapless) = (Turn::default(), gapless);
            }
        }
        self.order_rollout();
    }

    /// A command to stop these, each once those of them that depend on it are down. The last command counts: a restart
    /// that one of them is in ends here.
    pub(super) fn roll_down(&mut self, names: &[Arc<str>]) {
        self.rollout.add(names, Task::Stop, |_| false);
        self.order_rollout();
    }

    /// The plan's edges follow the specs as they are now.
    pub(super) fn order_rollout(&mut self) {
        if self.rollout.is_empty() {
            return;
        }
        let order = self.with_dependencies(&self.rollout.names());
        let services = &self.services;
        self.rollout.order(&order, |name| {
            let needs = services.get(name).map(|s| s.spec.depends_on.as_slice()).unwrap_or_default();
            needs.iter().filter_map(|n| Some(services.get_key_value(n.as_str())?.0.clone())).collect()
        });
    }

    /// After a step of a service's machine.
    pub(super) fn tell_rollout(&mut self, name: &Arc<str>) {
        if let Some(service) = self.services.get(name)
            && self.rollout.holds(name)
        {
            let killed = matches!(service.machine.phase, Phase::Killing(_)) && self.rollout.stops(name);
            // Whoever cannot even be killed keeps nobody else from stopping.
            self.rollout.stands(name, if killed { Stand::Settled } else { stand(service) });
        }
    }

    /// Lets go on whoever may.
    pub(super) fn advance_rollout(&mut self) {
        if !self.rollout.has_moved() {
            return;
        }
        for name in self.rollout.down_and_free() {
            self.check_deps(&name);
        }
        while let Some((name, task)) = self.rollout.next() {
            let Some(service) = self.services.get_mut(&name) else {
                self.rollout.remove(&name);
                continue;
            };
            // Each at once: until its machine knows of it, it would be taken for one that is through.
            let Task::Restart { clean } = task else {
                service.begin_command(Kind::Stop);
                self.step(&name, Event::Stop);
                continue;
            };
            let gapless = std::mem::take(&mut service.gapless) && service.has_come_up();
            service.turn = Turn::begun(service.pid(), gapless);
            let refused = match clean {
                false => stolen(service, &self.root, &self.tag),
                true => None,
            };
            let refused = refused.or_else(|| self.hopeless(&name, gapless));
            let Some(service) = self.services.get_mut(&name) else { continue };
            if let Some(why) = refused {
                let left = format!("{why}; it was not restarted, its instance was left as it is");
                service.turn.refused = Some(left);
                self.rollout.remove(&name);
                continue;
            }
            service.begin_command(Kind::Restart { clean, gapless });
            self.step(&name, Event::Restart { clean, gapless });
        }
    }

    /// Why the next instance of a service that is up could not even be begun, whatever a clean does: then it had better stay,
    /// also where one of its sockets has just been lost. A gapless restart finds that out by itself.
    fn hopeless(&self, name: &Arc<str>, gapless: bool) -> Option<String> {
        let service = self.services.get(name)?;
        if gapless || !service.machine.has_arrived() {
            return None;
        }
        let plan = Sweep::plan(&service.spec, &self.root, &self.tag, Vec::new(), false);
        let folders = sweep::prepare_folders(&plan).map_err(|e| e.to_string());
        folders.and_then(|()| self.logs.look(name).map_err(|e| e.to_string())).err()
    }
}

/// Why a plain restart would end in nothing: somebody else has one of its paths, and would keep it. The instance that
/// still serves its connections is then better left alone.
fn stolen(service: &Service, root: &Path, tag: &str) -> Option<String> {
    let others = |s: &Socket| matches!(s.verdict, Some(Verdict::Replaced | Verdict::Foreign));
    if service.instance.is_none() || !service.sockets.iter().any(others) {
        return None;
    }
    sweep::refusal(&Sweep::plan(&service.spec, root, tag, Vec::new(), false)).map(|why| why.to_string())
}

fn stand(service: &Service) -> Stand {
    match service.machine.phase {
        // Not down while a second instance is still to go.
        Phase::Waiting { blocked: false } if service.machine.beside.is_none() => Stand::Down,
        _ if service.machine.settled() => Stand::Settled,
        _ => Stand::AtWork,
    }
}
