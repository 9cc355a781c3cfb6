//! The machine's actions, performed; and what they come back with.
//!
//! Order that matters: an effect waits until the intent that led to it is in the store. A spawn is three
//! steps: fork the trampoline (which waits), record the instance, let it exec. A daemon that dies between
//! two of them leaves either a trampoline that ends by itself or an instance that the store names.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::activation;
use super::early::{Early, HeadStart};
use super::publish::remove_dead;
use super::service::{CleanReport, Instance, Service};
use super::socket::{Socket, declared};
use super::sweep::{Sweep, SweepError};
use super::{Message, Supervisor};
use crate::core::machine::{Event, Next, Phase, Sign};
use crate::store::{Ack, StoreError, Write};
use crate::sys::limits as sys_limits;
use crate::sys::reaper::Exit;
use crate::sys::tree::Tree;

/// How an effect ended.
pub enum Outcome {
    /// The way is free.
    Cleaned(CleanReport),
    /// It is not.
    CleanFailed(CleanReport, SweepError),
    /// An instance was recorded (or could not be, and why) and let go.
    Spawned(Box<Instance>, Option<StoreError>),
    /// None was.
    SpawnFailed {
        /// Why, and what to do.
        why: String,
        /// It may pass by itself.
        transient: bool,
    },
    /// The main process of an adopted instance ended, with its status where the kernel tells it.
    AdoptedExit(Option<ExitStatus>),
    /// No process of the instance lives.
    TreeGone,
    /// Nobody needs the instance any more, or its time is up.
    Drained,
    /// The intent could not be written.
    Unwritten(StoreError),
}

impl Outcome {
    fn of_clean((report, result): (CleanReport, Result<(), SweepError>)) -> Outcome {
        match result {
            Ok(()) => Outcome::Cleaned(report),
            Err(e) => Outcome::CleanFailed(report, e),
        }
    }
}

/// A clean may wait, for a process to end or a disk: on a thread that may.
async fn prepare(plan: activation::Plan) -> Outcome {
    match tokio::task::spawn_blocking(move || activation::prepare(plan)).await {
        Ok(done) => Outcome::of_clean(done),
        Err(e) => Outcome::CleanFailed(CleanReport::default(), SweepError::Task(e.to_string())),
    }
}

/// How long the parent of an adopted process may take to reap it: the kernel tells the status only then.
const EXIT_PATIENCE: Duration = Duration::from_millis(500);

/// How long what is left of an instance stays, while the next one is being started.
const NEXT_FIRST: Duration = Duration::from_millis(20);

