//! The loop: what comes from the keeper, from above, from the folders and from the clock goes into the table, and what
//! the table says is done.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use shimd_api::duration::format_duration;
use tokio::sync::Notify;

use super::args::Plan;
use super::keeper::{Keeper, Order, Said, Waited, descendants, kill_children, reap};
use super::notify::{Manager, Message, ReadyFd, Relay, parts};
use super::signals::Signals;
use super::sockets::Sockets;
use super::table::{Action, End, Event, FAULT, Phase, Table};
use super::{Fault, tell};
use crate::sys::watch::Watcher;

/// A signal waits so long before it is handed on: by then the keeper has it too, if it was sent to all of us.
const ASIDE: Duration = Duration::from_millis(10);

struct Turns<'a> {
    plan: &'a Plan,
    keeper: &'a Keeper,
    manager: &'a Manager,
    ready: Option<ReadyFd>,
    sockets: Sockets,
    table: Table,
    watcher: Watcher,
    generation: u32,
    deadline: Option<Instant>,
    /// Signals to be handed on, and when.
    signals: VecDeque<(Instant, i32)>,
    /// What STATUS= said last.
    status: String,
    end: Option<End>,
}

/// Runs the service to its end. `ready`: where a newline says that it is ready.
pub async fn run(
    plan: &Arc<Plan>,
    keeper: &Keeper,
    manager: &Manager,
    ready: Option<ReadyFd>,
) -> Result<End, Fault> {
    let io = |doing| move |e| Fault::Io(doing, e);
    let signals = Signals::open().map_err(io("read signals"))?;
    let from_keeper = keeper.listen().map_err(io("listen to the keeper"))?;
    let relay = match plan.notify {
        true => Some(Relay::bind(plan.wrap).map_err(io("listen for the service's READY=1"))?),
        false => None,
    };
    let seen = Arc::new(Notify::new());
    let deeds = seen.clone();
    let sockets = Sockets::new(plan)?;
    let mut watcher = Watcher::new();
    watcher.set(&sockets.folders());
    let table = Table::new(plan.notify);
    let mut turns = Turns {
        plan,
        keeper,
        manager,
        ready,
        sockets,
        table,
        watcher,
        generation: 0,
        deadline: None,
        signals: VecDeque::new(),
        status: String::new(),
        end: None,
    };
    turns.respawn();
    // While the service starts.
    turns.sockets.watch_doers(move || seen.notify_one());
    let mut events = Vec::new();
    loop {
        turns.work();
        if let Some(end) = turns.end {
            return Ok(end);
        }
        let next = turns.next();
        tokio::select! {
            signal = signals.next() => turns.on_signal(signal.map_err(io("read signals"))?),
            ready = from_keeper.readable() => {
                let mut ready = ready.map_err(io("listen to the keeper"))?;
                turns.hear();
                ready.clear_ready();
                // What came between the two is there still.
                turns.hear();
            }
            () = turns.watcher.next_batch(&mut events) => {
                for event in events.drain(..) {
                    turns.sockets.on_event(&event);
                }
            }
            () = deeds.notified() => turns.sockets.on_deeds(),
            message = next_message(relay.as_ref()) => turns.on_message(&message.map_err(io("read the service's messages"))?),
            () = until(next) => {}
        }
    }
}

async fn next_message(relay: Option<&Relay>) -> std::io::Result<Message> {
    match relay {
        Some(relay) => relay.next().await,
        None => pending().await,
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => pending().await,
    }
}

