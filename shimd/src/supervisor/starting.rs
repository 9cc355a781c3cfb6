//! How an instance on its way is looked at, from its exec until it serves.
//!
//! Most looks find that it is not there yet, and `listen()` raises no event. So they are many, and each has to be cheap,
//! on a machine where a thousand services start at once:
//!
//! ```text
//! when                                          what
//! before the exec                               one lstat: so the history tells of each restart that nothing was there
//! its folder tells of something; after 1 ms,    one lstat
//!   ever more rarely up to 200 ms
//! 0.1 ms after something lies at each path,     a glance: one quick dump for all services that are to be looked at. Most
//!   0.1 ms later, and so on                     that bind listen at once, unless we take the processor from them to look
//! 250 ms after the exec, then each second       an audit of all that there is, on the thread, together with others':
//!                                               what keeps clients from it, if it is not just slow
//! ```
//! An adopted instance has been on its way for long: it is audited as one that serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket_audit::Verdict;

use super::Supervisor;
use super::audits::{Dirty, Found, Subject};
use super::clock::Alarm;
use super::service::Service;
use crate::core::machine::Phase;

/// An instance that does not serve by then is looked at closely.
const CLOSELY: Duration = Duration::from_millis(250);
/// And again so often.
const AGAIN: Duration = Duration::from_secs(1);
/// Who is bound is looked at again so soon.
const LISTENS_SOON: Duration = Duration::from_micros(100);
/// The first wait of one that has nothing there.
const FIRST: Duration = Duration::from_millis(1);
/// The longest wait between two looks.
const CALM: Duration = Duration::from_millis(200);

/// The looks at an instance on its way.
#[derive(Debug, Default)]
pub struct Looks {
    /// How long the next one waits.
    pub after: Duration,
    /// When one is to be close; `None`: of an instance that this daemon did not spawn.
    closely: Option<Instant>,
    /// A close one was had.
    close: bool,
    /// Something lies at each path.
    bound: bool,
    /// What the first glance took. Later ones wait for longer than that: on a machine with many sockets a dump is dear.
    glance: Option<Duration>,
}

impl Service {
    /// Whether it is on its way, and a glance is all that it is to get for now.
    pub fn is_just_starting(&self) -> bool {
        self.is_starting() && self.looks.closely.is_some_and(|at| Instant::now() < at)
    }

    fn is_starting(&self) -> bool {
        self.machine.phase == Phase::Verifying && self.times.spawned.is_some()
    }

    /// Where there is something to glance at.
    fn bound_places(&self) -> BTreeSet<usize> {
        let sockets = self.sockets.iter().enumerate();
        sockets.filter(|(_, k)| !k.has_never_been_there()).map(|(place, _)| place).collect()
    }

    /// One of its sockets has no dentry yet. What a close look has found of it says more than that.
    fn is_hopeless(&self) -> bool {
        !self.looks.close && self.sockets.iter().any(|k| !k.optional && k.has_never_been_there())
    }
}

impl Supervisor {
    /// Looks at the new instance now, and again until it serves.
    pub(super) fn verify(&mut self, name: &Arc<str>) {
        if let Some(service) = self.services.get_mut(name) {
            let closely = service.times.spawned.map(|at| at + CLOSELY);
            service.looks = Looks { after: FIRST, closely, ..Looks::default() };
            // One that took over has been seen to serve; some servers bind twice at their start.
            let again = service.machine.phase == Phase::Running;
            self.clock.arm(name, Alarm::Look, if again { Duration::from_secs(1) } else { FIRST });
            self.dirty.insert(name.clone(), None);
        }
    }

    pub(super) fn look_again(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.machine.phase == Phase::Verifying {
            let after = service.looks.after;
            let longer = if after < FIRST { after * 2 } else { after * 5 / 4 };
            let dear = service.looks.glance.unwrap_or_default() * 4;
            service.looks.after = longer.max(dear).min(CALM);
            self.clock.arm(name, Alarm::Look, service.looks.after);
        }
    }

    /// Takes those on their way out of what is to be audited, and glances at them.
    pub(super) fn glance_at_starting(&mut self, dirty: &mut Dirty) {
        let starting = |name: &Arc<str>| self.services.get(name).is_some_and(Service::is_starting);
        let names: Vec<Arc<str>> = dirty.keys().filter(|name| starting(name)).cloned().collect();
        let asked = Instant::now();
        let (mut asks, mut expects) = (Vec::new(), Vec::new());
        for name in names {
            dirty.remove(&name);
            let Some(service) = self.services.get_mut(&name) else { continue };
            if service.is_hopeless() {
                self.take_absence(&name);
            } else if !std::mem::replace(&mut service.looks.bound, true) && !service.sockets.is_empty() {
                self.clock.arm(&name, Alarm::Look, LISTENS_SOON);
            } else {
                let bound = service.bound_places();
                let (places, of_them): (Vec<_>, Vec<_>) =
                    service.expects(true, Some(&bound)).into_iter().unzip();
                asks.push((name.clone(), Subject::of(service), places));
                expects.extend(of_them);
            }
            self.look_closely(&name, asked);
        }
        if asks.is_empty() {
            return;
        }
        // Services without sockets have nothing to be glanced at.
        let glances = if expects.is_empty() { Vec::new() } else { self.auditor.glance(&expects) };
        let took = asked.elapsed();
        if !expects.is_empty() {
            self.dump_took = took;
        }
        let mut glances = glances.into_iter();
        for (name, subject, places) in asks {
            let asked_of = places.len();
            let seen = places.into_iter().zip(glances.by_ref());
            let found: Found = seen.filter_map(|(place, finding)| Some((place, finding?))).collect();
            // One that was in order and is no longer: that is a loss.
            let lost = self.services.get(&name).is_some_and(|service| {
                let mut was = service.sockets.iter().enumerate().filter(|(_, k)| k.known.is_some());
                was.any(|(place, _)| !found.iter().any(|(seen, _)| *seen == place))
            });
            if found.len() < asked_of {
                self.looks_soon(&name, took);
            }
            if lost {
                self.audit_one(&name, None, true);
            } else {
                self.take_findings(&name, subject, asked, found, true);
            }
        }
    }

    /// A first glance found it bound, and not in order yet.
    fn looks_soon(&mut self, name: &Arc<str>, took: Duration) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.looks.glance.replace(took).is_none() {
            service.looks.after = LISTENS_SOON.max(took * 4);
            self.clock.arm(name, Alarm::Look, service.looks.after);
        }
    }

    /// Where it is time to know what keeps an instance from serving, it is put to those whom the thread audits.
    fn look_closely(&mut self, name: &Arc<str>, now: Instant) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.looks.closely.is_some_and(|at| at <= now) {
            service.looks.closely = Some(now + AGAIN);
            service.looks.close = true;
            self.close_looks.insert(name.clone(), None);
        }
    }

    /// What a look at the folder alone says.
    pub(super) fn take_absence(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let mut news = Vec::new();
        for (index, socket) in service.sockets.iter_mut().enumerate() {
            if socket.has_never_been_there() {
                socket.not_bound_yet();
                news.extend(socket.is_news(Verdict::Absent).then_some(index));
            }
        }
        for index in news {
            self.record_verdict(name, index);
        }
    }
}
