//! From a plan to an instance.
//!
//! A spawn is three steps: the trampoline is made and becomes all that the plan says, the instance is recorded, the
//! trampoline execs. The first two may have been taken [early](super::early).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use shimd_api::spec::Spec;

use super::Supervisor;
use super::early::Early;
use super::effects::{Outcome, since_epoch};
use super::publish::own_paths;
use super::service::Instance;
use super::socket::{Socket, declared};
use super::sweep::SweepError;
use crate::store::{InstanceRecord, Store, StoreError, Write};
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
pub(super) struct Launch {
    name: Arc<str>,
    generation: u64,
    files: Result<(std::fs::File, std::fs::File), String>,
    plan: Result<ExecPlan, String>,
    listeners: Vec<Arc<Held>>,
    cgroups: Option<Cgroups>,
    template: Arc<Template>,
}

/// A trampoline that waits for the word.
pub struct Ready {
    pending: Pending,
    identity: Identity,
    cgroup: Option<PathBuf>,
    /// The store names it.
    pub recorded: bool,
}

/// Why there is no instance.
pub enum LaunchError {
    /// The spec asks for what cannot be.
    Refused(String),
    /// Something is short, and may not be for long.
    Short(String),
    /// A step of the spawn.
    Spawn(SpawnError),
}

impl From<SpawnError> for LaunchError {
    fn from(e: SpawnError) -> Self {
        LaunchError::Spawn(e)
    }
}

impl Launch {
    pub(super) async fn ready(self) -> Result<Ready, LaunchError> {
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
        Ok(Ready { pending, identity, cgroup, recorded: false })
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
            Source::Awaited(early, launch) => match early.ready().await {
                Some(ready) => Ok(ready),
                None => launch.ready().await,
            },
        }
    }
}

impl Ready {
    /// Whether it still waits for the word.
    pub fn waits(&self) -> bool {
        matches!(self.identity.still_alive(), Ok(Some(_)))
    }

    /// Ends it. Nothing was started.
    pub fn discard(self) {
        drop(self.pending);
        drop_cgroup(self.cgroup);
    }

    /// Has the store name it; `beside`: as [`Write::Instance`].
    pub async fn record(
        &self,
        store: &Store,
        name: &str,
        generation: u64,
        spec_json: &str,
        beside: bool,
    ) -> Result<(), StoreError> {
        let record = Box::new(InstanceRecord {
            generation,
            identity: self.identity.clone(),
            cgroup: self.cgroup.clone(),
            spec_json: spec_json.to_owned(),
            started: since_epoch(SystemTime::now()),
            begun: false,
        });
        store.submit(Write::Instance { name: name.to_owned(), record, beside }).done().await
    }
}

impl Supervisor {
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

    pub(super) fn launch(
        &mut self,
        name: &Arc<str>,
        spec: &Spec,
        generation: u64,
        listeners: Vec<Arc<Held>>,
    ) -> Launch {
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
        // The next number is that of the launch which was begun early, where that is of use.
        let early = self.take_early(name, beside);
        let Some(service) = self.services.get_mut(name) else { return };
        if early.is_none() {
            service.generation += 1;
        }
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
        let source = match early.map_or(Ok(None), Early::by_now) {
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
                let ready = source.ready().await?;
                // A disk that is full is no reason to leave clients without their service: the mark in its
                // environment names the instance to a later recovery.
                let unwritten = match ready.recorded {
                    true => None,
                    false => ready.record(&store, &name_owned, generation, &spec_json, beside).await.err(),
                };
                let started = SystemTime::now();
                let Ready { pending, identity, cgroup, .. } = ready;
                pending.go().await?;
                // Nobody waits for it: until it is written, an instance that has ended is taken for one that never began.
                let (name, at) = (name_owned.to_string(), since_epoch(started));
                store.note(Write::Begun { name, generation, started: at, beside });
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