impl Turns<'_> {
    /// What is due.
    fn work(&mut self) {
        let now = Instant::now();
        while let Some((_, signal)) = self.signals.pop_front_if(|(at, _)| *at <= now) {
            self.order(Order::Forward { signal });
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.deadline = None;
            if self.table.phase() == Phase::Starting {
                let status = self.sockets.status();
                let limit = format_duration(self.plan.ready_timeout.unwrap_or_default());
                tell(format_args!("not ready within {limit}: {status}; ending the service"));
            }
            self.step(Event::Deadline);
        }
        if self.table.cares() && self.end.is_none() {
            let keeper = self.keeper.pid();
            let lost = self.sockets.look(&|| descendants(keeper));
            self.step(Event::Reachable(self.sockets.all_ok()));
            self.say_status();
            if lost {
                self.step(Event::Lost);
            }
        }
    }

    /// When something is due next.
    fn next(&self) -> Option<Instant> {
        let look = self.sockets.next_look().filter(|_| self.table.cares());
        let signal = self.signals.front().map(|(at, _)| *at);
        [look, signal, self.deadline].into_iter().flatten().min()
    }

    fn step(&mut self, event: Event) {
        for action in self.table.step(event, Instant::now()) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SayReady => self.say_ready(),
            Action::Unpin => self.sockets.unpin(),
            Action::Forward(signal) => self.signals.push_back((Instant::now() + ASIDE, signal)),
            Action::Stop => self.order(Order::Signal { signal: libc::SIGTERM }),
            Action::StopRest => self.order(Order::SignalRest { signal: libc::SIGTERM }),
            Action::KillAll => self.order(Order::KillAll),
            Action::Respawn => self.respawn(),
            Action::ArmReady => self.deadline = self.plan.ready_timeout.map(|after| Instant::now() + after),
            Action::ArmStop => self.deadline = Some(Instant::now() + self.plan.stop_timeout),
            Action::Disarm => self.deadline = None,
            Action::TellLimit => tell(format_args!(
                "too many restarts within a minute; giving up, the supervisor above decides"
            )),
            Action::End(end) => {
                self.sockets.end();
                self.end = Some(end);
            }
        }
    }

    fn respawn(&mut self) {
        if let Err(error) = self.sockets.sweep() {
            tell(format_args!("{error}"));
            return self.step(Event::Refused(FAULT));
        }
        self.generation += 1;
        self.sockets.begin(self.generation);
        self.order(Order::Spawn { generation: self.generation });
    }

    /// A keeper that is gone is found when it is heard next.
    fn order(&self, order: Order) {
        let _ = self.keeper.order(order);
    }

    fn hear(&mut self) {
        loop {
            match self.keeper.hear() {
                Ok(Some(said)) => self.on_said(said),
                Ok(None) => return,
                Err(_) if self.end.is_some() => return,
                Err(error) => {
                    tell(format_args!("{error}; ending the service"));
                    // Its orphans are ours.
                    kill_children();
                    self.sockets.end();
                    self.end = Some(End::With(FAULT));
                    return;
                }
            }
        }
    }

    fn on_said(&mut self, said: Said) {
        match said {
            Said::Spawned { .. } => self.step(Event::Spawned),
            Said::NotSpawned { errno } => {
                let errno = nix::errno::Errno::from_raw(errno);
                let program = self.plan.program().to_string_lossy();
                let (status, fix) = match errno {
                    nix::errno::Errno::ENOENT => (
                        127,
                        "install it, or correct its path (or the interpreter that its first line names)",
                    ),
                    _ => (126, "it must be a file that this user may execute"),
                };
                tell(format_args!("PROGRAM: cannot run {program}: {}; {fix}", errno.desc()));
                self.step(Event::Refused(status));
            }
            Said::Ended { status } => self.step(Event::Ended(status)),
            Said::Empty => self.step(Event::Empty),
            Said::Stopped { signal: libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU } => {
                // Whoever waits for us (a shell) is to see it too. SIGCONT to us, or to the service, ends it.
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
            }
            // By SIGSTOP: a debugger's matter.
            Said::Stopped { .. } => {}
        }
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            // The keeper is heard by its channel; what else is ours (as the first process of a container) is an orphan.
            libc::SIGCHLD => while matches!(reap(self.keeper.pid()), Waited::Ended { .. }) {},
            // At once: a second one does no harm.
            libc::SIGCONT => self.order(Order::Signal { signal }),
            _ => self.step(Event::Signal(signal)),
        }
    }

    fn on_message(&mut self, message: &Message) {
        let trusted = message.uid == geteuid().as_raw()
            || message.uid == 0
            || descendants(self.keeper.pid()).contains(&message.pid);
        if !trusted {
            return;
        }
        let parts = parts(&message.text, self.table.phase() == Phase::Up);
        if let Some(pid) = parts.main {
            self.order(Order::Main { pid });
        }
        if !parts.rest.is_empty() || !message.descriptors.is_empty() {
            self.say(&parts.rest, &message.descriptors);
        }
        if parts.ready {
            self.step(Event::ServiceReady);
        }
    }

    fn say_ready(&mut self) {
        self.say(b"READY=1\n", &[]);
        if let Some(ready) = self.ready.take() {
            ready.say();
        }
    }

    /// The manager sees how the sockets are; with `--notify` the service's own words are not talked over while all is well.
    fn say_status(&mut self) {
        let status = self.sockets.status();
        if status == self.status {
            return;
        }
        let quiet = self.plan.notify && self.sockets.all_ok() && self.status.is_empty();
        self.status = status;
        if !quiet {
            self.say(format!("STATUS={}\n", self.status.replace('\n', " ")).as_bytes(), &[]);
        }
    }

    fn say(&self, text: &[u8], descriptors: &[std::os::fd::OwnedFd]) {
        if let Err(errno) = self.manager.say(text, descriptors) {
            tell(format_args!("NOTIFY_SOCKET: {}", errno.desc()));
        }
    }
}
