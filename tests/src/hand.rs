//! Whoever does something to a socket: a real program (`rm`, `mv`, `mount`, `python3`), run to its end, whose name a
//! daemon with the privilege must then say; or a server of nobody's.

use crate::client::ping;
use crate::command::line_of;
use crate::fault::Context;
use crate::wait::wait_until;
use crate::{Fault, Result, World, bins};
use nix::unistd::{User, geteuid};
use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
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

/// A fixture server that nobody supervises; killed when it goes out of scope.
#[derive(Debug)]
pub struct Stranger {
    child: Child,
    /// Its process id.
    pub pid: i32,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Dead already is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stranger {
    /// Waits until it has ended by itself, or by another's hand.
    pub fn ended(&mut self) -> Result {
        let code = crate::command::wait_child(&mut self.child, LIMIT)?;
        crate::ensure!(code.is_some(), "the stranger {} still lives", self.pid);
        Ok(())
    }
}

impl World {
    /// Starts `unixd` by hand at a path, and waits until it is the one who answers there.
    pub fn stranger(&self, options: &[&str], path: &Path) -> Result<Stranger> {
        let mut command = self.command(self.unixd());
        let child = command.args(options).arg(path).stdin(Stdio::null()).spawn()?;
        let pid = i32::try_from(child.id())?;
        let stranger = Stranger { child, pid };
        let what = format!("the stranger {pid} answers at {}", path.display());
        wait_until(LIMIT, what, || ping(path).is_ok_and(|answers| answers == pid))?;
        Ok(stranger)
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
