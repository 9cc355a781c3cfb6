//! All processes of one instance.
//!
//! With a cgroup its members are the tree, and nothing gets out of it by forking. Without one, a process belongs to
//! the tree if one of these holds:
//!
//! | sign | found after the main process is gone | escapes |
//! | --- | --- | --- |
//! | the *mark*: `SHIMD_INSTANCE=<mark>` in its environ | yes | a program that clears or overwrites its environ |
//! | its session is the main process's | yes, if it was born before we saw the main process gone | setsid |
//! | its parent belongs to the tree | no | a parent that exits |
//! | it was seen to belong before | yes | |
//!
//! A process that escapes all of them was never seen and keeps neither environ, session nor parent: only a cgroup
//! would hold it. Every signal goes through a pidfd that was opened *before* the last look at the signs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::cgroup::{self, CgroupError};
use super::identity::{Identity, unless_gone};
use super::pidfd::{PidFd, ProcessError};
use walk::{Listed, Snapshot, blocking, own_pid, stop_marked};

mod walk;

pub(crate) use walk::environ_mark;
pub use walk::marked;

/// How long to wait before trying again what has failed.
const AGAIN: Duration = Duration::from_millis(20);
/// How long to wait before looking again where something may have been missed.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long the killed may take to die before whatever else has come up is killed too.
const DYING: Duration = Duration::from_secs(1);

/// The processes of an instance could not be listed or signalled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// By their cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// One of them.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// `/proc` cannot be read.
    #[error("cannot list the processes in /proc: {}", .0.desc())]
    Proc(Errno),
}

/// The mark of an instance: the value of `SHIMD_INSTANCE` in the environ of its processes.
pub fn mark(home_tag: &str, service: &str, generation: u64) -> String {
    format!("{home_tag}/{service}/{generation}")
}

/// The service and generation that a mark of this home names; `None` for another home's.
pub fn service_of(mark: &str, home_tag: &str) -> Option<(String, u64)> {
    let (service, generation) = mark.strip_prefix(home_tag)?.strip_prefix('/')?.rsplit_once('/')?;
    Some((service.to_owned(), generation.parse().ok()?))
}

