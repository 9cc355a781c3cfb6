//! How soon a thread of the daemon gets a processor.
//!
//! | threads | policy | why |
//! | --- | --- | --- |
//! | those that read fanotify | SCHED_FIFO | they must be quicker than the process that did the deed is gone |
//! | the supervisor's, the server's, the store's | SCHED_OTHER, the shortest slice | a client that spins on a lost socket must not keep its own repair waiting |
//! | the template, and its trampolines until they exec | the same | a restart waits for them |
//!
//! A short slice is no more processor time, and needs no right: it only says that what this thread does is short, so
//! that on waking it goes before a thread that computes (EEVDF gives the processor to the earliest deadline). Without
//! it the thread may wait behind its own waker for the rest of that one's slice: 2 ms and more, sched(7).
//!
//! The daemon's own are reset on fork, and a trampoline takes its own back before it execs: no service is other than ordinary.
#![allow(unsafe_code)] // the scheduler's calls have no wrapper in nix

use nix::errno::Errno;

/// The shortest that the kernel takes: 0.1 ms.
const SLICE_NANOS: u64 = 100_000;

/// Lets the calling thread run before all ordinary ones, as far as that is permitted.
pub fn first() {
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    let priority = libc::sched_param { sched_priority: 1 };
    // The system call itself: musl's function only says ENOSYS.
    // SAFETY: 0 is the calling thread, and the kernel only reads the struct.
    let set = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) };
    if let Err(errno) = Errno::result(set) {
        tracing::debug!(error = errno.desc(), "no real-time priority: some culprits will be gone too early");
    }
}

/// Lets the calling thread run soon after it was woken; its nice value stays. Kernels before 6.12 know no slice of a
/// thread's own and do nothing; under another policy than SCHED_OTHER nothing is changed.
pub fn soon() {
    if let Err(errno) = slice(SLICE_NANOS, libc::SCHED_FLAG_RESET_ON_FORK as u64) {
        tracing::debug!(error = errno.desc(), "no short slice for a thread of the daemon");
    }
}

/// The same for a process that becomes a service, and for those that it forks: until [`ordinarily`]. (Once a thread is
/// reset on fork, it takes a right to be otherwise.)
pub fn soon_until_exec() {
    let _ = slice(SLICE_NANOS, 0); // without it, it waits longer
}

/// The slice that the kernel gives to everybody.
pub fn ordinarily() {
    let _ = slice(0, 0); // what could not be set is not left either
}

fn slice(nanoseconds: u64, flags: u64) -> Result<(), Errno> {
    let mut attr = attributes()?;
    if attr.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attr.sched_runtime = nanoseconds;
    attr.sched_flags |= flags;
    // SAFETY: 0 is the calling thread, and the kernel only reads the struct, whose size is in it.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// Those of the calling thread.
fn attributes() -> Result<libc::sched_attr, Errno> {
    // SAFETY: a struct of numbers.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: 0 is the calling thread, and the kernel writes no more than `size` bytes.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) })?;
    Ok(attr)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The slice and the flags of a new thread that does this first, and of one that it starts.
    fn told_after(what: fn()) -> [(u64, u64); 2] {
        let told = || attributes().map(|attr| (attr.sched_runtime, attr.sched_flags)).unwrap();
        let thread = thread::spawn(move || {
            what();
            [told(), thread::spawn(told).join().unwrap()]
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_short_slice_is_the_threads_own() {
        let [(ordinary, _), _] = told_after(|| {});
        let [(short, flags), (of_the_next, none)] = told_after(soon);
        assert_eq!(flags & libc::SCHED_FLAG_RESET_ON_FORK as u64, libc::SCHED_FLAG_RESET_ON_FORK as u64);
        assert_eq!((of_the_next, none), (ordinary, 0), "what it starts is ordinary");
        // 0: the kernel tells of no slices (before 6.12).
        assert_eq!(short, if ordinary == 0 { 0 } else { SLICE_NANOS });
    }

    #[test]
    fn what_is_to_exec_hands_its_slice_on_and_takes_it_back() {
        let [ordinary, _] = told_after(|| {});
        let [own, of_the_next] = told_after(soon_until_exec);
        assert_eq!(own, (if ordinary.0 == 0 { 0 } else { SLICE_NANOS }, ordinary.1));
        assert_eq!(of_the_next, own);
        let back = || {
            soon_until_exec();
            ordinarily();
        };
        assert_eq!(told_after(back), [ordinary; 2]);
    }
}
