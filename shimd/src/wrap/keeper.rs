//! The keeper: the parent of the service, and of all that it leaves behind.
//!
//! Wrap forks it before anything else. It spawns, reaps, signals, and says what happened; it decides nothing. It stands
//! between the two so that neither can be lost without the other:
//!
//! | who dies, however | what follows |
//! | --- | --- |
//! | wrap | the keeper reads an end of file, kills its children until it has none, and ends |
//! | the keeper | its orphans become wrap's children, which kills them; the service has PDEATHSIG besides |
//! | wrap and keeper in one moment | PDEATHSIG kills the service, unless it has changed its user; the rest is a cgroup's to kill |
//!
//! Both are child subreapers (prctl(2)): whoever loses its parent below the keeper becomes its child, so nothing gets
//! away by forking twice or by a session of its own, and a child is ours to signal by number until we reap it.
//!
//! The keeper is in wrap's process group and cgroup, as is the service. A signal that it was sent as well was sent to all
//! of us (Ctrl-C at the terminal, systemd's KillMode=control-group, `kill -- -GROUP`): the service has it, and is not
//! given it twice.

mod channel;
mod spawn;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

pub use channel::{Keeper, KeeperError, Order, Said};
pub(super) use spawn::{Waited, reap};

use self::spawn::{Service, signal_child};
use super::args::Plan;
use super::inherited::Inherited;
use crate::sys::identity::ProcStat;
use channel::Wire;

/// So far apart a signal may reach wrap and the keeper and still be one that was sent to all.
const SAME: Duration = Duration::from_millis(200);
/// Children that were killed are looked at again after so many milliseconds, should no SIGCHLD come.
const DYING: u8 = 20;

/// The keeper's side.
struct Keeping<'a> {
    plan: &'a Plan,
    inherited: &'a Inherited,
    notify: Option<&'a str>,
    wire: Wire,
    signals: SignalFd,
    main: Option<Service>,
    /// Who the service says is its main process from now on.
    successor: Option<i32>,
    /// When each signal came last.
    came: HashMap<i32, Instant>,
    /// The signal for all that the main process has left, and who has it: whose parent ends of it becomes our child next.
    rest: Option<(i32, HashSet<i32>)>,
    /// Empty was said, and nothing was spawned since.
    empty: bool,
}

/// Runs the keeper to its end. `end`: wrap's end of the channel, which must not be held here.
fn run(plan: &Plan, inherited: &Inherited, notify: Option<&str>, channel: OwnedFd) -> Result<(), Errno> {
    if let Some(ready) = plan.notify_fd {
        // Wrap's to write to, and not the service's to inherit.
        let _ = nix::unistd::close(ready);
    }
    nix::sys::prctl::set_child_subreaper(true)?;
    let _ = nix::sys::prctl::set_name(c"shimd keeper");
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let wire = Wire::new(channel);
    let came = HashMap::new();
    let (main, successor, rest) = (None, None, None);
    let mut keeping =
        Keeping { plan, inherited, notify, wire, signals, main, successor, came, rest, empty: true };
    while keeping.turn()? {}
    keeping.kill_all();
    Ok(())
}

