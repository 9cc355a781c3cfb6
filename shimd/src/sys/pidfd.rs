//! A process held by a pidfd, so that it cannot be mistaken for another one with the same number.
//!
//! Sources: pidfd_open(2), pidfd_send_signal(2), PIDFD_GET_INFO in `include/uapi/linux/pidfd.h` and `fs/pidfs.c`.
#![allow(unsafe_code)] // pidfd_open, pidfd_send_signal and PIDFD_GET_INFO have no wrapper in nix

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `PID_FS_MAGIC` (`include/uapi/linux/magic.h`): what `fstatfs` of a pidfd says since Linux 6.9.
const PID_FS: FsType = FsType(0x5049_4446);
/// How often a reaped process is looked for by [`PidFd::exit_status`].
const REAPED_POLL: Duration = Duration::from_millis(2);

/// The kernel refused something about one process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} process {pid}: {}", errno.desc())]
pub struct ProcessError {
    /// What was tried, in words that fit after "cannot".
    pub action: &'static str,
    /// The process.
    pub pid: i32,
    /// What the kernel answered.
    pub errno: Errno,
}

impl ProcessError {
    /// True when the process does not exist (any more).
    pub fn is_gone(&self) -> bool {
        self.errno == Errno::ESRCH
    }
}

/// An open pidfd and the number that the process has, or had.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Opens the process that has the number `pid` at this moment, a zombie included.
    ///
    /// # Errors
    /// `ESRCH` where no process has that number, `EMFILE`, `ENFILE`, `ENOMEM` where the daemon is out of means.
    pub fn open(pid: i32) -> Result<PidFd, ProcessError> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor (always close-on-exec) or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = Errno::result(fd).map_err(|errno| ProcessError { action: "open", pid, errno })?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(PidFd { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, pid })
    }

    /// The number of the process, in the daemon's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `signal` (a number, real-time signals included; 0 only asks whether the process is not yet reaped).
    ///
    /// # Errors
    /// `ESRCH` once the process is reaped, `EPERM` where it is another user's.
    pub fn signal(&self, signal: i32) -> Result<(), ProcessError> {
        // SAFETY: a null siginfo makes the kernel fill in what kill(2) would.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.fd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        Errno::result(sent).map(drop).map_err(|errno| self.error("signal", errno))
    }

    /// The process's inode in pidfs: never given twice between two boots. `None` before Linux 6.9, where all
    /// pidfds share one anonymous inode.
    pub fn inode(&self) -> Option<u64> {
        /// All pidfds are of one file system. Which it is, is asked once.
        static IS_PIDFS: OnceLock<bool> = OnceLock::new();
        let is_pidfs = match IS_PIDFS.get() {
            Some(known) => *known,
            None => {
                let told = fstatfs(&self.fd).ok()?.filesystem_type() == PID_FS;
                *IS_PIDFS.get_or_init(|| told)
            }
        };
        is_pidfs.then(|| fstat(&self.fd).ok().map(|stat| stat.st_ino)).flatten()
    }

    /// True until the last thread of the process has exited. A zombie is not alive.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        loop {
            match nix::poll::poll(&mut fds, PollTimeout::ZERO) {
                Err(Errno::EINTR) => {}
                Ok(ready) => return ready == 0,
                Err(_) => return self.signal(0).is_ok(),
            }
        }
    }

    /// True once nobody can wait for the process any more, that is when its number may be given to another one.
    pub(crate) fn is_reaped(&self) -> bool {
        self.signal(0).is_err_and(|e| e.is_gone())
    }

    /// The same for a thread that may block: whether the process has exited within `patience`.
    pub fn wait_exited(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_alive() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // EINTR and time-outs are told by the next look.
            let _ = nix::poll::poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout);
        }
        true
    }

    /// Waits until the process has exited, reaped or not.
    ///
    /// # Errors
    /// Only where the daemon has no descriptor left to wait with.
    pub async fn exited(&self) -> Result<(), ProcessError> {
        let fail = |e: io::Error| self.error("wait for", errno_of(&e));
        // A descriptor of its own: epoll knows each only once, and two may wait for the same process.
        let own = self.fd.try_clone().map_err(fail)?;
        // SAFETY: the descriptor is owned, so its number is this one file's as long as it is registered.
        let watched = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }
            .map_err(|e| fail(e.into()))?;
        while self.is_alive() {
            watched.readable().await.map_err(fail)?.clear_ready();
        }
        Ok(())
    }

    /// How the process ended, as the kernel keeps it for whoever holds a pidfd: also for a process that is not a
    /// child of ours. `None` while it is not yet reaped by its parent, and before Linux 6.15.
    pub fn exit_info(&self) -> Option<ExitStatus> {
        // SAFETY: all fields are integers, for which zero is a value.
        let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
        info.mask = u64::from(libc::PIDFD_INFO_EXIT);
        // SAFETY: the request carries the size of this very struct, and the kernel writes no more than that.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
        let known = done == 0 && info.mask & u64::from(libc::PIDFD_INFO_EXIT) != 0;
        known.then(|| ExitStatus::from_raw(info.exit_code))
    }

    /// Waits for the exit and then up to `patience` for the parent (init, say) to reap, so that the status can be
    /// had. `None` where it cannot.
    ///
    /// # Errors
    /// As [`PidFd::exited`].
    pub async fn exit_status(&self, patience: Duration) -> Result<Option<ExitStatus>, ProcessError> {
        self.exited().await?;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let status = self.exit_info();
            if status.is_some() || tokio::time::Instant::now() >= deadline {
                return Ok(status);
            }
            tokio::time::sleep(REAPED_POLL).await;
        }
    }

    fn error(&self, action: &'static str, errno: Errno) -> ProcessError {
        ProcessError { action, pid: self.pid, errno }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The errno of a failed call of the standard library.
pub(crate) fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
