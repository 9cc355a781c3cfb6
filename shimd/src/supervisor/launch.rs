//! From a plan to an instance, and a launch that is begun early.
//!
//! A spawn is three steps: the trampoline is made and becomes all that the plan says, the instance is recorded, the
//! trampoline execs. A restart need not wait for the first of them: while the old instance is being stopped, the next
//! one's trampoline is made ready. It is no instance yet: it has nothing open of anybody's, waits for the word, and ends
//! without it. So it is used only if the next spawn is the very one that it was made for, and is dropped wherever the
//! service comes to rest, blocked or not, and with the daemon.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use shimd_api::spec::Spec;
use tokio::task::JoinHandle;

use super::Supervisor;
use super::activation::is_activated;
use super::effects::{Outcome, since_epoch};
use super::publish::own_paths;
use super::service::Instance;
use super::socket::{Socket, declared};
use super::sweep::SweepError;
use crate::core::machine::{Next, Phase};
use crate::store::{InstanceRecord, Store, Write};
use crate::sys::activation::Held;
use crate::sys::cgroup::{self, Cgroups};
use crate::sys::identity::Identity;
use crate::sys::limits;
use crate::sys::notify::Notify;
use crate::sys::spawn::{self, ExecPlan, Pending, SpawnError};
use crate::sys::template::Template;
use crate::sys::tree::{self, Tree};
use crate::sys::users;

/// All that a trampoline is made from.
struct Launch {
    name: Arc<str>,
    generation: u64,
    files: Result<(std::fs::File, std::fs::File), String>,
    plan: Result<ExecPlan, String>,
    listeners: Vec<Arc<Held>>,
    cgroups: Option<Cgroups>,
    template: Arc<Template>,
}

/// A trampoline that waits for the word.
struct Ready {
    pending: Pending,
    identity: Identity,
    cgroup: Option<PathBuf>,
}

/// A launch that was begun while the last instance was still being stopped.
pub struct Early {
    generation: u64,
    spec: Arc<Spec>,
    ready: JoinHandle<Result<Ready, LaunchError>>,
}

/// Why there is no instance.
enum LaunchError {
    Refused(String),
    Short(String),
    Spawn(SpawnError),
}

impl From<SpawnError> for LaunchError {
    fn from(e: SpawnError) -> Self {
        LaunchError::Spawn(e)
    }
}

impl Launch {
    async fn ready(self) -> Result<Ready, LaunchError> {
        // Others that were let go at the same time have taken theirs by now.
        if let Some(short) = limits::shortage() {
            return Err(LaunchError::Short(SweepError::Shortage(short).to_string()));
        }
        let (out, err) = self.files.map_err(LaunchError::Refused)?;
        let mut plan = self.plan.map_err(LaunchError::Refused)?;
        if let Some(ids) = &plan.ids {
            // A service that opens /dev/stderr anew opens this file, as its own user.
            for file in [&out, &err] {
                let _ = std::os::unix::fs::fchown(file, Some(ids.uid), Some(ids.gid));
            }
        }
        plan.cgroup = self.cgroups.and_then(|c| c.create(&self.name, self.generation).ok());
        let prepared = spawn::prepare(&self.template, &plan, &out, &err, self.listeners).await;
        let (pending, identity) = match prepared {
            Ok(prepared) => prepared,
            Err(e) => {
                drop_cgroup(plan.cgroup);
                return Err(e.into());
            }
        };
        let cgroup = plan.cgroup.filter(|_| pending.in_cgroup());
        Ok(Ready { pending, identity, cgroup })
    }
}

/// Where the trampoline of a spawn comes from.
enum Source {
    /// It waits already.
    Early(Ready),
    /// It is on its way; and what it is made from anew, should it not come.
    Awaited(Early, Launch),
    /// It is made now.
    New(Launch),
}

impl Source {
    async fn ready(self) -> Result<Ready, LaunchError> {
        match self {
            Source::Early(ready) => Ok(ready),
            Source::New(launch) => launch.ready().await,
            Source::Awaited(early, launch) => match early.ready.await.ok().and_then(waiting) {
                Some(ready) => Ok(ready),
                None => launch.ready().await,
            },
        }
    }
}

