//! The one place that waits for children.
//!
//! The daemon is a *child subreaper* (prctl(2)): what a service leaves behind becomes its child, and must be reaped
//! too, or its number stays taken and servers that look for their predecessor refuse to start. So nothing else in the
//! daemon calls wait. SIGCHLD is one bit, however many exited: each time, all that can be reaped is.
#![allow(unsafe_code)] // nix's waitid cannot tell of a death by a real-time signal, and would refuse it for ever

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::errno::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::identity::ProcStat;

/// Exits that may be reported before the receiver takes one; beyond that, the dead wait to be reaped.
const BACKLOG: usize = 1024;

/// A child that has ended and is reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its number, which may be another process's by now.
    pub pid: i32,
    /// When it had started (see `Identity::start_ticks`), so that it can be told from an earlier one of that number.
    pub start_ticks: Option<u64>,
    /// How it ended.
    pub status: ExitStatus,
}

/// The reaper could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ReaperError {
    /// prctl(PR_SET_CHILD_SUBREAPER) was refused.
    #[error("cannot become the reaper of orphaned processes: {}", .0.desc())]
    Subreaper(Errno),
    /// SIGCHLD cannot be listened to.
    #[error("cannot listen for SIGCHLD: {0}")]
    Signal(io::Error),
}

/// Makes the daemon a child subreaper and starts the task that reaps. Every child is reported, trampolines and orphans
/// too: what nobody knows is to be ignored. The task ends when the receiver is dropped.
///
/// # Errors
/// [`ReaperError`]. Needs a tokio runtime.
pub fn start() -> Result<mpsc::Receiver<Exit>, ReaperError> {
    nix::sys::prctl::set_child_subreaper(true).map_err(ReaperError::Subreaper)?;
    let mut sigchld = signal(SignalKind::child()).map_err(ReaperError::Signal)?;
    let (report, exits) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            while let Some(exit) = reap_one() {
                if report.send(exit).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = sigchld.recv() => {}
                () = report.closed() => return,
            }
        }
    });
    Ok(exits)
}

/// Reaps one dead child; `None` when there is none. It is looked at before, since its start time goes with it.
fn reap_one() -> Option<Exit> {
    // SAFETY: all fields are integers or unions of them, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let look = libc::WNOHANG | libc::WEXITED | libc::WNOWAIT;
    // SAFETY: the kernel writes one siginfo_t, which this is.
    retry(|| unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, look) })?;
    // SAFETY: waitid has filled it in, or left it zero where no child is dead.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return None;
    }
    let start_ticks = ProcStat::read(pid).ok().map(|stat| stat.start_ticks);
    let mut status = 0;
    // SAFETY: the kernel writes one int, which this is.
    let reaped = retry(|| unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) })?;
    (reaped == pid).then(|| Exit { pid, start_ticks, status: ExitStatus::from_raw(status) })
}

/// The call's result, once no signal comes in between; `None` where it fails (ECHILD: no child at all).
fn retry(mut call: impl FnMut() -> i32) -> Option<i32> {
    loop {
        match Errno::result(call()) {
            Err(Errno::EINTR) => {}
            result => return result.ok(),
        }
    }
}
