//! What execve takes, made of a plan: where the program may be, arguments and environment.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use super::{DEFAULT_PATH, Failure, Step, failure, handover};
use crate::sys::spawn::{ExecPlan, Listen};

/// All that can be made before the process exists that is to exec.
pub(super) struct Image {
    /// The program as it is named.
    name: String,
    /// Where it may be, in order.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
}

/// A program that is there.
pub(super) struct Program {
    path: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    /// Makes it. Nothing is looked up.
    ///
    /// # Errors
    /// `EINVAL`, where a text holds a NUL.
    pub fn of(plan: &ExecPlan) -> Result<Image, Failure> {
        let name = plan.argv.first().cloned().unwrap_or_default();
        // What sd_listen_fds(3) reads is set anew where there are listeners.
        let env = plan.env.iter().filter(|(k, _)| plan.listeners.is_empty() || !k.starts_with("LISTEN_"));
        Ok(Image {
            candidates: candidates(&name, &plan.env)?,
            argv: plan.argv.iter().map(|a| text(a.as_bytes())).collect::<Result<_, _>>()?,
            env: env.map(|(k, v)| text(format!("{k}={v}").as_bytes())).collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Finds the program, as the user that this process is and from its cwd.
    ///
    /// # Errors
    /// Of two findings the one that may be executed counts, as in execvp(3): `ENOENT` is of none at all.
    pub fn find(self) -> Result<Program, Failure> {
        let mut found = Errno::ENOENT;
        for path in self.candidates {
            match executable(&path) {
                Ok(()) => return Ok(Program { path, argv: self.argv, env: self.env }),
                Err(Errno::ENOENT | Errno::ENOTDIR) if !self.name.contains('/') => {}
                Err(errno) => found = errno,
            }
        }
        Err(failure(Step::Program, found, self.name))
    }
}

impl Program {
    /// Has the environment name the listeners, and this process: a child that inherits it must not take them for its own.
    ///
    /// # Errors
    /// As [`Image::of`].
    pub fn hand_over(&mut self, listeners: &[Listen]) -> Result<(), Failure> {
        for (k, v) in handover::env(listeners) {
            self.env.push(text(format!("{k}={v}").as_bytes())?);
        }
        Ok(())
    }

    /// Execs, and so returns only with why not.
    pub fn exec(&self) -> Failure {
        let Err(errno) = nix::unistd::execve(&self.path, &self.argv, &self.env);
        let program = Path::new(OsStr::from_bytes(self.path.to_bytes()));
        Failure { interpreter: interpreter(program), ..failure(Step::Exec, errno, program.display()) }
    }
}

/// Where execvp(3) looks: with a `/` there (from the cwd), else along PATH. Unlike with execvp, a file without a format is
/// not handed to a shell.
fn candidates(name: &str, env: &BTreeMap<String, String>) -> Result<Vec<CString>, Failure> {
    if name.contains('/') {
        return Ok(vec![text(name.as_bytes())?]);
    }
    let path = env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    // An empty entry is the cwd (execvp(3)); `name` itself is not empty in a spec, and a folder is refused.
    let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
    folders.map(|folder| text(Path::new(folder).join(name).as_os_str().as_bytes())).collect()
}

fn executable(path: &CStr) -> Result<(), Errno> {
    match SFlag::from_bits_truncate(stat(path)?.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS),
        _ => Err(Errno::EACCES),
    }
}

fn text(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| failure(Step::Program, Errno::EINVAL, "a text with a NUL in it"))
}

/// What the first line of a script names after `#!`.
fn interpreter(program: &Path) -> Option<String> {
    let mut line = Vec::new();
    File::open(program).ok()?.take(256).read_to_end(&mut line).ok()?;
    let line = String::from_utf8_lossy(line.strip_prefix(b"#!")?).into_owned();
    line.lines().next()?.split_whitespace().next().map(str::to_owned)
}