/// The trampoline, if it was made and waits.
fn waiting(made: Result<Ready, LaunchError>) -> Option<Ready> {
    let ready = made.ok()?;
    match ready.identity.still_alive() {
        Ok(Some(_)) => Some(ready),
        // Its end may have been reaped before anybody knew what it was for.
        _ => {
            ready.discard();
            None
        }
    }
}

impl Early {
    /// What has come of it by now; itself where that is not known yet.
    fn by_now(mut self) -> Result<Option<Ready>, Early> {
        match Pin::new(&mut self.ready).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(made) => Ok(made.ok().and_then(waiting)),
            Poll::Pending => Err(self),
        }
    }

    fn discard(self) {
        tokio::spawn(async move {
            if let Ok(Ok(ready)) = self.ready.await {
                ready.discard();
            }
        });
    }
}

impl Ready {
    /// Ends it. Nothing was started.
    fn discard(self) {
        drop(self.pending);
        drop_cgroup(self.cgroup);
    }
}

impl Supervisor {
    /// Begins the launch of the instance that comes after the one that is being stopped, where that is sure to come.
    pub(super) fn launch_early(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let comes = matches!(service.machine.phase, Phase::Stopping(Next::Again))
            && service.machine.restart.is_some()
            && service.machine.beside.is_none()
            && service.early.is_none()
            // Its listeners are bound by the clean.
            && !service.spec.sockets.iter().any(is_activated);
        // What is left of descriptors is for what runs.
        if !comes || limits::shortage().is_some() {
            return;
        }
        let (spec, generation) = (service.spec.clone(), service.generation + 1);
        let launch = self.launch(name, &spec, generation, Vec::new());
        let early = Early { generation, spec, ready: tokio::spawn(launch.ready()) };
        if let Some(service) = self.services.get_mut(name) {
            service.early = Some(early);
        }
    }

    /// Ends what was begun early: it is not wanted any more.
    pub(super) fn forget_early(&mut self, name: &Arc<str>) {
        if let Some(early) = self.services.get_mut(name).and_then(|service| service.early.take()) {
            early.discard();
        }
    }

    /// With the listeners that are handed over.
    fn launch_now(&mut self, name: &Arc<str>, spec: &Spec, generation: u64, beside: bool) -> Launch {
        let (listen, listeners) = match self.listeners_of(name, beside) {
            Ok(handed) => (Ok(()), handed),
            Err(why) => (Err(why), Vec::new()),
        };
        let (listen_plan, listeners): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
        let launch = self.launch(name, spec, generation, listeners);
        let plan = listen.and(launch.plan).map(|plan| ExecPlan { listeners: listen_plan, ..plan });
        Launch { plan, ..launch }
    }

    fn launch(&mut self, name: &Arc<str>, spec: &Spec, generation: u64, listeners: Vec<Arc<Held>>) -> Launch {
        let mark = tree::mark(&self.tag, name, generation);
        let notify = self.notify.as_ref().map(Notify::address);
        Launch {
            plan: exec_plan(spec, &self.root, generation, &mark, notify),
            files: self.log_files(name, spec).map_err(|e| e.to_string()),
            cgroups: self.cgroups.as_ref().ok().cloned(),
            template: self.template.clone(),
            name: name.clone(),
            generation,
            listeners,
        }
    }

