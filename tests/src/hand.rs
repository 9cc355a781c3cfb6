#![allow(unsafe_code)] // fanotify_init and fanotify_mark: asked once, only whether they work here
//! Whoever does something to a socket: a real program (`rm`, `mv`, `mount`, `python3`), run to its end, whose name a
//! daemon with the privilege must then say.

use crate::command::line_of;
use crate::fault::Context;
use crate::{Fault, Result, World, bins};
use nix::unistd::{User, geteuid};
use std::ffi::{CString, OsStr};
use std::fmt;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A program that has done its work.
#[derive(Debug, Clone)]
pub struct Hand {
    /// Its process id.
    pub pid: i32,
    /// Its command name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
}

impl fmt::Display for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, uid {})", self.name, self.pid, self.uid)
    }
}

impl World {
    /// Runs a program of the system as the world's user; it must exit with 0.
    pub fn hand<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Result<Hand> {
        self.hand_as(self.user().cloned().as_ref(), program, arguments)
    }

    /// The same as another user; `None` is the test's own.
    pub fn hand_as<A: AsRef<OsStr>>(
        &self,
        user: Option<&User>,
        program: &str,
        arguments: &[A],
    ) -> Result<Hand> {
        let (hand, code) = self.hand_that_exits(user, program, arguments)?;
        crate::ensure!(code == Some(0), "{hand} exited with {code:?}: see above");
        Ok(hand)
    }

    /// The same, whatever its exit status, which is given too.
    pub fn hand_that_exits<A: AsRef<OsStr>>(
        &self,
        user: Option<&User>,
        program: &str,
        arguments: &[A],
    ) -> Result<(Hand, Option<i32>)> {
        let found = bins::on_path(program).context(format!("{program} is not installed"))?;
        let mut command = Command::new(found);
        command.args(arguments).env_clear().envs(self.environment()).current_dir("/");
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let line = line_of(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context(format!("cannot run {line}"))?;
        let hand = Hand {
            pid: i32::try_from(child.id())?,
            name: program.to_owned(),
            uid: user.map_or_else(geteuid, |user| user.uid).as_raw(),
        };
        let code = crate::command::wait_child(&mut child, LIMIT)?;
        let Some(code) = code else {
            child.kill()?;
            child.wait()?;
            return Err(Fault(format!("{line}: not done within {LIMIT:?}, killed")));
        };
        self.note(format!("$ {line}  [{hand}, exit {code:?}]\n{}", errors_of(&mut child)));
        Ok((hand, code))
    }
}

fn errors_of(child: &mut Child) -> String {
    let mut errors = String::new();
    if let Some(pipe) = &mut child.stderr {
        // Words for a person who looks into a failure: without them there is still the exit status.
        let _ = pipe.read_to_string(&mut errors);
    }
    errors
}

/// Whether the kernel tells this process who removes files of the folder: fanotify with names and pidfds, as root.
pub fn culprits_are_told(folder: &Path) -> bool {
    let class =
        libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_PIDFD;
    let Ok(path) = CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: no pointer is passed; a descriptor or -1 is returned.
    let group = unsafe { libc::fanotify_init(class, 0) };
    if group < 0 {
        return false;
    }
    // SAFETY: `group` was just opened and belongs to nobody else.
    let group = unsafe { OwnedFd::from_raw_fd(group) };
    let events = libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_ONDIR;
    // SAFETY: `path` ends with a NUL byte and outlives the call.
    let marked = unsafe {
        libc::fanotify_mark(group.as_raw_fd(), libc::FAN_MARK_ADD, events, libc::AT_FDCWD, path.as_ptr())
    };
    marked == 0
}
