//! Why a service could not be started, and what to do next.

use std::path::Path;

use nix::errno::Errno;

use crate::sys::exec::{Failure, Step};

/// A service that could not be started. Its [`help`](SpawnError::help) says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct SpawnError {
    /// Where it failed.
    pub step: Step,
    /// What the kernel answered.
    pub errno: Errno,
    /// What it was done to: a path, an id.
    pub subject: String,
    /// The interpreter in the program's first line, where the exec itself failed.
    pub interpreter: Option<String>,
}

impl SpawnError {
    /// True where trying again later may do: the machine was short of something.
    pub fn transient(&self) -> bool {
        use Errno::{EAGAIN, EMFILE, ENFILE, ENOMEM, ETIMEDOUT, ETXTBSY};
        matches!(self.errno, EAGAIN | ENOMEM | EMFILE | ENFILE | ETXTBSY | ETIMEDOUT)
    }

    /// True where nobody said anything: the trampoline was killed, or never made.
    pub fn is_silent(&self) -> bool {
        *self == SpawnError::died()
    }

    /// The spec's field at fault, where one is.
    pub fn field(&self) -> Option<&'static str> {
        match self.step {
            Step::Groups | Step::Uid => Some("user"),
            Step::Gid => Some("group"),
            Step::Cwd => Some("cwd"),
            Step::Program | Step::Exec => Some("exec"),
            Step::Listeners => Some("sockets"),
            Step::Spawn | Step::Session | Step::Stdin | Step::Limit => None,
        }
    }

    /// What to do next.
    pub fn help(&self) -> String {
        let program = &self.subject;
        match (self.step, self.errno, &self.interpreter) {
            (_, Errno::ETIMEDOUT, _) => "a filesystem hangs or the machine is overloaded: see `dmesg`".into(),
            (Step::Uid | Step::Gid | Step::Groups, Errno::EPERM, _) => {
                "only root may run a service as somebody else: run shimd as root, or leave out `user` and `group`".into()
            }
            (Step::Cwd, Errno::EACCES, _) => "let the service's user enter every folder on the way".into(),
            (Step::Cwd, _, _) => "create the folder, or correct `cwd`".into(),
            (Step::Program, Errno::ENOENT, _) if program.contains('/') => "install it, or correct the path".into(),
            (Step::Program, Errno::ENOENT, _) => {
                "install it, name its absolute path, or set PATH in the spec's `env`".into()
            }
            (Step::Program, Errno::EACCES, _) => {
                format!("it must be a regular file with the x bit for the service's user: `chmod +x {program}`")
            }
            (Step::Exec, Errno::ENOENT | Errno::ENOTDIR, Some(interpreter)) => {
                format!("its first line names the interpreter {interpreter}, which does not exist: install or correct it")
            }
            (Step::Exec, Errno::ENOENT, None) => {
                "the program is there, and the loader that it names is not: it was built for another system".into()
            }
            (Step::Exec, Errno::EACCES, Some(interpreter)) => {
                format!("its first line names the interpreter {interpreter}, which may not be executed")
            }
            (Step::Exec, Errno::EACCES, None) => "its filesystem may be mounted noexec".into(),
            (Step::Exec, Errno::ENOEXEC, _) => {
                "it is neither a binary of this machine nor a script with a first line such as `#!/bin/sh`".into()
            }
            (Step::Exec, Errno::E2BIG, _) => "arguments and environment together are too large: shorten them".into(),
            (Step::Exec, Errno::ETXTBSY, _) => "something still writes to the program's file: try again".into(),
            _ if self.transient() => "the machine is short of processes, memory or descriptors: see `ulimit -a`".into(),
            _ => "see shimd's own log".into(),
        }
    }

    pub(super) fn text(&self) -> String {
        let what = match self.step {
            Step::Spawn => "spawn",
            Step::Session => "open",
            Step::Stdin => "open",
            Step::Limit => "set the limit of",
            Step::Groups => "set the supplementary groups",
            Step::Gid => "become the group",
            Step::Uid => "become the user",
            Step::Cwd => "change to the folder",
            Step::Program => "find a program to run at",
            Step::Listeners => "hand over",
            Step::Exec => "run",
        };
        format!("cannot {what} {}: {} ({:?})", self.subject, self.errno.desc(), self.errno)
    }

    pub(super) fn at_spawn(errno: Errno, what: &Path) -> SpawnError {
        SpawnError { step: Step::Spawn, errno, subject: what.display().to_string(), interpreter: None }
    }

    /// The trampoline ended without a word: killed, most likely.
    pub(super) fn died() -> SpawnError {
        SpawnError::at_spawn(Errno::ECONNRESET, Path::new("the trampoline"))
    }

    pub(super) fn late(step: Step) -> SpawnError {
        SpawnError { step, ..SpawnError::at_spawn(Errno::ETIMEDOUT, Path::new("the trampoline")) }
    }
}

impl From<Failure> for SpawnError {
    fn from(f: Failure) -> SpawnError {
        SpawnError {
            step: f.step,
            errno: Errno::from_raw(f.errno),
            subject: f.subject,
            interpreter: f.interpreter,
        }
    }
}
