//! One spawn of the service by the keeper, and what wait(2) says of children.
//!
//! The keeper is small and has one thread: a plain fork costs it 0.2 ms, and between fork and exec everything is
//! allowed. The child is what it would have been without us, but for these:
//!
//! | of wrap's | in the service |
//! | --- | --- |
//! | `LISTEN_PID`, `WATCHDOG_PID` (wrap's number) | its own number |
//! | `NOTIFY_SOCKET`, `WATCHDOG_*` | with `--notify` the relay's address and as they are, else removed: the manager would not believe it |
//! | `SHIMD_INSTANCE` | a mark of this wrap, if there is none |
//! | the descriptor of `--notify-fd` | closed |
//! | PDEATHSIG | SIGKILL, from the keeper |
#![allow(unsafe_code)] // fork, and waitpid for deaths by signals that nix has no name for

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, execvpe, fork, getpid, getppid, pipe2};

use super::super::args::Plan;
use super::super::inherited::Inherited;
use crate::sys::pidfd::PidFd;
use crate::sys::spawn::MARK_VARIABLE;

/// The service's main process, held.
#[derive(Debug)]
pub(super) struct Service(PidFd);

impl Service {
    /// A child of ours, by its number.
    pub(super) fn open(pid: i32) -> Option<Service> {
        PidFd::open(pid).ok().map(Service)
    }

    pub(super) fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// One that has ended, or become another user's, does not get it: as without us.
    pub(super) fn signal(&self, signal: i32) {
        let _ = self.0.signal(signal);
    }
}

/// Signals a child by its number. Nobody but us reaps it: it is still that child, or its zombie.
pub(super) fn signal_child(pid: i32, signal: i32) {
    // SAFETY: two integers; a signal changes no memory of ours.
    unsafe { libc::kill(pid, signal) };
}

/// Forks and executes; returns when the program runs.
///
/// # Errors
/// ENOENT: no such program; or whatever forbids to execute it.
pub(super) fn spawn(
    plan: &Plan,
    generation: u32,
    inherited: &Inherited,
    notify: Option<&str>,
) -> Result<Service, Errno> {
    let argv = plan.argv(generation);
    let keeper = getpid();
    let (report, mut fault) = channel()?;
    // SAFETY: the keeper has one thread, so no lock is held in the copy.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            if getppid() != keeper {
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(0) } // the keeper died before that, and nobody is left to be told
            }
            let errno = become_service(plan, &argv, inherited, notify);
            let _ = fault.write_all(&(errno as i32).to_ne_bytes());
            // SAFETY: as above.
            unsafe { libc::_exit(127) }
        }
    };
    // Before it can be reaped: it is that process and no other.
    let service = PidFd::open(child.as_raw()).map_err(|error| error.errno)?;
    drop(fault);
    match read_fault(report) {
        None => Ok(Service(service)),
        Some(errno) => Err(errno),
    }
}

fn channel() -> Result<(File, File), Errno> {
    let (read, write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((File::from(read), File::from(write)))
}

/// The end of file comes with the exec, which closes the pipe.
fn read_fault(mut report: File) -> Option<Errno> {
    let mut errno = [0; 4];
    report.read_exact(&mut errno).ok().map(|()| Errno::from_raw(i32::from_ne_bytes(errno)))
}

/// Returns only with what went wrong.
fn become_service(plan: &Plan, argv: &[CString], inherited: &Inherited, notify: Option<&str>) -> Errno {
    let env = environment(std::env::vars_os(), plan, notify, getpid().as_raw());
    let Some(program) = argv.first() else { return Errno::ENOENT };
    if let Err(errno) = inherited.put_back() {
        return errno;
    }
    match execvpe(program, argv, &env) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// The service's environment: see the module's table.
fn environment(
    own: impl Iterator<Item = (OsString, OsString)>,
    plan: &Plan,
    notify: Option<&str>,
    pid: i32,
) -> Vec<CString> {
    let wrap = plan.wrap.to_string();
    let mut env = Vec::new();
    let mut marked = false;
    for (name, mut value) in own {
        match name.as_bytes() {
            b"LISTEN_PID" | b"WATCHDOG_PID" if value == wrap.as_str() => value = pid.to_string().into(),
            b"NOTIFY_SOCKET" => continue,
            _ => {}
        }
        if name.as_bytes().starts_with(b"WATCHDOG_") && !plan.notify {
            continue;
        }
        marked |= name == MARK_VARIABLE;
        env.push(variable(name, value));
    }
    if let Some(address) = notify {
        env.push(variable("NOTIFY_SOCKET".into(), address.into()));
    }
    if !marked {
        env.push(variable(MARK_VARIABLE.into(), plan.mark.clone().into()));
    }
    env
}

fn variable(name: OsString, value: OsString) -> CString {
    let mut bytes = name.into_vec();
    bytes.push(b'=');
    bytes.extend(value.as_bytes());
    // Came out of an environment, or from us: without a NUL.
    CString::new(bytes).unwrap_or_default()
}

/// What wait(2) says of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wrap) enum Waited {
    /// It ended, and is reaped.
    Ended {
        /// Its number.
        pid: i32,
        /// How it ended.
        status: i32,
    },
    /// It was stopped.
    Stopped {
        /// Its number.
        pid: i32,
        /// By this signal.
        signal: i32,
    },
    /// It goes on.
    Continued {
        /// Its number.
        pid: i32,
    },
    /// There are children, and nothing to say of them.
    Nobody,
    /// There is no child.
    Childless,
}

/// Asks for one child, without waiting; `spare`: one that somebody else reaps (0: none).
pub(in crate::wrap) fn reap(spare: i32) -> Waited {
    // SAFETY: all fields are integers or unions of them, for which zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let look = libc::WNOHANG | libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
    // SAFETY: the kernel writes one siginfo_t, which this is.
    match Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, look | libc::WNOWAIT) }) {
        Ok(_) => {}
        Err(Errno::EINTR) => return reap(spare),
        Err(_) => return Waited::Childless,
    }
    // SAFETY: waitid has filled it in, or left it zero where there is nothing to say.
    let (pid, what) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 || pid == spare {
        return Waited::Nobody;
    }
    let mut status = 0;
    // SAFETY: the kernel writes one int, which this is.
    let taken =
        unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED) };
    match taken {
        _ if taken != pid => Waited::Nobody,
        _ if libc::WIFSTOPPED(status) => Waited::Stopped { pid, signal: what },
        _ if libc::WIFCONTINUED(status) => Waited::Continued { pid },
        _ => Waited::Ended { pid, status },
    }
}
