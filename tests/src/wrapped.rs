//! `shimd wrap` as a child, with what it says and how it ends.
#![allow(unsafe_code)] // signal dispositions of the child, before its exec

use crate::fault::Context;
use crate::{Fault, Result, World, processes, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A wrap that was started; killed when it is dropped.
pub struct Wrapped {
    child: Child,
    errors: PathBuf,
}

impl World {
    /// The command line of `shimd wrap` with these arguments.
    pub fn wrap_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(self.bin("shimd"));
        command.arg("wrap").args(arguments);
        command
    }

    /// Starts `shimd wrap` with these arguments.
    pub fn wrap(&self, arguments: &[&str]) -> Result<Wrapped> {
        self.wrap_by(self.wrap_command(arguments))
    }

    /// The same of a command that was made ready. Its output goes to files of the world.
    pub fn wrap_by(&self, mut command: Command) -> Result<Wrapped> {
        let count = fs::read_dir(self.folder().join("w"))?.count();
        let errors = self.file(&format!("wrap-{count}.err"));
        let output = File::create(self.file(&format!("wrap-{count}.out")))?;
        command.stdin(Stdio::null()).stdout(output).stderr(File::create(&errors)?);
        self.note(format!("$ {}", crate::command::line_of(&command)));
        hears_the_terminal(&mut command);
        Ok(Wrapped { child: command.spawn().context("cannot run shimd wrap")?, errors })
    }
}

/// A shell that starts the tests in the background has them ignore what a terminal sends, and a shell cannot trap what
/// was ignored before it began (POSIX).
fn hears_the_terminal(command: &mut Command) {
    // SAFETY: signal(2) alone, which may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            for heard in [libc::SIGINT, libc::SIGQUIT] {
                libc::signal(heard, libc::SIG_DFL);
            }
            Ok(())
        });
    }
}

impl Wrapped {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The process between it and the service.
    pub fn keeper(&self) -> Result<i32> {
        processes::children(self.pid()).first().copied().context("wrap has no keeper")
    }

    /// What it and its service wrote to stderr so far.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Where that is written.
    pub fn errors_file(&self) -> &PathBuf {
        &self.errors
    }

    /// Waits until it has said this.
    pub fn says(&self, limit: Duration, words: &str) -> Result {
        wait_until(limit, format!("wrap says {words:?}"), || self.errors().contains(words))
            .map_err(|fault| Fault(format!("{fault}; it said:\n{}", self.errors())))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Waits for its end.
    pub fn ends(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                return Err(Fault(format!("wrap did not end within {limit:?}; it said:\n{}", self.errors())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end with this exit status.
    pub fn exits(&mut self, limit: Duration, code: i32) -> Result {
        let status = self.ends(limit)?;
        crate::ensure!(
            status.code() == Some(code),
            "ended with {status}, not with {code}; it said:\n{}",
            self.errors()
        );
        Ok(())
    }

    /// Waits for its death of this signal.
    pub fn dies_of(&mut self, limit: Duration, signal: Signal) -> Result {
        let status = self.ends(limit)?;
        crate::ensure!(
            status.signal() == Some(signal as i32),
            "ended with {status}, not of {signal}; it said:\n{}",
            self.errors()
        );
        Ok(())
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        // Its service goes with it; a scenario that fails leaves it alive.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
