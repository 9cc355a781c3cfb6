//! The threads that read: they must be faster than the process that did the deed is gone.
//!
//! One thread may run anywhere. On another processor than the doer's it is too late now and then: by the time that one
//! is awake, `rm` has exited. So each processor has a thread of its own besides. An event wakes them all, and the one
//! on the doer's processor has a real-time priority: the doer gets no further than the end of its system call before
//! that thread has had its turn. Where another has begun already, it waits *without sleeping*, so that the doer
//! still cannot go on. By then the event may be read, and poll(2) would go back to sleep over an empty queue: so whoever
//! has the turn makes `looking` readable before it reads.
//!
//! That is too dear where a folder is busy with other names: in a flood of events only the one thread reads.
//!
//! Nothing slow comes before the look at the process: no lock but the turn and the table's, which is held for
//! moments, and no deed of another name.
#![allow(unsafe_code)] // a pidfd comes as a bare number

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, read};

use super::deeds::claims;
use super::event::{Event, parse};
use super::who::Witness;
use super::{Shared, Who, lock};
use crate::sys::schedule;

/// Some forty events at a time: each brings a descriptor along, and the last one waits for the first one's look.
const BUFFER: usize = 4096;
/// How long a thread waits without sleeping: a look takes some tens of microseconds.
const HOLD: Duration = Duration::from_millis(5);
/// More than this many events within [`WINDOW`] are a flood.
const FLOOD: usize = 500;
const WINDOW: Duration = Duration::from_millis(100);
/// How long the processors' own threads stay away after a flood.
const PAUSE: Duration = Duration::from_secs(1);
/// How long to wait where waiting or reading fails, so as not to take the processor from everybody.
const AGAIN: Duration = Duration::from_millis(100);
/// The most processors that have a thread of their own.
const PROCESSORS: usize = 64;

/// What the thread has whose turn it is.
pub(super) struct Turn {
    notify: Box<dyn Fn() + Send>,
    witness: Witness,
    window: Instant,
    events: usize,
}

impl Turn {
    pub(super) fn new(notify: impl Fn() + Send + 'static) -> Turn {
        Turn { notify: Box::new(notify), witness: Witness::new(), window: Instant::now(), events: 0 }
    }

    /// True where so many events come that waking every processor for each is too dear.
    fn flooded(&mut self, more: usize, now: Instant) -> bool {
        if now.duration_since(self.window) > WINDOW {
            self.window = now;
            self.events = 0;
        }
        self.events += more;
        self.events > FLOOD
    }

    /// Makes deeds of what was read; true in a flood.
    fn take_in(&mut self, shared: &Shared, bytes: &[u8]) -> bool {
        let now = Instant::now();
        let events: Vec<_> = parse(bytes).into_iter().map(|event| (own(&event), event)).collect();
        let claimed: Vec<_> = {
            let marks = lock(&shared.marks);
            events.iter().map(|(held, event)| (event.pid, held.as_ref(), claims(&marks, event))).collect()
        };
        let mut deeds = Vec::new();
        // One unlink is often several events: of a link count and of a name.
        let mut last: Option<Who> = None;
        for (pid, held, claims) in claimed.into_iter().filter(|(_, _, claims)| !claims.is_empty()) {
            let seen = last.take().filter(|who| who.pid == pid && who.exe.is_some());
            let who = seen.unwrap_or_else(|| self.witness.name(pid, held, now));
            last = Some(who.clone());
            deeds.extend(claims.into_iter().map(|claim| claim.by(who.clone(), now)));
        }
        if !deeds.is_empty() {
            lock(&shared.ring).add(deeds);
            (self.notify)();
        }
        self.flooded(events.len(), now)
    }
}

/// The processors that get a thread of their own: none where there is one only, for then any thread is on it.
pub(super) fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let all: Vec<_> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    if all.len() > 1 { all.into_iter().take(PROCESSORS).collect() } else { Vec::new() }
}

/// Reads until `end` is written to, on one processor or anywhere.
pub(super) fn run(shared: &Shared, end: &EventFd, turn: &Mutex<Turn>, processor: Option<usize>) {
    // The daemon's handlers are for its ordinary threads. Cannot fail.
    let _ = SigSet::all().thread_block();
    schedule::first();
    if let Some(processor) = processor {
        stay_on(processor);
    }
    let mut buffer = [0_u8; BUFFER];
    let mut pause = Duration::ZERO;
    loop {
        if !pause.is_zero() {
            let mut fds = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX));
            pause = Duration::ZERO;
        }
        let mut fds = [end.as_fd(), shared.fanotify.as_fd(), shared.looking.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if let Err(errno) = poll(&mut fds, PollTimeout::NONE)
            && errno != Errno::EINTR
        {
            tracing::debug!(error = errno.desc(), "cannot wait for fanotify; trying again");
            pause = AGAIN;
            continue;
        }
        let [ended, ..] = fds;
        if ended.any().unwrap_or(true) {
            return;
        }
        let mut turn = wait_awake(turn);
        // Asked first: who raises `looking` for nothing wakes the others for nothing, and they do the same in turn.
        if !readable(shared) {
            continue;
        }
        // Neither can fail: it is one, or none.
        let _ = shared.looking.write(1);
        match read(&shared.fanotify, &mut buffer) {
            Ok(length) => {
                let flooded = turn.take_in(shared, buffer.get(..length).unwrap_or_default());
                if flooded && processor.is_some() {
                    pause = PAUSE;
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => {
                tracing::debug!(error = errno.desc(), "cannot read from fanotify; trying again");
                pause = AGAIN;
            }
        }
        let _ = shared.looking.read();
    }
}

fn readable(shared: &Shared) -> bool {
    let mut fds = [PollFd::new(shared.fanotify.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Waits for the turn, and keeps the processor from the doer meanwhile, for a while.
fn wait_awake(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    let until = Instant::now() + HOLD;
    while Instant::now() < until {
        match turn.try_lock() {
            Ok(turn) => return turn,
            Err(TryLockError::Poisoned(turn)) => return turn.into_inner(),
            Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
        }
    }
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptor of the process, closed when the event is done with.
fn own(event: &Event) -> Option<OwnedFd> {
    // SAFETY: the kernel has opened it for whoever reads the event, and that was us.
    event.pidfd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Keeps this thread on one processor; where that is refused it is one more that runs anywhere.
fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    if let Err(errno) = set.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
        tracing::debug!(processor, error = errno.desc(), "no thread of its own for a processor");
    }
}
