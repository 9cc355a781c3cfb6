//! Who a process is, while it can still be asked.
//!
//! `rm` lives for less than a millisecond after its unlink. What is lost first is asked first:
//!
//! | what | lost when the process |
//! | --- | --- |
//! | `exe`, the mark in `environ` | exits |
//! | `comm`, the owner of `/proc/<pid>` (its effective uid) | is reaped |
//!
//! A process whose look came too late is known by what an earlier deed of it told, if that was not long ago.
#![allow(unsafe_code)] // pidfd_send_signal has no wrapper in nix

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};

use super::Who;
use crate::sys::identity::ProcStat;
use crate::sys::tree::environ_mark;

/// For how long a number is taken for the process that it was: numbers go round in seconds at the very fastest.
const REMEMBERED: Duration = Duration::from_secs(3);
/// How many processes are remembered.
const KNOWN: usize = 256;

/// What `Who::name` is where the process cannot be seen from here.
const OUTSIDE: &str = "(a process outside this pid namespace)";

/// Names processes, and remembers those it has named.
#[derive(Debug)]
pub(super) struct Witness {
    own: Who,
    known: HashMap<i32, (Instant, Who)>,
}

impl Witness {
    pub(super) fn new() -> Witness {
        let pid = std::process::id().cast_signed();
        Witness { own: look(pid).unwrap_or_else(|| nobody(pid)), known: HashMap::new() }
    }

    /// Who `pid` is. `held`: the process itself, `None` where it was reaped before the event was read (or no descriptor
    /// was left for it); then its number says nothing, for it may be another's.
    pub(super) fn name(&mut self, pid: i32, held: Option<&OwnedFd>, now: Instant) -> Who {
        if pid == 0 {
            return Who { name: OUTSIDE.into(), ..nobody(0) };
        }
        if pid == self.own.pid {
            return self.own.clone();
        }
        let earlier = self.known.get(&pid).filter(|(at, _)| now.duration_since(*at) < REMEMBERED);
        let earlier = earlier.map(|(_, who)| who.clone());
        let who = match (held.and_then(|held| look_at(pid, held.as_fd())), earlier) {
            (None, None) => return nobody(pid),
            (None, Some(earlier)) => return earlier,
            (Some(who), None) => who,
            (Some(who), Some(earlier)) => complete(who, earlier),
        };
        if self.known.len() >= KNOWN {
            self.known.retain(|_, (at, _)| now.duration_since(*at) < REMEMBERED);
        }
        if self.known.len() < KNOWN {
            self.known.insert(pid, (now, who.clone()));
        }
        who
    }
}

fn nobody(pid: i32) -> Who {
    Who { pid, name: String::new(), exe: None, uid: None, mark: None }
}

/// A zombie has neither `exe` nor environ: as it was before, if it is the same program that was seen then.
fn complete(who: Who, earlier: Who) -> Who {
    let same = who.exe.is_none() && who.name == earlier.name && who.uid == earlier.uid;
    if same { Who { exe: earlier.exe, mark: who.mark.or(earlier.mark), ..who } } else { who }
}

/// What `/proc` says of the process that `held` holds, and of no other with its number.
fn look_at(pid: i32, held: BorrowedFd<'_>) -> Option<Who> {
    let who = look(pid)?;
    // Not reaped after the look: then the number was its own all the while. Reaped meanwhile: so must the one be
    // that has the number, or it is another.
    (!is_reaped(held) || ProcStat::read(pid).is_err()).then_some(who)
}

fn look(pid: i32) -> Option<Who> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).ok()?;
    let exe = readlinkat(&folder, "exe").ok();
    let name = comm(&folder)?;
    let uid = fstat(&folder).ok().map(|stat| stat.st_uid);
    let mark = environ_mark(pid);
    Some(Who { pid, name, exe: exe.map(|exe| exe.to_string_lossy().into_owned()), uid, mark })
}

fn comm(folder: &OwnedFd) -> Option<String> {
    let file = openat(folder, "comm", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut name = Vec::with_capacity(64);
    File::from(file).read_to_end(&mut name).ok()?;
    Some(String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned())
}

/// True once the number of the process may be another's.
fn is_reaped(held: BorrowedFd<'_>) -> bool {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: signal 0 with a null siginfo is only a question.
    let asked = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held.as_raw_fd(), 0, nothing, 0) };
    Errno::result(asked) == Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::pidfd::PidFd;

    #[test]
    fn process_outside_and_one_that_is_gone_are_nobody() {
        let mut witness = Witness::new();
        let now = Instant::now();
        assert_eq!(witness.name(0, None, now), Who { name: OUTSIDE.into(), ..nobody(0) });
        assert_eq!(witness.name(1, None, now), nobody(1), "its number is not asked: it may be another's");
        let own = std::process::id().cast_signed();
        assert_eq!(witness.name(own, None, now), look(own).unwrap());
    }

    #[test]
    fn process_is_remembered_as_a_zombie_and_after_it_for_a_while() {
        let mut child = Command::new("sleep")
            .arg("1000")
            .env("SHIMD_INSTANCE", "test/svc/7")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let process = PidFd::open(pid).unwrap();
        let held = process.as_fd().try_clone_to_owned().unwrap();
        let (mut witness, now) = (Witness::new(), Instant::now());
        // `spawn` returns in the midst of the exec: the environ comes a moment later.
        while environ_mark(pid).is_none() && now.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        let alive = witness.name(pid, Some(&held), now);
        child.kill().unwrap();
        while process.is_alive() {
            std::thread::yield_now();
        }
        let zombie = witness.name(pid, Some(&held), now);
        let unknown = Witness::new().name(pid, Some(&held), now);
        child.wait().unwrap();
        assert_eq!((alive.name.as_str(), alive.mark.as_deref()), ("sleep", Some("test/svc/7")));
        assert!(alive.exe.is_some() && alive.uid.is_some(), "{alive:?}");
        assert_eq!(zombie, alive);
        assert_eq!(unknown, Who { exe: None, mark: None, ..alive.clone() });
        assert_eq!(witness.name(pid, Some(&held), now), alive);
        assert_eq!(witness.name(pid, None, now), alive);
        assert_eq!(witness.name(pid, None, now + REMEMBERED), nobody(pid));
        let own = std::process::id().cast_signed();
        assert_eq!(look_at(own, held.as_fd()), None, "the number is another's by now");
    }

    #[test]
    fn zombie_of_another_program_is_not_completed() {
        let who =
            |name: &str, exe: Option<&str>| Who { name: name.into(), exe: exe.map(Into::into), ..nobody(7) };
        let earlier = who("sh", Some("/bin/sh"));
        assert_eq!(complete(who("rm", None), earlier.clone()), who("rm", None));
        assert_eq!(complete(who("sh", None), earlier.clone()), earlier);
        assert_eq!(complete(who("sh", Some("/sh")), earlier), who("sh", Some("/sh")));
    }
}