impl Keeping<'_> {
    /// Waits for something and deals with it; false once wrap is gone.
    fn turn(&mut self) -> Result<bool, Errno> {
        let mut fds = [
            PollFd::new(self.wire.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let ordered = fds.first().and_then(PollFd::any).unwrap_or(false);
        // First: an order to hand a signal on asks whether it came here too.
        self.take_signals();
        if ordered {
            match self.wire.receive()? {
                Some(order) => self.obey(order)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn take_signals(&mut self) {
        let mut child = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = signal.ssi_signo as i32;
            child |= number == libc::SIGCHLD;
            self.came.insert(number, Instant::now());
        }
        if child {
            self.reap_all();
            self.signal_rest();
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Errno> {
        match order {
            Order::Spawn { generation } => {
                (self.successor, self.rest) = (None, None);
                match spawn::spawn(self.plan, generation, self.inherited, self.notify) {
                    Ok(service) => {
                        self.empty = false;
                        let pid = service.pid();
                        self.main = Some(service);
                        self.wire.say(Said::Spawned { pid })
                    }
                    Err(errno) => self.wire.say(Said::NotSpawned { errno: errno as i32 }),
                }
            }
            Order::Forward { signal } => {
                let all_have_it = self.came.remove(&signal).is_some_and(|at| at.elapsed() < SAME);
                if let Some(main) = self.main.as_ref().filter(|_| !all_have_it) {
                    main.signal(signal);
                }
                Ok(())
            }
            Order::Signal { signal } => {
                if let Some(main) = &self.main {
                    main.signal(signal);
                }
                Ok(())
            }
            Order::SignalRest { signal } => {
                self.rest = Some((signal, HashSet::new()));
                self.signal_rest();
                self.reap_all();
                Ok(())
            }
            Order::KillAll => {
                self.kill_all();
                Ok(())
            }
            Order::Main { pid } => {
                self.successor = self.main.as_ref().is_some_and(|main| main.pid() != pid).then_some(pid);
                Ok(())
            }
        }
    }

    /// Signals those of our children that have not had it yet.
    fn signal_rest(&mut self) {
        let Some((signal, told)) = &mut self.rest else { return };
        let children = children();
        told.retain(|pid| children.contains(pid));
        for child in children {
            if told.insert(child) {
                signal_child(child, *signal);
            }
        }
    }

    /// Kills until no child is left. Whose parent dies becomes our child, and is killed next.
    fn kill_all(&mut self) {
        loop {
            for child in children() {
                signal_child(child, libc::SIGKILL);
            }
            if self.reap_all() {
                return;
            }
            let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(DYING));
            while let Ok(Some(_)) = self.signals.read_signal() {}
        }
    }

    /// Reaps all that have ended, and says what wrap is to know; true when no child is left.
    fn reap_all(&mut self) -> bool {
        loop {
            match reap(0) {
                Waited::Ended { pid, status } => {
                    if self.main.as_ref().is_some_and(|main| main.pid() == pid) {
                        self.main = self.successor.take().and_then(adopted);
                        match &self.main {
                            Some(main) => self.say(Said::Spawned { pid: main.pid() }),
                            None => self.say(Said::Ended { status }),
                        }
                    }
                }
                Waited::Stopped { pid, signal } if self.is_main(pid) => self.say(Said::Stopped { signal }),
                Waited::Stopped { .. } => {}
                Waited::Continued { pid } if self.is_main(pid) => {
                    // Wrap stops when the service does, and then cannot be told otherwise.
                    signal_child(nix::unistd::getppid().as_raw(), libc::SIGCONT);
                }
                Waited::Continued { .. } => {}
                Waited::Nobody => return false,
                Waited::Childless => {
                    if !std::mem::replace(&mut self.empty, true) {
                        self.say(Said::Empty);
                    }
                    return true;
                }
            }
        }
    }

    fn is_main(&self, pid: i32) -> bool {
        self.main.as_ref().is_some_and(|main| main.pid() == pid)
    }

    /// What cannot be said is not missed: wrap is gone, and the next turn finds that.
    fn say(&self, said: Said) {
        let _ = self.wire.say(said);
    }
}

/// The process that the service named as its main one, if it is our child by now.
fn adopted(pid: i32) -> Option<Service> {
    let ours =
        ProcStat::read(pid).is_ok_and(|stat| stat.ppid == std::process::id() as i32 && stat.state != b'Z');
    ours.then(|| Service::open(pid)).flatten()
}

/// SIGKILL to all of this process's children, and to those who become its children by that, until none is left.
pub fn kill_children() {
    loop {
        for child in children() {
            signal_child(child, libc::SIGKILL);
        }
        loop {
            match reap(0) {
                Waited::Nobody => break,
                Waited::Childless => return,
                Waited::Ended { .. } | Waited::Stopped { .. } | Waited::Continued { .. } => {}
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Our children: none can be reaped, and its number given away, but by us.
fn children() -> Vec<i32> {
    children_of(std::process::id() as i32)
}

/// The children of a process, those of all its threads.
fn children_of(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut children = Vec::new();
    for thread in threads.flatten() {
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(list) => {
                children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()))
            }
            // A kernel without CONFIG_PROC_CHILDREN.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return children_by_parent(pid),
            Err(_) => {}
        }
    }
    children
}

fn children_by_parent(parent: i32) -> Vec<i32> {
    let list = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    list.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| ProcStat::read(*pid).is_ok_and(|stat| stat.ppid == parent))
        .collect()
}

/// All processes below one: the service's, below the keeper.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children_of(pid);
    let mut at = 0;
    while let Some(&next) = found.get(at) {
        found.extend(children_of(next));
        at += 1;
    }
    found
}
