//! Ending processes that are no instance of ours: holders of a declared socket.

use std::time::{Duration, Instant};

use crate::sys::pidfd::PidFd;

/// Holds each process that has one of these numbers now.
pub fn hold(pids: &[i32]) -> Vec<PidFd> {
    pids.iter().filter_map(|pid| PidFd::open(*pid).ok()).collect()
}

/// Sends `signal` to each, waits until all are gone, and sends SIGKILL to what is left after `timeout`, for
/// which it waits as long again (2 s at least). Returns those that are gone.
pub fn end_processes(held: &[PidFd], signal: i32, timeout: Duration) -> Vec<i32> {
    for (signal, patience) in [(signal, timeout), (libc::SIGKILL, timeout.max(Duration::from_secs(2)))] {
        for process in held.iter().filter(|p| p.is_alive()) {
            if let Err(e) = process.signal(signal) {
                tracing::warn!("{e}");
            }
        }
        if all_gone(held, patience) {
            break;
        }
    }
    held.iter().filter(|p| !p.is_alive()).map(PidFd::pid).collect()
}

fn all_gone(held: &[PidFd], patience: Duration) -> bool {
    let until = Instant::now() + patience;
    held.iter().all(|process| process.wait_exited(until.saturating_duration_since(Instant::now())))
}