impl Supervisor {
    /// Runs an effect beside the task, after the intent that led to it is in the store.
    pub(super) fn effect<F>(&mut self, name: &Arc<str>, generation: u64, effect: F)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let intent = self.services.get_mut(name).and_then(|s| s.intent.take());
        let (name, sender) = (name.clone(), self.sender.clone());
        tokio::spawn(async move {
            if let Some(Err(e)) = written(intent).await {
                // The work goes on with what is known; the trouble is told.
                let _ = sender.send(Message::Effect(name.clone(), generation, Outcome::Unwritten(e)));
            }
            let outcome = effect.await;
            let _ = sender.send(Message::Effect(name, generation, outcome));
        });
    }

    pub(super) fn clean(&mut self, name: &Arc<str>, force: bool) {
        self.release_unwanted(name);
        let Some(service) = self.services.get_mut(name) else { return };
        let spec = service.spec.clone();
        // The next instance is judged by the spec that it gets.
        let past: Vec<_> = service.sockets.iter().filter_map(Socket::past).collect();
        let sockets = declared(&spec, &self.root, &service.sockets);
        let old = std::mem::replace(&mut service.sockets, sockets);
        self.watch_changed |= old.iter().map(|s| &s.path).ne(service.sockets.iter().map(|s| &s.path));
        let mut plan = Sweep::plan(&spec, &self.root, &self.tag, past, force);
        let early = service.early.as_ref().filter(|early| early.is_for(&spec));
        // Everything else is ready: it goes without a change of thread where it can.
        let at_once = early.is_some();
        plan.is_foreseen(early.is_some_and(Early::alone));
        let generation = service.generation;
        let plan = self.activation_plan(name, plan, false);
        self.record_undeclared(name, &old);
        self.effect(name, generation, async move {
            if let Some(short) = sys_limits::shortage() {
                return Outcome::CleanFailed(CleanReport::default(), SweepError::Shortage(short));
            }
            match at_once.then(|| plan.run_if_clear()).flatten() {
                Some(done) => Outcome::of_clean(done),
                None => prepare(plan).await,
            }
        });
    }

    /// Makes way for a second instance: nothing of the one that serves is touched.
    pub(super) fn clean_beside(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let generation = service.generation;
        let plan = Sweep::plan(&service.spec, &self.root, &self.tag, Vec::new(), false);
        let plan = self.activation_plan(name, plan, true);
        self.effect(name, generation, prepare(plan));
    }

    /// Takes the stop signal to the main process, or to all that is left where the main process is gone,
    /// and waits for the whole tree.
    pub(super) fn signal(&mut self, name: &Arc<str>) {
        let head_start = self.launch_early(name);
        // What goes now is no loss.
        self.drop_pins(name);
        // What it leaves behind is known for its own while it lives.
        for socket in self.services.get(name).into_iter().flat_map(|service| &service.sockets) {
            if let (Some(witness), Some(listener)) = (&socket.witness, socket.known) {
                self.auditor.vouch(witness, listener);
            }
        }
        self.foresee_clean(name);
        self.signal_instance(name, false, head_start);
    }

    pub(super) fn signal_instance(&mut self, name: &Arc<str>, second: bool, head_start: HeadStart) {
        let Some(instance) = self.instance(name, second) else {
            let event = if second { Event::Beside(Sign::Gone) } else { Event::TreeGone };
            self.queue.push_back((name.clone(), event));
            return;
        };
        let (tree, stop, generation) =
            (instance.tree.clone(), instance.spec.stop.clone(), instance.generation);
        self.effect(name, generation, async move {
            head_start.over(stop.timeout).await;
            if let Err(e) = tree.stop(stop.signal).await {
                // It stays; SIGKILL follows when the stop's time is up.
                tracing::warn!("stop signal: {e}");
                tree.gone().await;
            }
            Outcome::TreeGone
        });
    }

    /// SIGKILL to the whole tree.
    pub(super) fn kill(&mut self, name: &Arc<str>, second: bool) {
        let Some(instance) = self.instance(name, second) else { return };
        let (tree, generation) = (instance.tree.clone(), instance.generation);
        self.effect(name, generation, async move {
            tree.kill().await;
            Outcome::TreeGone
        });
    }

    /// Waits for the end of an adopted main process: no SIGCHLD tells of it.
    pub(super) fn adopt(&mut self, name: &Arc<str>, second: bool) {
        let Some(instance) = self.instance(name, second) else { return };
        let (identity, generation) = (instance.identity.clone(), instance.generation);
        if instance.main_lives {
            self.effect(name, generation, async move {
                Outcome::AdoptedExit(identity.ended(EXIT_PATIENCE).await)
            });
        }
    }

    pub(super) fn say_unkillable(&mut self, name: &Arc<str>) {
        if let Some(service) = self.services.get_mut(name)
            && let Some(instance) = &service.instance
        {
            let pids = instance.tree.pids_now();
            service.trouble = Some(format!(
                "still there after SIGKILL: {pids:?}; a process in an uninterruptible wait (state D in ps) ends when its device or mount answers"
            ));
        }
    }

    pub(super) fn on_outcome(&mut self, name: &Arc<str>, generation: u64, outcome: Outcome) {
        let spawned = matches!(outcome, Outcome::Spawned(..) | Outcome::SpawnFailed { .. });
        let mut spawned_pid = None;
        let Some(service) = self.services.get_mut(name) else { return };
        let of = |instance: &Option<Instance>| instance.as_ref().is_some_and(|i| i.generation == generation);
        if of(&service.second.instance)
            && matches!(outcome, Outcome::TreeGone | Outcome::Drained | Outcome::AdoptedExit(_))
        {
            return self.second_outcome(name, outcome);
        }
        if service.generation != generation && !of(&service.instance) {
            return;
        }
        let second = Supervisor::is_for_second(service);
        let event = match outcome {
            Outcome::Unwritten(e) => {
                self.troubles.insert("store", e.to_string());
                return;
            }
            Outcome::Cleaned(report) => {
                service.cleaned.removed.extend(report.removed);
                service.cleaned.killed.extend(report.killed);
                self.keep_listeners(name, report.listeners);
                Event::Cleaned
            }
            Outcome::CleanFailed(report, e) => {
                service.cleaned.removed.extend(report.removed);
                service.cleaned.killed.extend(report.killed);
                let (why, transient) = match &e {
                    SweepError::Shortage(_) => (e.to_string(), true),
                    _ => sys_limits::with_shortage(e.to_string()),
                };
                *service.why(second) = Some(why);
                Event::CleanFailed { transient }
            }
            Outcome::Spawned(instance, unwritten) => {
                match unwritten {
                    Some(e) => self.troubles.insert("store", e.to_string()),
                    None => self.troubles.remove("store"),
                };
                if !std::mem::take(&mut service.fresh_start) {
                    service.restarts += 1;
                }
                let now = Some(Instant::now());
                spawned_pid = Some(instance.identity.pid);
                self.mains.insert(instance.identity.pid, name.clone());
                if second {
                    (service.second.spawned, service.second.instance) = (now, Some(*instance));
                } else {
                    (service.times.spawned, service.instance) = (now, Some(*instance));
                }
                Event::Spawned
            }
            Outcome::SpawnFailed { why, transient } => {
                self.dirty.insert(name.clone(), None);
                let (why, short) = sys_limits::with_shortage(why);
                *service.why(second) = Some(why);
                Event::SpawnFailed { transient: transient || short }
            }
            Outcome::AdoptedExit(status) => {
                let Some(pid) = service.instance.as_ref().map(|i| i.identity.pid) else { return };
                main_ended(service, pid, status);
                self.dirty.insert(name.clone(), None);
                Event::Exited { success: status.is_some_and(|s| s.success()) }
            }
            Outcome::Drained => return,
            Outcome::TreeGone => {
                if service.instance.as_ref().is_none_or(|i| i.generation != generation) {
                    return;
                }
                self.tree_gone(name);
                Event::TreeGone
            }
        };
        self.queue.push_back((name.clone(), event));
        if spawned {
            self.spawning -= 1;
            if let Some(pid) = spawned_pid
                && let Some(exit) = self.early_exits.remove(&pid)
            {
                self.mains.remove(&pid);
                // In order: the machine sees the spawn first.
                self.settle();
                self.on_main_exit(name, exit);
            }
            if self.spawning == 0 {
                self.early_exits.clear();
            }
        }
    }

    fn tree_gone(&mut self, name: &Arc<str>) {
        self.drop_pins(name);
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(instance) = service.instance.take() else { return };
        self.mains.remove(&instance.identity.pid);
        service.old_gone.get_or_insert_with(Instant::now);
        service.times.serving = None;
        service.sockets.iter_mut().for_each(Socket::is_nobodys);
        // A dead socket's file may be removed and its file system unmounted; but for the clean that follows at once.
        let again =
            matches!(service.machine.phase, Phase::Stopping(Next::Again) | Phase::Killing(Next::Again));
        if !again {
            service.drop_witnesses();
        }
        // The clean before the next one knows only what that declares.
        let paths: Vec<_> =
            service.spec.sockets.iter().map(|socket| service.spec.socket_path(&self.root, socket)).collect();
        let dropped = service.sockets.iter().filter(|s| !paths.contains(&s.path));
        let names = dropped.filter_map(|s| Some([s.own.as_ref()?.path.clone(), s.path.clone()]));
        remove_dead(names.flatten().collect());
        if again {
            tokio::spawn(async move {
                // The next instance first.
                tokio::time::sleep(NEXT_FIRST).await;
                drop_cgroup(instance.tree);
            });
        } else {
            drop_cgroup(instance.tree);
        }
        // Nobody waits for it: of an instance that the store still names, a recovery finds that it has ended.
        let gone = Write::InstanceGone { name: name.to_string(), generation: instance.generation };
        self.store.note(gone);
        self.dirty.insert(name.clone(), None);
    }

    fn second_outcome(&mut self, name: &Arc<str>, outcome: Outcome) {
        match outcome {
            Outcome::Drained => self.queue.push_back((name.clone(), Event::Beside(Sign::Drained))),
            Outcome::TreeGone => {
                self.second_gone(name);
                self.queue.push_back((name.clone(), Event::Beside(Sign::Gone)));
            }
            Outcome::AdoptedExit(status) => {
                let pid = self.instance(name, true).map_or(0, |i| i.identity.pid);
                let how = match status {
                    Some(status) => ended(pid, status),
                    None => format!("process {pid} ended"),
                };
                self.second_ended(name, how);
            }
            _ => {}
        }
    }

    fn instance(&self, name: &Arc<str>, second: bool) -> Option<&Instance> {
        let service = self.services.get(name)?;
        if second { service.second.instance.as_ref() } else { service.instance.as_ref() }
    }

    pub(super) fn on_main_exit(&mut self, name: &Arc<str>, exit: Exit) {
        if self.instance(name, true).is_some_and(|i| i.identity.pid == exit.pid) {
            return self.second_ended(name, ended(exit.pid, exit.status));
        }
        let Some(service) = self.services.get_mut(name) else { return };
        if service.instance.is_none() {
            return;
        }
        main_ended(service, exit.pid, Some(exit.status));
        self.dirty.insert(name.clone(), None);
        self.queue.push_back((name.clone(), Event::Exited { success: exit.status.success() }));
    }
}