    /// Spawns the service's own instance, or one `beside` it.
    pub(super) fn spawn(&mut self, name: &Arc<str>, beside: bool) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.generation += 1;
        let generation = service.generation;
        if beside {
            service.second.notified = false;
            service.second.sockets = declared(&service.spec, &self.root, &[]);
        } else {
            (service.notified, service.current) = (false, generation);
            service.sockets.iter_mut().for_each(Socket::forget);
        }
        let sockets = if beside { &mut service.second.sockets } else { &mut service.sockets };
        own_paths(sockets, &service.spec, &self.root, generation);
        if !beside {
            self.take_absence(name);
        }
        let Some(service) = self.services.get_mut(name) else { return };
        let (spec, spec_json) = (service.spec.clone(), service.spec_json.clone());
        let fits =
            |early: &Early| !beside && early.generation == generation && Arc::ptr_eq(&early.spec, &spec);
        let early = match service.early.take() {
            Some(early) if fits(&early) => early.by_now(),
            Some(early) => {
                early.discard();
                Ok(None)
            }
            None => Ok(None),
        };
        let source = match early {
            Ok(Some(ready)) => Source::Early(ready),
            Err(early) => Source::Awaited(early, self.launch_now(name, &spec, generation, beside)),
            Ok(None) => Source::New(self.launch_now(name, &spec, generation, beside)),
        };
        let mark = tree::mark(&self.tag, name, generation);
        let store = self.store.clone();
        let name_owned = name.clone();
        self.spawning += 1;
        self.effect(name, generation, async move {
            let launched = async {
                let Ready { pending, identity, cgroup } = source.ready().await?;
                let started = SystemTime::now();
                let record = InstanceRecord {
                    generation,
                    identity: identity.clone(),
                    cgroup: cgroup.clone(),
                    spec_json: spec_json.to_string(),
                    started: since_epoch(started),
                    begun: false,
                };
                let write =
                    Write::Instance { name: name_owned.to_string(), record: Box::new(record), beside };
                // A disk that is full is no reason to leave clients without their service: the mark in its
                // environment names the instance to a later recovery.
                let unwritten = store.submit(write).done().await.err();
                pending.go().await?;
                // Nobody waits for it: until it is written, an instance that has ended is taken for one that never began.
                drop(store.submit(Write::Begun { name: name_owned.to_string(), generation }));
                let tree = Tree::new(identity.clone(), mark, cgroup);
                Ok((
                    Instance { generation, identity, tree, spec, started, main_lives: true, begun: true },
                    unwritten,
                ))
            };
            match launched.await {
                Ok((instance, unwritten)) => Outcome::Spawned(Box::new(instance), unwritten),
                Err(e) => {
                    forget(&store, &name_owned, generation).await;
                    match e {
                        LaunchError::Refused(why) => Outcome::SpawnFailed { why, transient: false },
                        LaunchError::Short(why) => Outcome::SpawnFailed { why, transient: true },
                        LaunchError::Spawn(e) => Outcome::SpawnFailed {
                            transient: e.transient(),
                            why: format!("{e}; {}", e.help()),
                        },
                    }
                }
            }
        });
    }
}

/// Removes a cgroup that no instance came to be in.
fn drop_cgroup(path: Option<PathBuf>) {
    if let Some(path) = path {
        tokio::spawn(async move {
            if let Err(e) = cgroup::remove(&path).await {
                tracing::debug!("{e}");
            }
        });
    }
}

async fn forget(store: &Store, name: &str, generation: u64) {
    // Nothing lives: a record that stays is found dead by the next recovery.
    let _ = store.submit(Write::InstanceGone { name: name.to_owned(), generation }).done().await;
}

fn exec_plan(
    spec: &Spec,
    root: &Path,
    generation: u64,
    mark: &str,
    notify: Option<&str>,
) -> Result<ExecPlan, String> {
    let user = users::resolve(spec.user.as_deref(), spec.group.as_deref()).map_err(|e| e.to_string())?;
    let env = spec.environment(root, generation).map_err(|e| e.to_string())?;
    let notify = notify.filter(|_| spec.ready.notify);
    Ok(ExecPlan {
        argv: spec.argv(root, generation).map_err(|e| e.to_string())?,
        env: spawn::base_env(&env, user.as_ref(), mark, notify),
        cwd: spec.cwd.clone(),
        ids: user.map(|u| u.ids),
        umask: spec.umask,
        cgroup: None,
        nofile_soft: limits::original_nofile(),
        listeners: Vec::new(),
    })
}
