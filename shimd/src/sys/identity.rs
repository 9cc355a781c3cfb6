//! Which process is meant, so that it is known again after a restart of the daemon.
//!
//! A pid alone is reused. In order of strength: the pidfs inode (never reused between two boots, Linux 6.9), the
//! start time (field 22 of `/proc/<pid>/stat`, in clock ticks), and the boot id, without which neither says anything.

use std::io::Read;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::pidfd::{PidFd, ProcessError, errno_of};

/// Most files of a process are shorter.
const PAGE: usize = 4096;
/// How long to wait before trying again to hold a process.
const AGAIN: Duration = Duration::from_secs(1);

/// One process, told apart from every other one that has or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its number in the daemon's pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), `starttime`).
    pub start_ticks: u64,
    /// Its inode in pidfs, where the kernel has one (64 bit).
    pub pidfs_ino: Option<u64>,
    /// The boot in which all this holds (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

impl Identity {
    /// The identity of the process that has the number `pid` now, a zombie included.
    ///
    /// # Errors
    /// `ESRCH` where there is none.
    pub fn of(pid: i32) -> Result<Identity, ProcessError> {
        Identity::held(&PidFd::open(pid)?)
    }

    /// The identity of the process that `held` holds.
    ///
    /// # Errors
    /// `ESRCH` where it is reaped already.
    pub fn held(held: &PidFd) -> Result<Identity, ProcessError> {
        Ok(Identity::with(held, &ProcStat::held(held)?))
    }

    /// The same of one whose stat is read already.
    pub(crate) fn with(held: &PidFd, stat: &ProcStat) -> Identity {
        Identity {
            pid: held.pid(),
            start_ticks: stat.start_ticks,
            pidfs_ino: held.inode(),
            boot_id: boot_id().to_owned(),
        }
    }

    /// A pidfd of this very process, if it is alive; `None` for a zombie, and where another process has the number.
    ///
    /// # Errors
    /// Where it cannot be told, for want of descriptors say: then the process is not to be taken for dead.
    pub fn still_alive(&self) -> Result<Option<PidFd>, ProcessError> {
        Ok(self.open()?.filter(PidFd::is_alive))
    }

    /// Waits until this process has ended, and gives its exit status where that can be had within `patience` (see
    /// [`PidFd::exit_status`]). For want of descriptors it waits on: not to know is not to be dead.
    pub async fn ended(&self, patience: Duration) -> Option<ExitStatus> {
        loop {
            let status = match self.still_alive() {
                Ok(None) => return None,
                Ok(Some(held)) => held.exit_status(patience).await,
                Err(error) => Err(error),
            };
            match status {
                Ok(status) => return status,
                Err(error) => tracing::warn!(%error, "cannot wait for a process; trying again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A pidfd of this very process, also where it is a zombie.
    pub(crate) fn open(&self) -> Result<Option<PidFd>, ProcessError> {
        if self.boot_id != boot_id() {
            return Ok(None);
        }
        let Some(held) = unless_gone(PidFd::open(self.pid))? else { return Ok(None) };
        let same = match (self.pidfs_ino, held.inode()) {
            (Some(known), Some(now)) => known == now,
            _ => unless_gone(ProcStat::held(&held))?.is_some_and(|stat| stat.start_ticks == self.start_ticks),
        };
        Ok(same.then_some(held))
    }
}

/// A process that is gone is an answer; everything else that went wrong is not.
pub(crate) fn unless_gone<T>(result: Result<T, ProcessError>) -> Result<Option<T>, ProcessError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of this boot. Empty where `/proc` does not have it: then all instances of this run have the same.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        read.map(|s| s.trim().to_owned()).unwrap_or_default()
    })
}

/// A file of `/proc/<pid>`, in one read where it fits. They have no length, so that `std::fs::read` begins with 32 bytes
/// and asks again each time that it has doubled them, and the doer of a deed waits meanwhile.
pub(crate) fn read_of(pid: i32, file: &str) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(PAGE);
    std::fs::File::open(format!("/proc/{pid}/{file}"))?.read_to_end(&mut text)?;
    Ok(text)
}

/// What `/proc/<pid>/stat` says that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcStat {
    /// `R`, `S`, `Z` and so on. `Z` may be a dead first thread whose siblings still run.
    pub state: u8,
    pub ppid: i32,
    pub session: i32,
    pub start_ticks: u64,
}

impl ProcStat {
    /// Reads `/proc/<pid>/stat`.
    pub fn read(pid: i32) -> Result<ProcStat, ProcessError> {
        let fail = |errno| ProcessError { action: "read /proc of", pid, errno };
        let text = read_of(pid, "stat").map_err(|e| match errno_of(&e) {
            Errno::ENOENT => fail(Errno::ESRCH),
            errno => fail(errno),
        })?;
        ProcStat::parse(&text).ok_or_else(|| fail(Errno::EINVAL))
    }

    /// The stat of the process that `held` holds, and of no other: the number cannot have changed hands between the
    /// opening and the reading if the process is not reaped after both.
    pub fn held(held: &PidFd) -> Result<ProcStat, ProcessError> {
        let stat = ProcStat::read(held.pid())?;
        match held.is_reaped() {
            false => Ok(stat),
            true => Err(ProcessError { action: "identify", pid: held.pid(), errno: Errno::ESRCH }),
        }
    }

    /// The name in parentheses may hold spaces and parentheses: the fields begin after the last `)`.
    fn parse(text: &[u8]) -> Option<ProcStat> {
        let text = std::str::from_utf8(text.get(text.iter().rposition(|&b| b == b')')? + 1..)?).ok()?;
        let mut fields = text.split_ascii_whitespace(); // from field 3 on
        Some(ProcStat {
            state: *fields.next()?.as_bytes().first()?,
            ppid: fields.next()?.parse().ok()?,
            session: fields.nth(1)?.parse().ok()?,
            start_ticks: fields.nth(15)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stat_is_read_after_the_last_parenthesis() {
        let text = b"42 (a) R 1 (b)) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2\n";
        let stat = ProcStat::parse(text).unwrap();
        assert_eq!(stat, ProcStat { state: b'S', ppid: 7, session: 41, start_ticks: 98765 });
    }

    #[test]
    fn own_identity_is_alive_and_a_recycled_pid_is_not() {
        let own = Identity::of(std::process::id() as i32).unwrap();
        assert!(own.still_alive().unwrap().is_some());
        let older = Identity { start_ticks: own.start_ticks - 1, pidfs_ino: None, ..own.clone() };
        assert!(older.still_alive().unwrap().is_none(), "another start time is another process");
        let other = Identity { pidfs_ino: own.pidfs_ino.map(|i| i + 1), ..own.clone() };
        assert!(own.pidfs_ino.is_none() || other.still_alive().unwrap().is_none(), "so is another inode");
        let before = Identity { boot_id: "an earlier boot".into(), ..own };
        assert!(before.still_alive().unwrap().is_none(), "after a boot nothing is the same");
    }

    proptest! {
        #[test]
        fn stat_never_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            ProcStat::parse(&text);
        }
    }
}
