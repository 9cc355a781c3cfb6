//! A launch that is begun while the last instance still serves.
//!
//! A spawn is three steps: the trampoline is made and becomes all that the plan says, the instance is recorded, the
//! trampoline execs. Of a restart only the last of them need be after the old instance's end:
//! ```text
//! trampoline made ─ intent and record stored ─ old one signalled … gone ─ swept ─ exec
//! ```
//! So the stop signal waits for the record, though not for long. The trampoline is no instance yet: it has nothing open of
//! anybody's, waits for the word, and ends without it. It is used only if the next spawn is the very one that it was made
//! for, and is dropped wherever the service comes to rest, blocked or not, and with the daemon.
//!
//! Its generation is its own: one that is dropped leaves a number that no instance has had. A daemon that is killed leaves
//! two records, of which the later one is the instance once the other's processes are gone (see `recovery`).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shimd_api::spec::Spec;
use socket_audit::Auditor;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Supervisor;
use super::activation::is_activated;
use super::launch::{LaunchError, Ready};
use super::service::Service;
use super::socket::Socket;
use super::sweep::{Sweep, foresee};
use crate::core::machine::{Next, Phase};
use crate::store::{Store, Write};
use crate::sys::limits;

/// How long a stop signal waits for the next instance's record, where all is well 1 ms: a file system that hangs, or a
/// machine that is far beyond its means, holds up nobody's stop.
const HEAD_START: Duration = Duration::from_millis(20);
/// A dump of all sockets that takes longer is for another thread, and that costs 0.1 ms where it does not.
const DEAR: Duration = Duration::from_micros(500);

/// The launch of the next instance.
pub struct Early {
    generation: u64,
    spec: Arc<Spec>,
    ready: JoinHandle<Result<Ready, LaunchError>>,
    /// Nobody else will be in its way.
    alone: Arc<AtomicBool>,
    store: Store,
}

/// What a stop signal waits for.
#[derive(Debug, Default)]
pub struct HeadStart(Option<oneshot::Receiver<()>>);

impl HeadStart {
    /// Done when the next instance is recorded, or will not be; or when the time is up, at most a part of `patience`.
    pub async fn over(self, patience: Duration) {
        if let Some(recorded) = self.0 {
            let _ = tokio::time::timeout(HEAD_START.min(patience / 4), recorded).await;
        }
    }
}

impl Early {
    /// Whether it is made from this very spec.
    pub fn is_for(&self, spec: &Arc<Spec>) -> bool {
        Arc::ptr_eq(&self.spec, spec)
    }

    /// What [`foresee`](super::sweep::foresee) has said, if it was asked and has answered.
    pub fn alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    /// What has come of it by now; itself where that is not known yet.
    pub fn by_now(mut self) -> Result<Option<Ready>, Early> {
        match Pin::new(&mut self.ready).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(made) => Ok(made.ok().and_then(waiting)),
            Poll::Pending => Err(self),
        }
    }

    /// What comes of it.
    pub async fn ready(self) -> Option<Ready> {
        self.ready.await.ok().and_then(waiting)
    }

    fn discard(self, name: &str) {
        let name = name.to_owned();
        tokio::spawn(async move {
            if let Ok(Ok(ready)) = self.ready.await {
                ready.discard();
            }
            self.store.note(Write::InstanceGone { name, generation: self.generation });
        });
    }
}

/// The trampoline, if it was made and waits.
fn waiting(made: Result<Ready, LaunchError>) -> Option<Ready> {
    let ready = made.ok()?;
    if ready.waits() {
        return Some(ready);
    }
    // Its end may have been reaped before anybody knew what it was for.
    ready.discard();
    None
}

impl Service {
    /// Whether an instance is sure to come after the one that is to be stopped.
    pub fn comes_early(&self) -> bool {
        matches!(self.machine.phase, Phase::Stopping(Next::Again))
            && self.machine.restart.is_some()
            && self.machine.beside.is_none()
            && self.early.is_none()
            // Its listeners are bound by the clean.
            && !self.spec.sockets.iter().any(is_activated)
    }
}

impl Supervisor {
    /// Begins the launch of the instance that comes after the one that is to be stopped. The template is at work when this
    /// returns: what else there is to do before the stop signal is done beside it.
    pub(super) fn launch_early(&mut self, name: &Arc<str>) -> HeadStart {
        let Some(service) = self.services.get_mut(name) else { return HeadStart::default() };
        // What is left of descriptors is for what runs.
        if !service.comes_early() || limits::shortage().is_some() {
            return HeadStart::default();
        }
        service.generation += 1;
        let (spec, spec_json, generation) =
            (service.spec.clone(), service.spec_json.clone(), service.generation);
        let mut made = Box::pin(self.launch(name, &spec, generation, Vec::new()).ready());
        // As far as the plan, which the trampoline reads as soon as there is one.
        let begun = made.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let (done, recorded) = oneshot::channel();
        let (store, owned) = (self.store.clone(), name.clone());
        let ready = tokio::spawn(async move {
            let mut ready = match begun {
                Poll::Ready(made) => made?,
                Poll::Pending => made.await?,
            };
            // One that cannot be recorded now is so when it is let go, and what is in the way is told then.
            ready.recorded = ready.record(&store, &owned, generation, &spec_json, true).await.is_ok();
            drop(done);
            Ok(ready)
        });
        let store = self.store.clone();
        if let Some(service) = self.services.get_mut(name) {
            service.early = Some(Early { generation, spec, ready, alone: Arc::default(), store });
        }
        HeadStart(Some(recorded))
    }

    /// Looks ahead of the clean that comes before the launch, if there is to be one. The old instance still serves, and what it
    /// leaves behind is vouched for.
    pub(super) fn foresee_clean(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let clean = service.machine.restart.is_some_and(|restart| restart.clean);
        let Some(early) = service.early.as_ref().filter(|_| clean) else { return };
        let past = service.sockets.iter().filter_map(Socket::past).collect();
        let sweep = Sweep::plan(&early.spec, &self.root, &self.tag, past, true);
        let alone = early.alone.clone();
        if self.dump_took < DEAR {
            return alone.store(foresee(&sweep, &mut self.auditor), Ordering::Relaxed);
        }
        tokio::task::spawn_blocking(move || {
            // Nobody waits for it: a clean that comes before it looks for itself.
            let foreseen = Auditor::new().is_ok_and(|mut auditor| foresee(&sweep, &mut auditor));
            alone.store(foreseen, Ordering::Relaxed);
        });
    }

    /// Ends what was begun early: it is not wanted any more.
    pub(super) fn forget_early(&mut self, name: &Arc<str>) {
        if let Some(early) = self.services.get_mut(name).and_then(|service| service.early.take()) {
            early.discard(name);
        }
    }

    /// What was begun early for the instance that is to be spawned now.
    pub(super) fn take_early(&mut self, name: &Arc<str>, beside: bool) -> Option<Early> {
        let service = self.services.get_mut(name)?;
        let early = service.early.take()?;
        if !beside && early.generation == service.generation && early.is_for(&service.spec) {
            return Some(early);
        }
        early.discard(name);
        None
    }
}
