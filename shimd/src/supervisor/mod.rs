//! The supervisor: one task that owns every service, feeds events to the machines and performs what they
//! answer.
//!
//! Events come from commands, effects, the reaper, the watcher, audits and timers; all of them are handled
//! one at a time, in the order in which they come. What takes long (a clean, a spawn's handshake, waiting
//! for a tree to be gone, an audit of many sockets) runs beside the task and comes back as a message.

mod activation;
mod audits;
mod clock;
mod commands;
mod control;
pub(crate) mod culprits;
mod dead;
mod doctor;
mod early;
mod effects;
pub(crate) mod ending;
mod events;
mod heal;
mod healing;
mod home;
mod launch;
mod log_files;
mod near;
pub(crate) mod patience;
pub(crate) mod pins;
pub(crate) mod prevention;
mod publish;
mod queues;
mod readiness;
mod reasons;
mod recovery;
mod register;
mod retire;
mod rolling;
mod rollout;
mod second;
mod service;
mod settling;
mod socket;
mod starting;
mod step;
mod sweep;
mod waiters;
mod watching;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use shimd_api::paths::Home;
use socket_audit::{Auditor, ListenerId};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::core::machine::{Event, Timer};
use crate::logs::Logs;
use crate::server::ControlHandle;
use crate::store::{Loaded, Store};
use crate::sys::blame::{Blame, BlameError};
use crate::sys::cgroup::Cgroups;
use crate::sys::identity::boot_id;
use crate::sys::lock::HomeLock;
use crate::sys::notify::{self, Notify};
use crate::sys::reaper::{self, Exit};
use crate::sys::template::Template;
use crate::sys::timer::FineTimer;
use crate::sys::tree;
use crate::sys::watch::Watcher;

use activation::Activation;
use audits::AuditThread;
use clock::{Alarm, Clock};
use control::Control;
use effects::Outcome;
use events::Events;
use pins::Pins;
use prevention::Guards;
use rollout::Rollout;
use service::Service;
use waiters::Waiter;

pub use commands::{Command, Handle};
pub use pins::nobody_listens;
pub use socket::lstat_id;

/// How often every declared socket is audited, whatever the events said.
const PERIOD: Duration = Duration::from_secs(5);
/// How long SIGKILL may take before it is sent again.
const KILL_AGAIN: Duration = Duration::from_secs(2);

/// What comes to the supervisor's task.
#[allow(clippy::large_enum_variant)] // a message lives for microseconds
pub enum Message {
    /// A request of a client.
    Command(Command),
    /// An effect ended: the service, its generation, and how.
    Effect(Arc<str>, u64, Outcome),
    /// The audit thread's answer.
    Audited(audits::Report),
    /// The listeners that somebody waits for, and how long it took to find out.
    Waiting(Vec<ListenerId>, Duration),
    /// A client wants to hear of what happens from now on.
    Follow(Box<RawValue>, oneshot::Sender<events::Following>),
    /// `log.stream`: its params, and where its answer goes.
    ReadLog(Box<RawValue>, oneshot::Sender<events::Following>),
    /// Somebody removed or replaced something that matters.
    Deeds,
    /// Specs that are in the store.
    Stored(Vec<(shimd_api::spec::Spec, Arc<str>)>, oneshot::Sender<()>),
}

