//! The thread that reads: it must be faster than the process that did the deed is gone.
//!
//! Nothing slow comes before the look at the process: no lock but the table's, which is held for moments, and no
//! deed of another name. The real-time priority lets it run as soon as the call that did the deed returns.
#![allow(unsafe_code)] // the scheduler's calls have no wrapper in nix; a pidfd comes as a bare number

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::unistd::read;

use super::deeds::claims;
use super::event::{Event, parse};
use super::who::Witness;
use super::{Shared, lock};

/// Some forty events at a time: each brings a descriptor along, and the last one waits for the first one's look.
const BUFFER: usize = 4096;
/// How long to wait where reading fails, so as not to take the processor from everybody.
const AGAIN: Duration = Duration::from_millis(100);

/// Reads until `end` is written to.
pub(super) fn run(shared: &Shared, end: &EventFd, notify: &dyn Fn()) {
    let mut witness = Witness::new();
    let mut buffer = [0_u8; BUFFER];
    hurry();
    loop {
        let mut fds = [
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.fanotify.as_fd(), PollFlags::POLLIN),
        ];
        let polled = poll(&mut fds, PollTimeout::NONE);
        let [ended, _] = fds;
        if ended.any().unwrap_or(true) {
            return;
        }
        match polled.and_then(|_| read(&shared.fanotify, &mut buffer)) {
            Ok(length) => take_in(shared, &mut witness, buffer.get(..length).unwrap_or_default(), notify),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => {
                tracing::warn!(error = errno.desc(), "cannot read from fanotify; trying again");
                std::thread::sleep(AGAIN);
            }
        }
    }
}

fn take_in(shared: &Shared, witness: &mut Witness, bytes: &[u8], notify: &dyn Fn()) {
    let now = Instant::now();
    let events: Vec<_> = parse(bytes).into_iter().map(|event| (own(&event), event)).collect();
    let claimed: Vec<_> = {
        let marks = lock(&shared.marks);
        events.iter().map(|(held, event)| (event.pid, held.as_ref(), claims(&marks, event))).collect()
    };
    let mut deeds = Vec::new();
    for (pid, held, claims) in claimed.into_iter().filter(|(_, _, claims)| !claims.is_empty()) {
        let who = witness.name(pid, held, now);
        deeds.extend(claims.into_iter().map(|claim| claim.by(who.clone(), now)));
    }
    if !deeds.is_empty() {
        lock(&shared.ring).add(deeds);
        notify();
    }
}

/// The descriptor of the process, closed when the event is done with.
fn own(event: &Event) -> Option<OwnedFd> {
    // SAFETY: the kernel has opened it for whoever reads the event, and that was us.
    event.pidfd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets this thread run before all ordinary ones, as far as that is permitted. What it starts is ordinary again.
fn hurry() {
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    let priority = libc::sched_param { sched_priority: 1 };
    // The system call itself: musl's function only says ENOSYS.
    // SAFETY: 0 is the calling thread, and the kernel only reads the struct.
    let set = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    if let Err(errno) = Errno::result(set) {
        tracing::debug!(error = errno.desc(), "no real-time priority: some culprits will be gone too early");
    }
}
