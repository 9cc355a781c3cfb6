//! Walks of `/proc`: all processes there are, for trees without a cgroup.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::TreeError;
use crate::sys::identity::{ProcStat, read_of, unless_gone};
use crate::sys::pidfd::{PidFd, ProcessError, errno_of};
use crate::sys::spawn::MARK_VARIABLE;

/// How old a look may be that nobody signals by.
const RECENT: Duration = Duration::from_millis(20);
/// A walk follows processes that are born meanwhile for so many listings.
const CHASES: u32 = 64;

/// One walk of `/proc`.
pub(super) struct Snapshot {
    began: Instant,
    pub(super) processes: Vec<Listed>,
    /// Indices of `processes` by their parent's number.
    children: HashMap<i32, Vec<usize>>,
    /// False where a process was gone before it could be read, and so may have been anybody's.
    pub(super) complete: bool,
}

pub(super) struct Listed {
    pub(super) pid: i32,
    pub(super) stat: ProcStat,
    pub(super) mark: Option<String>,
}

impl Snapshot {
    /// A walk that began after this call did. Those who ask during one walk share the next: a thousand trees that
    /// stop at once cost two.
    pub(super) async fn fresh() -> Result<Arc<Snapshot>, TreeError> {
        static LATEST: tokio::sync::Mutex<Option<Arc<Snapshot>>> = tokio::sync::Mutex::const_new(None);
        let asked = Instant::now();
        let mut latest = LATEST.lock().await;
        if let Some(snapshot) = latest.as_ref().filter(|s| s.began >= asked) {
            return Ok(Arc::clone(snapshot));
        }
        let taken = Arc::new(blocking(Snapshot::take).await?);
        *latest = Some(Arc::clone(&taken));
        Ok(taken)
    }

    /// A walk that began at most [`RECENT`] ago.
    pub(super) fn recent() -> Result<Arc<Snapshot>, TreeError> {
        static LATEST: Mutex<Option<Arc<Snapshot>>> = Mutex::new(None);
        let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = latest.as_ref().filter(|s| s.began.elapsed() < RECENT) {
            return Ok(Arc::clone(snapshot));
        }
        let taken = Arc::new(Snapshot::take()?);
        *latest = Some(Arc::clone(&taken));
        Ok(taken)
    }

    /// Reads each process listed, and lists again until nothing is new: else a process that forks its successor and
    /// exits, over and over, would be missed by every walk.
    fn take() -> Result<Snapshot, TreeError> {
        let began = Instant::now();
        let mut seen = HashSet::new();
        let mut processes = Vec::new();
        let mut complete = false;
        for _ in 0..CHASES {
            let mut fresh = listed()?;
            fresh.retain(|&pid| seen.insert(pid));
            if fresh.is_empty() {
                complete = true;
                break;
            }
            let before = processes.len() + fresh.len();
            processes.extend(fresh.into_iter().filter_map(Listed::read));
            complete = processes.len() == before;
        }
        let mut children: HashMap<i32, Vec<usize>> = HashMap::new();
        for (index, process) in processes.iter().enumerate() {
            children.entry(process.stat.ppid).or_default().push(index);
        }
        Ok(Snapshot { began, processes, children, complete })
    }

    /// The processes whose parent had this number.
    pub(super) fn children_of(&self, pid: i32) -> impl Iterator<Item = &Listed> {
        let indices = self.children.get(&pid).into_iter().flatten();
        indices.filter_map(|&index| self.processes.get(index))
    }
}

impl Listed {
    fn read(pid: i32) -> Option<Listed> {
        let stat = ProcStat::read(pid).ok()?;
        Some(Listed { pid, stat, mark: environ_mark(pid) })
    }

    /// Holds the process, if it is the one listed and `still` is true of it.
    pub(super) fn hold(&self, still: impl Fn(&ProcStat) -> bool) -> Result<Option<PidFd>, ProcessError> {
        let Some(held) = unless_gone(PidFd::open(self.pid))? else { return Ok(None) };
        let now = unless_gone(ProcStat::held(&held))?;
        Ok(now.filter(|now| now.start_ticks == self.stat.start_ticks && still(now)).map(|_| held))
    }
}

/// Stops whatever has the mark at the very moment it is found, the youngest first, until a listing of `/proc` has
/// none that is new. By the time a whole walk is over, a process that lives for half a millisecond is history.
pub(super) fn stop_marked(mark: &str) -> Result<(), TreeError> {
    let mut seen = HashSet::new();
    for _ in 0..CHASES {
        let mut fresh = listed()?;
        fresh.retain(|&pid| seen.insert(pid));
        fresh.sort_unstable_by(|a, b| b.cmp(a));
        let has_mark = |pid: i32| environ_mark(pid).is_some_and(|m| m == mark);
        let mut any = false;
        for pid in fresh.into_iter().filter(|&pid| has_mark(pid)) {
            any = true;
            if let Ok(process) = PidFd::open(pid)
                && has_mark(pid)
                && !process.is_reaped()
            {
                let _ = process.signal(libc::SIGSTOP); // gone is as good
            }
        }
        if !any {
            break;
        }
    }
    Ok(())
}

/// The numbers of all processes but our own: a daemon that was started from within a service has that one's mark,
/// and all its services for children.
fn listed() -> Result<Vec<i32>, TreeError> {
    let entries = std::fs::read_dir("/proc").map_err(|e| TreeError::Proc(errno_of(&e)))?;
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|&pid| pid != own_pid()).collect())
}

pub(super) fn own_pid() -> i32 {
    std::process::id() as i32
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TreeError> + Send + 'static,
) -> Result<T, TreeError> {
    // Cancelled only while the runtime shuts down.
    tokio::task::spawn_blocking(work).await.map_err(|_| TreeError::Proc(Errno::ECANCELED))?
}

/// Every live process that bears a mark of the home with this tag, by service and generation.
pub fn marked(home_tag: &str) -> BTreeMap<(String, u64), Vec<i32>> {
    let mut found: BTreeMap<(String, u64), Vec<i32>> = BTreeMap::new();
    for pid in listed().unwrap_or_default() {
        if let Some(key) = environ_mark(pid).and_then(|mark| super::service_of(&mark, home_tag)) {
            found.entry(key).or_default().push(pid);
        }
    }
    found
}

/// The mark in the environ of `pid`. Another user's cannot be read, and a kernel thread's is empty: no mark.
pub(crate) fn environ_mark(pid: i32) -> Option<String> {
    let environ = read_of(pid, "environ").ok()?;
    let value = environ
        .split(|&b| b == 0)
        .find_map(|entry| entry.strip_prefix(MARK_VARIABLE.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}