/// The supervisor's task and all it owns.
pub struct Supervisor {
    services: BTreeMap<Arc<str>, Service>,
    /// Who waits for whom, to tell a waiting service when its dependency has moved.
    dependents: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Which services have a socket in a watched folder.
    folders: HashMap<PathBuf, BTreeSet<Arc<str>>>,
    mains: HashMap<i32, Arc<str>>,
    /// Exits that came before their spawn was reported; kept only while a spawn is in flight.
    early_exits: HashMap<i32, Exit>,
    spawning: usize,
    clock: Clock,
    timer: FineTimer,
    waiters: Vec<Waiter>,
    /// Who is being restarted, and who is to be.
    rollout: Rollout,
    queue: VecDeque<(Arc<str>, Event)>,
    /// Services whose sockets are to be audited before the next wait.
    dirty: audits::Dirty,
    /// Instances on their way that the thread is to look at.
    close_looks: audits::Dirty,
    auditor: Auditor,
    /// What its last dump of all sockets took.
    dump_took: Duration,
    audit_thread: AuditThread,
    /// Counts the periods, so that ownership is looked up anew now and then.
    period: u64,
    next_period: Instant,
    next_queues: Instant,
    store: Store,
    watcher: Watcher,
    watch_changed: bool,
    /// Who does what to dentries; or why that cannot be told.
    blame: Result<Blame, BlameError>,
    /// What is marked for it.
    blamed: culprits::Wanted,
    unexplained: Vec<culprits::Unexplained>,
    /// Whether there are descriptors enough for a hold on each socket's dentry.
    holds: bool,
    pins: Pins,
    /// Locks on the folders that a cleaner may visit.
    guards: Guards,
    /// Listeners that the daemon keeps for services.
    activation: Activation,
    /// Services with a lost socket that is not put back yet.
    waiting_to_heal: BTreeSet<Arc<str>>,
    /// What was just put back is being looked at.
    healing: bool,
    events: Events,
    reaper: mpsc::Receiver<Exit>,
    /// What makes trampolines.
    template: Arc<Template>,
    notify: Option<Notify>,
    /// Or why process trees have none.
    cgroups: Result<Cgroups, String>,
    control: Control,
    /// Where what clients wait for is done that is none of the supervisor's own work.
    clients: Runtime,
    logs: Logs,
    home: Home,
    /// Shared with whoever holds it until the last event is kept.
    lock: Arc<HomeLock>,
    root: PathBuf,
    /// The home, short: in marks and cgroup names.
    tag: String,
    boot_id: String,
    began: Instant,
    troubles: BTreeMap<&'static str, String>,
    sender: mpsc::UnboundedSender<Message>,
    inbox: mpsc::UnboundedReceiver<Message>,
    closing: Option<commands::Closing>,
}

/// What the supervisor is built from.
pub struct Parts {
    /// The home, its folders made, its lock held.
    pub home: Home,
    /// That lock.
    pub lock: Arc<HomeLock>,
    /// Where sockets declared by a basename live.
    pub root: PathBuf,
    /// The store.
    pub store: Store,
    /// What it held.
    pub loaded: Loaded,
    /// The control socket.
    pub control: ControlHandle,
    /// Descriptors that the service manager has handed over, with their names.
    pub inherited: Vec<(String, OwnedFd)>,
    /// The server's runtime.
    pub clients: Runtime,
}

