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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::cgroup::{self, CgroupError};
use super::identity::{Identity, ProcStat};
use super::pidfd::{PidFd, ProcessError, errno_of};
use super::spawn::MARK_VARIABLE;

/// How long to wait before looking again after a look that failed, or that a kill has not emptied.
const AGAIN: Duration = Duration::from_millis(20);
/// How old a look may be that nobody signals by.
const RECENT: Duration = Duration::from_millis(20);
/// A fork bomb is stopped in so many rounds or not at all; then it is killed as it runs.
const STOP_ROUNDS: u32 = 32;

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
        Tree(Arc::new(Inner { main, mark, cgroup, memory: Mutex::default() }))
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
        Ok(self.live().await?.iter().map(PidFd::pid).collect())
    }

    /// The same for a thread that may block, and without holding anybody: for looking, not for signalling. What
    /// cannot be listed is left out; without a cgroup the look may be [`RECENT`] old.
    pub fn pids_now(&self) -> Vec<i32> {
        let mut pids = match &self.0.cgroup {
            Some(path) => cgroup::pids(path).unwrap_or_default(),
            None => match Snapshot::recent() {
                Ok(snapshot) => self.members_in(&snapshot).iter().map(PidFd::pid).collect(),
                Err(_) => Vec::new(),
            },
        };
        if !pids.contains(&self.0.main.pid) && self.0.main.still_alive().is_some() {
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
        if let Some(main) = self.0.main.still_alive() {
            delivered(&main, signal)?;
            main.exited().await?;
        }
        self.signal_all(signal).await?;
        self.gone().await;
        Ok(())
    }

    /// Sends `signal` to the main process alone: false where it is gone.
    ///
    /// # Errors
    /// `EPERM`, where it has become another user's.
    pub fn signal_main(&self, signal: i32) -> Result<bool, ProcessError> {
        self.0.main.still_alive().map_or(Ok(false), |main| delivered(&main, signal))
    }

    /// Sends `signal` to every process of the tree, and says how many got it.
    ///
    /// # Errors
    /// The first that failed, after all were tried.
    pub async fn signal_all(&self, signal: i32) -> Result<usize, TreeError> {
        signal_each(&self.live().await?, signal)
    }

    /// SIGKILL to the whole tree, again and again until a look finds nothing alive. Does not return while a process
    /// cannot die (state D, say): the caller sets the time.
    pub async fn kill(&self) {
        loop {
            match self.kill_once().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => self.complain("killed", &error),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Returns once no process of the tree is alive. The caller sets the time.
    pub async fn gone(&self) {
        let mut empty = 0;
        while empty < 2 {
            match self.live().await {
                // A process may fork and exit behind the back of a look: so look twice.
                Ok(live) if live.is_empty() => empty += 1,
                Ok(live) => {
                    empty = 0;
                    for process in live {
                        if let Err(error) = process.exited().await {
                            self.complain("waited for", &error.into());
                            tokio::time::sleep(AGAIN).await;
                        }
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

    /// One round: true if there was nothing left to kill.
    async fn kill_once(&self) -> Result<bool, TreeError> {
        if let Some(path) = &self.0.cgroup
            && cgroup::kill(path).is_ok()
        {
            // The main process is in there, unless somebody has moved it.
            self.signal_main(libc::SIGKILL)?;
            self.gone().await;
            return Ok(true);
        }
        // What is stopped cannot fork: so first stop all, until a look finds no running one, then kill them.
        let mut stopped = BTreeSet::new();
        let mut live = self.live().await?;
        for _ in 0..STOP_ROUNDS {
            let fresh: Vec<PidFd> = live.into_iter().filter(|p| !stopped.contains(&p.pid())).collect();
            if fresh.is_empty() {
                break;
            }
            signal_each(&fresh, libc::SIGSTOP)?;
            stopped.extend(fresh.iter().map(PidFd::pid));
            live = self.live().await?;
        }
        let live = self.live().await?;
        signal_each(&live, libc::SIGKILL)?;
        Ok(live.is_empty() && self.live().await?.is_empty())
    }

    /// The live processes of the tree, each held by a pidfd.
    async fn live(&self) -> Result<Vec<PidFd>, TreeError> {
        let mut live = match &self.0.cgroup {
            Some(path) => members_of(path)?,
            None => self.members_in(&*Snapshot::fresh().await?),
        };
        if self.0.cgroup.is_some()
            && !live.iter().any(|p| p.pid() == self.0.main.pid)
            && let Some(main) = self.0.main.still_alive()
        {
            live.push(main);
        }
        live.retain(PidFd::is_alive);
        Ok(live)
    }

    /// The processes of `snapshot` that belong to the tree, by the signs in this file's header.
    fn members_in(&self, snapshot: &Snapshot) -> Vec<PidFd> {
        let Inner { main, mark, memory, .. } = &*self.0;
        let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
        let main_held = main.open();
        match main_held {
            Some(_) => memory.main_seen_alive = true,
            None if memory.main_gone_at.is_none() => memory.main_gone_at = boot_ticks(),
            None => {}
        }
        // The session's number is the main process's own, and could be another's once both are gone. Whoever was born
        // into it before we saw the main process go is ours.
        let in_session = |p: &Listed| {
            let born = p.stat.start_ticks;
            p.stat.session == main.pid
                && born >= main.start_ticks
                && memory.main_seen_alive
                && memory.main_gone_at.is_none_or(|gone| born <= gone)
        };
        let by_sign: Vec<PidFd> = snapshot
            .processes
            .iter()
            .filter(|p| p.mark.as_deref() == Some(mark) || in_session(p))
            .filter_map(|p| p.hold(|now| now.session == p.stat.session))
            .collect();
        let remembered = memory.members.values().filter_map(Identity::open);
        let mut members: BTreeMap<i32, PidFd> = BTreeMap::new();
        let mut queue: Vec<PidFd> = main_held.into_iter().chain(remembered).chain(by_sign).collect();
        while let Some(parent) = queue.pop() {
            let pid = parent.pid();
            if members.contains_key(&pid) {
                continue;
            }
            for child in
                snapshot.children.get(&pid).into_iter().flatten().filter_map(|&i| snapshot.processes.get(i))
            {
                queue.extend(child.hold(|now| now.ppid == pid).filter(|_| !parent.is_reaped()));
            }
            members.insert(pid, parent);
        }
        members.retain(|_, p| p.is_alive());
        memory.members = members.values().filter_map(|p| Some((p.pid(), Identity::held(p).ok()?))).collect();
        members.into_values().collect()
    }

    fn complain(&self, what: &str, error: &TreeError) {
        tracing::warn!(instance = self.0.mark, %error, "processes of a service could not be {what}; trying again");
    }
}

/// The live members of a cgroup: listed, held, and listed again, so that each was there while it was held.
fn members_of(cgroup: &Path) -> Result<Vec<PidFd>, TreeError> {
    let mut held = Vec::new();
    for pid in cgroup::pids(cgroup)? {
        match PidFd::open(pid) {
            Ok(process) => held.push(process),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error.into()),
        }
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

/// One walk of `/proc`.
struct Snapshot {
    began: Instant,
    processes: Vec<Listed>,
    /// Indices of `processes` by their parent's number.
    children: HashMap<i32, Vec<usize>>,
}

struct Listed {
    pid: i32,
    stat: ProcStat,
    mark: Option<String>,
}

impl Snapshot {
    /// A walk that began after this call did. Those who ask during one walk share the next: a thousand trees that
    /// stop at once cost two.
    async fn fresh() -> Result<Arc<Snapshot>, TreeError> {
        static LATEST: tokio::sync::Mutex<Option<Arc<Snapshot>>> = tokio::sync::Mutex::const_new(None);
        let asked = Instant::now();
        let mut latest = LATEST.lock().await;
        if let Some(snapshot) = latest.as_ref().filter(|s| s.began >= asked) {
            return Ok(Arc::clone(snapshot));
        }
        let walk = tokio::task::spawn_blocking(Snapshot::take).await;
        let taken = Arc::new(walk.map_err(|_| TreeError::Proc(Errno::ECANCELED))??);
        *latest = Some(Arc::clone(&taken));
        Ok(taken)
    }

    /// A walk that began at most [`RECENT`] ago.
    fn recent() -> Result<Arc<Snapshot>, TreeError> {
        static LATEST: Mutex<Option<Arc<Snapshot>>> = Mutex::new(None);
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = latest.as_ref().filter(|s| s.began.elapsed() < RECENT) {
            return Ok(Arc::clone(snapshot));
        }
        let taken = Arc::new(Snapshot::take()?);
        *latest = Some(Arc::clone(&taken));
        Ok(taken)
    }

    fn take() -> Result<Snapshot, TreeError> {
        let began = Instant::now();
        let entries = std::fs::read_dir("/proc").map_err(|e| TreeError::Proc(errno_of(&e)))?;
        let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let processes: Vec<Listed> = pids.filter_map(Listed::read).collect();
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        for (index, process) in processes.iter().enumerate() {
            children.entry(process.stat.ppid).or_default().push(index);
        }
        Ok(Snapshot { began, processes, children })
    }
}

impl Listed {
    fn read(pid: i32) -> Option<Listed> {
        let stat = ProcStat::read(pid).ok()?;
        Some(Listed { pid, stat, mark: environ_mark(pid) })
    }

    /// Holds the process, if it is the one listed and `still` is true of it.
    fn hold(&self, still: impl Fn(&ProcStat) -> bool) -> Option<PidFd> {
        let held = PidFd::open(self.pid).ok()?;
        let now = ProcStat::held(&held).ok()?;
        (now.start_ticks == self.stat.start_ticks && still(&now)).then_some(held)
    }
}

/// The mark in the environ of `pid`. Another user's cannot be read, and a kernel thread's is empty: no mark.
pub(crate) fn environ_mark(pid: i32) -> Option<String> {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environ
        .split(|&b| b == 0)
        .find_map(|entry| entry.strip_prefix(MARK_VARIABLE.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}