/// Removes the cgroup of an instance that is gone; the kernel notices that it is empty a little later.
pub(super) fn drop_cgroup(tree: Tree) {
    tokio::spawn(async move {
        if let Err(e) = tree.remove_cgroup().await {
            tracing::debug!("{e}");
        }
    });
}

/// How a process ended, in words.
fn ended(pid: i32, status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("process {pid} exited with status {code}"),
        (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("process {pid} was ended by {signal}"),
            Err(_) => format!("process {pid} was ended by signal {signal}"),
        },
        (None, None) => format!("process {pid} ended"),
    }
}

/// The main process is gone: notes how, unless it was told to go. What it left is ended too: a program that puts itself in
/// the background exits with status 0 and leaves its child.
fn main_ended(service: &mut Service, pid: i32, status: Option<ExitStatus>) {
    let Some(instance) = &mut service.instance else { return };
    instance.main_lives = false;
    // Who else of the tree has its listeners is looked up anew.
    service.sockets.iter_mut().filter(|s| s.pid == Some(pid)).for_each(|s| s.pid = None);
    if matches!(service.machine.phase, Phase::Stopping(_) | Phase::Killing(_)) {
        return;
    }
    let Some(status) = status else {
        service.trouble = Some(format!("process {pid} ended, its exit status is not known: it was adopted"));
        return;
    };
    let unready = service.machine.phase == Phase::Verifying;
    let left = if status.success() { left_by(pid, &instance.tree) } else { None };
    let mut words = ended(pid, status);
    if unready {
        words += " before its sockets were ok";
    }
    if let Some(left) = &left {
        words += &format!(" and left {left}, ended with it");
    }
    if left.is_some() || status.success() && unready {
        words += "; a program that puts itself in the background must be told to stay in the foreground";
    }
    service.trouble = Some(words);
}

/// The processes that a main process left behind, in words.
fn left_by(main: i32, tree: &Tree) -> Option<String> {
    let pids: Vec<i32> = tree.pids_now().into_iter().filter(|pid| *pid != main).collect();
    match pids.as_slice() {
        [] => None,
        [only] => Some(format!("process {only}")),
        pids => Some(format!("{} processes", pids.len())),
    }
}

async fn written(intent: Option<Ack>) -> Option<Result<(), StoreError>> {
    match intent {
        Some(ack) => Some(ack.done().await),
        None => None,
    }
}

pub(super) fn since_epoch(time: SystemTime) -> i64 {
    super::clock::nanos(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