/// Why the supervisor cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel could not be asked about sockets.
    #[error("cannot audit sockets: {0}")]
    Audit(#[from] socket_audit::AuditError),
    /// Children could not be waited for.
    #[error(transparent)]
    Reaper(#[from] reaper::ReaperError),
    /// No thread could be started.
    #[error("cannot start a thread: {0}; raise the limit of processes (ulimit -u)")]
    Thread(std::io::Error),
}

impl Supervisor {
    /// Puts the parts together, within a tokio runtime; the store's services are found again when it runs.
    pub fn build(parts: Parts) -> Result<(Supervisor, Handle), BuildError> {
        let Parts { home, lock, root, store, loaded, control, inherited, clients } = parts;
        let (sender, inbox) = mpsc::unbounded_channel();
        let tag = tree::home_tag(&home.run);
        let mut troubles = BTreeMap::new();
        let cgroups = Cgroups::probe(&tag).map_err(|e| e.to_string());
        if let Err(e) = &cgroups {
            tracing::info!("process trees without cgroups: {e}");
        }
        let notify = Notify::bind(&tag).map_err(|e| troubles.insert("notify", e.to_string())).ok();
        let mut supervisor = Supervisor {
            services: BTreeMap::new(),
            dependents: HashMap::new(),
            folders: HashMap::new(),
            mains: HashMap::new(),
            early_exits: HashMap::new(),
            spawning: 0,
            clock: Clock::default(),
            timer: FineTimer::start(),
            waiters: Vec::new(),
            rollout: Rollout::new(rolling::bound()),
            queue: VecDeque::new(),
            dirty: audits::Dirty::new(),
            close_looks: audits::Dirty::new(),
            auditor: Auditor::new()?,
            dump_took: Duration::ZERO,
            audit_thread: AuditThread::start(sender.clone())?,
            period: 0,
            next_period: Instant::now() + PERIOD,
            next_queues: Instant::now(),
            store,
            watcher: Watcher::new(),
            watch_changed: false,
            blame: Blame::start(deeds_teller(sender.clone())),
            blamed: culprits::Wanted::new(),
            unexplained: Vec::new(),
            holds: true,
            pins: Pins::new(&root, &tag),
            guards: Guards::new(),
            activation: Activation::new(std::env::var_os("NOTIFY_SOCKET").as_deref()),
            waiting_to_heal: BTreeSet::new(),
            healing: false,
            events: Events::after(loaded.last_event),
            reaper: reaper::start()?,
            template: Arc::new(Template::start()),
            notify,
            cgroups,
            control: Control::new(control),
            clients,
            logs: Logs::start(home.logs()),
            boot_id: boot_id().to_owned(),
            home,
            lock,
            root,
            tag,
            began: Instant::now(),
            troubles,
            sender: sender.clone(),
            inbox,
            closing: None,
        };
        if let Ok(cgroups) = &supervisor.cgroups {
            // What spawns that failed, or a daemon that was killed, have left empty.
            cgroups.sweep();
        }
        supervisor.load(loaded);
        supervisor.take_listeners_back(inherited);
        let store = supervisor.store.clone();
        Ok((supervisor, Handle::new(sender, store)))
    }

    /// Runs until it is told to shut down.
    pub async fn run(mut self) {
        self.recover();
        self.activation.say_ready();
        self.sweep_pins();
        let mut changes = Vec::new();
        loop {
            self.settle();
            if self.closed() {
                return;
            }
            let until = self.next_period.min(self.next_queues);
            let until = self.clock.next().map_or(until, |at| at.min(until));
            let until = self.control.next.map_or(until, |at| at.min(until));
            let until = self.next_progress().map_or(until, |at| at.min(until));
            tokio::select! {
                biased;
                Some(exit) = self.reaper.recv() => self.on_exit(exit),
                () = self.watcher.next_batch(&mut changes) => self.on_changes(&mut changes),
                Some(message) = self.inbox.recv() => self.on_message(message),
                Some(note) = next_note(self.notify.as_ref()) => self.on_note(&note),
                () = self.timer.until(until) => self.on_time(),
            }
            // What has queued up meanwhile goes into the same audit.
            for _ in 0..256 {
                match self.inbox.try_recv() {
                    Ok(message) => self.on_message(message),
                    Err(_) => break,
                }
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Command(command) => self.on_command(command),
            Message::Effect(name, generation, outcome) => self.on_outcome(&name, generation, outcome),
            Message::Audited(report) => self.on_report(report),
            Message::Waiting(listeners, took) => self.on_waiting(&listeners, took),
            Message::Follow(params, reply) => self.follow_events(&params, reply),
            Message::ReadLog(params, reply) => self.read_log(&params, reply),
            Message::Deeds => self.on_deeds(),
            Message::Stored(specs, done) => {
                self.stored(specs);
                let _ = done.send(());
            }
        }
    }

    /// Feeds what is queued, audits what is dirty, answers who waits; until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.settle_queue();
            self.audit_dirty();
            self.advance_rollout();
            if self.queue.is_empty() {
                break;
            }
        }
        if std::mem::take(&mut self.watch_changed) {
            self.watch_folders();
        }
        self.answer_waiters();
    }

    /// Feeds what is queued.
    fn settle_queue(&mut self) {
        while let Some((name, event)) = self.queue.pop_front() {
            self.step(&name, event);
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if self.control.next.is_some_and(|at| at <= now) {
            self.mind_control();
        }
        while let Some((name, alarm)) = self.clock.due(now) {
            match alarm {
                Alarm::Machine(timer) => {
                    if timer == Timer::Kill {
                        self.say_unkillable(&name);
                    }
                    self.queue.push_back((name, Event::Timer(timer)));
                }
                Alarm::Look => {
                    self.look_again(&name);
                    self.dirty.insert(name, None);
                }
                Alarm::Second => self.look_at_second(&name),
                Alarm::Queue => {
                    self.dirty.insert(name, None);
                }
            }
        }
        if now >= self.next_queues {
            self.look_for_waiting();
        }
        if now >= self.next_period {
            self.next_period = now + PERIOD;
            self.mind_home();
            self.mind_control();
            self.renew_control_pin();
            self.mind_guards();
            if self.period == 0 {
                // Also of what a recovery has ended by now.
                self.sweep_pins();
            }
            self.audit_all();
        }
    }

    fn on_exit(&mut self, exit: Exit) {
        match self.mains.remove(&exit.pid) {
            Some(name) => self.on_main_exit(&name, exit),
            None if self.spawning > 0 => {
                self.early_exits.insert(exit.pid, exit);
            }
            None => {}
        }
    }
}

/// Tells the supervisor's task of new deeds, once for as many as come while it is at work.
fn deeds_teller(sender: mpsc::UnboundedSender<Message>) -> impl Fn() + Send + 'static {
    move || {
        let _ = sender.send(Message::Deeds);
    }
}

async fn next_note(socket: Option<&Notify>) -> Option<notify::Message> {
    match socket {
        Some(socket) => socket.recv().await.ok(),
        None => std::future::pending().await,
    }
}