/// A short name for a home (its run folder), the same in every run and version: FNV-1a of the path, 64 bit.
pub fn home_tag(home: &Path) -> String {
    let bytes = home.as_os_str().as_encoded_bytes();
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// All processes of one instance: a handle, cheap to clone. Whoever knows identity, mark and cgroup can make it
/// again, after a restart of the daemon too.
#[derive(Debug, Clone)]
pub struct Tree(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    main: Identity,
    mark: String,
    cgroup: Option<PathBuf>,
    memory: Mutex<Memory>,
    /// Said once what is in the way; it is tried again many times a second.
    complained: AtomicBool,
}

/// What earlier looks have seen (without a cgroup).
#[derive(Debug, Default)]
struct Memory {
    members: BTreeMap<i32, Identity>,
    main_seen_alive: bool,
    /// Boot time in clock ticks, when the main process was first seen to be gone.
    main_gone_at: Option<u64>,
}

impl Tree {
    /// The tree of the instance whose main process is `main`. `cgroup` only if it really runs in there
    /// ([`Pending::in_cgroup`](super::spawn::Pending::in_cgroup)).
    pub fn new(main: Identity, mark: String, cgroup: Option<PathBuf>) -> Tree {
        Tree(Arc::new(Inner {
            main,
            mark,
            cgroup,
            memory: Mutex::default(),
            complained: AtomicBool::new(false),
        }))
    }

    /// The main process.
    pub fn main(&self) -> &Identity {
        &self.0.main
    }

    /// The mark in the environ of its processes.
    pub fn mark(&self) -> &str {
        &self.0.mark
    }

    /// The folder of its cgroup, if it has one.
    pub fn cgroup(&self) -> Option<&Path> {
        self.0.cgroup.as_deref()
    }

    /// The numbers of all live processes of the tree; zombies do not count. Without a cgroup this also refreshes
    /// what is known of it: worth doing now and then while the main process lives.
    ///
    /// # Errors
    /// [`TreeError`], where they cannot be listed.
    pub async fn pids(&self) -> Result<Vec<i32>, TreeError> {
        Ok(self.look().await?.live.iter().map(PidFd::pid).collect())
    }

    /// The same for a thread that may block, and without holding anybody: for looking, not for signalling. What
    /// cannot be listed is left out; without a cgroup the look may be [`RECENT`] old.
    pub fn pids_now(&self) -> Vec<i32> {
        let mut pids = match &self.0.cgroup {
            Some(path) => cgroup::pids(path).unwrap_or_default(),
            None => {
                let look = Snapshot::recent().and_then(|snapshot| Ok(self.look_in(&snapshot)?));
                look.map_or_else(|_| Vec::new(), |look| look.live.iter().map(PidFd::pid).collect())
            }
        };
        // What cannot be told is not said to be dead.
        if !pids.contains(&self.0.main.pid) && !matches!(self.0.main.still_alive(), Ok(None)) {
            pids.push(self.0.main.pid);
        }
        pids
    }

    /// The stop signal: to the main process, and once that is gone to all that is left; returns when no process
    /// of the tree is alive. The caller sets the time.
    ///
    /// # Errors
    /// [`TreeError`], where a process cannot be signalled.
    pub async fn stop(&self, signal: i32) -> Result<(), TreeError> {
        if let Some(main) = self.0.main.still_alive()? {
            delivered(&main, signal)?;
            main.exited().await?;
        }
        let look = self.look().await?;
        signal_each(&look.live, signal)?;
        self.gone_after(Ok(look)).await;
        Ok(())
    }

    /// Sends `signal` to the main process alone: false where it is gone.
    ///
    /// # Errors
    /// `EPERM`, where it has become another user's.
    pub fn signal_main(&self, signal: i32) -> Result<bool, ProcessError> {
        self.0.main.still_alive()?.map_or(Ok(false), |main| delivered(&main, signal))
    }

    /// Sends `signal` to every process of the tree, and says how many got it.
    ///
    /// # Errors
    /// The first that failed, after all were tried.
    pub async fn signal_all(&self, signal: i32) -> Result<usize, TreeError> {
        signal_each(&self.look().await?.live, signal)
    }

    /// SIGKILL to the whole tree, again and again until nothing of it is alive. Does not return while a process
    /// cannot die (state D, say): the caller sets the time.
    pub async fn kill(&self) {
        loop {
            match self.kill_once().await {
                Ok(true) => return,
                Ok(false) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(error) => {
                    self.complain("killed", &error);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Returns once no process of the tree is alive. The caller sets the time.
    pub async fn gone(&self) {
        self.gone_after(self.look().await).await;
    }

    async fn gone_after(&self, first: Result<Look, TreeError>) {
        let mut look = Some(first);
        // A process in the middle of an exec has no environ for a moment, and one may go from one cgroup to another while
        // they are listed: so look twice. But the list of one cgroup alone misses nobody.
        let mut empty = 0;
        while empty < 2 {
            let now = match look.take() {
                Some(look) => look,
                None => self.look().await,
            };
            match now {
                Ok(Look { live, sure: true, whole }) if live.is_empty() => empty += if whole { 2 } else { 1 },
                Ok(Look { live, .. }) if live.is_empty() => {
                    empty = 0;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Ok(Look { live, .. }) => {
                    empty = 0;
                    if let Err(error) = all_exited(&live).await {
                        self.complain("waited for", &error.into());
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Err(error) => {
                    self.complain("listed", &error);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Removes the cgroup, once [`gone`](Tree::gone): waits up to 5 s for the kernel to notice.
    ///
    /// # Errors
    /// `EBUSY`, where there still are processes.
    pub async fn remove_cgroup(&self) -> Result<(), CgroupError> {
        match &self.0.cgroup {
            Some(path) => cgroup::remove(path).await,
            None => Ok(()),
        }
    }

    /// One round: true if nothing is alive after it.
    async fn kill_once(&self) -> Result<bool, TreeError> {
        if let Some(path) = &self.0.cgroup
            && !cgroup::pids(path)?.contains(&own_pid())
            && cgroup::kill(path).is_ok()
        {
            // The main process is in there, unless somebody has moved it.
            self.signal_main(libc::SIGKILL)?;
            self.gone().await;
            return Ok(true);
        }
        // What is stopped cannot fork, nor make room under a limit for another one that does.
        let mark = self.0.mark.clone();
        blocking(move || stop_marked(&mark)).await?;
        let live = self.look().await?.live;
        signal_each(&live, libc::SIGKILL)?;
        if let Ok(waited) = tokio::time::timeout(DYING, all_exited(&live)).await {
            waited?;
        }
        // Twice, as in `gone`.
        Ok(self.is_empty().await? && self.is_empty().await?)
    }

    async fn is_empty(&self) -> Result<bool, TreeError> {
        let Look { live, sure, .. } = self.look().await?;
        Ok(live.is_empty() && sure)
    }

    async fn look(&self) -> Result<Look, TreeError> {
        let Some(path) = &self.0.cgroup else {
            return Ok(self.look_in(&*Snapshot::fresh().await?)?);
        };
        let alone = !cgroup::has_children(path);
        let mut live = members_of(path)?;
        let whole = alone && !cgroup::has_children(path);
        if !live.iter().any(|p| p.pid() == self.0.main.pid) {
            live.extend(self.0.main.open()?);
        }
        live.retain(PidFd::is_alive);
        Ok(Look { live, sure: true, whole })
    }

    /// The processes of `snapshot` that belong to the tree, by the signs in this file's header.
    fn look_in(&self, snapshot: &Snapshot) -> Result<Look, ProcessError> {
        let Inner { main, mark, memory, .. } = &*self.0;
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let main_held = main.open()?;
        match main_held {
            Some(_) => memory.main_seen_alive = true,
            None if memory.main_gone_at.is_none() => memory.main_gone_at = boot_ticks(),
            None => {}
        }
        let mut found: Vec<PidFd> = main_held.into_iter().collect();
        for known in memory.members.values() {
            found.extend(known.open()?);
        }
        let mut sure = snapshot.complete;
        for p in &snapshot.processes {
            if p.mark.as_deref() == Some(mark) || memory.in_session(main, snapshot, p) {
                let held = p.hold(|now| now.session == p.stat.session)?;
                sure &= held.is_some();
                found.extend(held);
            }
        }
        let mut members: BTreeMap<i32, PidFd> = BTreeMap::new();
        while let Some(parent) = found.pop() {
            let pid = parent.pid();
            if members.contains_key(&pid) {
                continue;
            }
            for child in snapshot.children_of(pid) {
                found.extend(child.hold(|now| now.ppid == pid)?.filter(|_| !parent.is_reaped()));
            }
            members.insert(pid, parent);
        }
        members.retain(|_, p| p.is_alive());
        memory.members = members.values().filter_map(|p| Some((p.pid(), Identity::held(p).ok()?))).collect();
        Ok(Look { live: members.into_values().collect(), sure, whole: false })
    }

    fn complain(&self, what: &str, error: &TreeError) {
        if !self.0.complained.swap(true, Ordering::Relaxed) {
            tracing::warn!(instance = self.0.mark, %error, "processes of a service could not be {what}; trying on");
        }
    }
}

impl Memory {
    /// The session's number is the main process's own. While one process is left in the session no other can have the
    /// number; afterwards another one may, and open a session in its turn. So whoever was born into it before we saw
    /// the main process gone is ours.
    fn in_session(&self, main: &Identity, snapshot: &Snapshot, p: &Listed) -> bool {
        let born = p.stat.start_ticks;
        p.stat.session == main.pid
            && born >= main.start_ticks
            && self.main_seen_alive
            && self.main_gone_at.is_none_or(|gone| born <= gone)
            && !snapshot.processes.iter().any(|p| p.pid == main.pid && p.stat.start_ticks != main.start_ticks)
    }
}

/// What one look at a tree found.
struct Look {
    /// Its live processes, held.
    live: Vec<PidFd>,
    /// False where one may have come and gone, and left another one, while we looked.
    sure: bool,
    /// It was of one cgroup with none beneath.
    whole: bool,
}

async fn all_exited(processes: &[PidFd]) -> Result<(), ProcessError> {
    for process in processes {
        process.exited().await?;
    }
    Ok(())
}

/// The live members of a cgroup: listed, held, and listed again, so that each was there while it was held.
fn members_of(cgroup: &Path) -> Result<Vec<PidFd>, TreeError> {
    let mut held = Vec::new();
    for pid in cgroup::pids(cgroup)?.into_iter().filter(|&pid| pid != own_pid()) {
        held.extend(unless_gone(PidFd::open(pid))?);
    }
    if !held.is_empty() {
        let still: BTreeSet<i32> = cgroup::pids(cgroup)?.into_iter().collect();
        held.retain(|p| still.contains(&p.pid()) && !p.is_reaped());
    }
    Ok(held)
}

fn signal_each(processes: &[PidFd], signal: i32) -> Result<usize, TreeError> {
    let mut sent = 0;
    let mut failed = None;
    for process in processes {
        match delivered(process, signal) {
            Ok(true) => sent += 1,
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(sent), |error| Err(error.into()))
}

/// Signals a process: false where it is gone.
fn delivered(process: &PidFd, signal: i32) -> Result<bool, ProcessError> {
    match process.signal(signal) {
        Err(error) if error.is_gone() => Ok(false),
        result => result.map(|()| true),
    }
}

/// Now, on the clock of `starttime` in proc_pid_stat(5).
fn boot_ticks() -> Option<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    u64::try_from(now.as_millis() * u128::try_from(per_second).ok()? / 1000).ok()
}
