//! What the service would have had without us: the signal mask and the ignored signals of whoever started wrap.
//!
//! Wrap blocks every signal, to read them one by one, and waits for its child, which takes SIGCHLD's default
//! disposition. Rust's runtime ignores SIGPIPE before `main`, so that one is looked at earlier still.
#![allow(unsafe_code)] // nix can set a disposition, and not ask for one

use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, signal};

/// Set before `main`.
static SIGPIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

/// Runs before Rust's runtime, as functions of this section do (the ELF gABI's "Initialization and Termination").
// SAFETY: the loader calls what lies here once, with arguments that need not be taken; it only asks the kernel.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_at_sigpipe;

extern "C" fn look_at_sigpipe() {
    SIGPIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: all fields are integers or function pointers that may be null, for which zero is a value.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with no new action the kernel only writes the old one, for which there is room.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut found) };
    asked == 0 && found.sa_sigaction == libc::SIG_IGN
}

/// Mask and dispositions as they were handed to wrap.
#[derive(Debug, Clone)]
pub struct Inherited {
    mask: SigSet,
    sigpipe_ignored: bool,
    sigchld_ignored: bool,
}

impl Inherited {
    /// Notes what was inherited, then blocks all signals and gives SIGCHLD back its default: ignored, the kernel would
    /// reap the service before we could ask how it ended.
    ///
    /// # Errors
    /// Only what no kernel says of a valid set.
    pub fn take() -> Result<Inherited, Errno> {
        let mut mask = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
        let sigpipe_ignored = SIGPIPE_WAS_IGNORED.load(Ordering::Relaxed);
        let sigchld_ignored = is_ignored(libc::SIGCHLD);
        set(Signal::SIGCHLD, SigHandler::SigDfl)?;
        Ok(Inherited { mask, sigpipe_ignored, sigchld_ignored })
    }

    /// Puts it back, in the process that is about to be the service.
    ///
    /// # Errors
    /// As [`Inherited::take`].
    pub fn put_back(&self) -> Result<(), Errno> {
        let disposition = |ignored| if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
        set(Signal::SIGPIPE, disposition(self.sigpipe_ignored))?;
        set(Signal::SIGCHLD, disposition(self.sigchld_ignored))?;
        pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None)
    }
}

fn set(which: Signal, disposition: SigHandler) -> Result<(), Errno> {
    // SAFETY: both dispositions run no code of ours.
    unsafe { signal(which, disposition) }.map(drop)
}

/// Dies of `number`, as the service did, so that whoever waits for us sees the same. Returns only where a process cannot
/// die of it: the first of a pid namespace.
pub fn die_of(number: i32) {
    // The service has left its core already, if it was to.
    let _ = nix::sys::prctl::set_dumpable(false);
    let Ok(which) = Signal::try_from(number) else {
        // A real-time signal, which nix has no name for.
        // SAFETY: the default disposition runs no code of ours.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        return raise_unblocked(number);
    };
    let _ = set(which, SigHandler::SigDfl);
    raise_unblocked(number);
}

fn raise_unblocked(number: i32) {
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // SAFETY: a signal to ourselves, of a disposition that was just set.
    unsafe { libc::kill(libc::getpid(), number) };
}
