//! What a client sees at a path: one connection, one question, each with a bound.
//!
//! A client is a process of its own (`unixd probe TYPE PATH`), since a test that runs as root passes every mode bit.

use crate::client::address;
use crate::command::run;
use crate::fault::Context;
use crate::{Result, World, wait_until};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv, send, socket,
};
use nix::unistd::User;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

/// How long a client waits for an answer before it calls it a hang.
const PATIENCE: u16 = 1500;

/// How long a process of the service may be unknown to the daemon.
const YOUNG: Duration = Duration::from_millis(200);

/// How long a client's process may take in all.
const CLIENT: Duration = Duration::from_secs(10);

/// What a client saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The service's own process answers.
    Answers,
    /// Another process answers.
    WrongServer,
    /// No answer in time, or no room in the queue (EAGAIN).
    Hang,
    /// The connection was closed without an answer.
    Closed,
    /// The connection failed, with this errno's name.
    Refused(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seen::Answers => "answers",
            Seen::WrongServer => "the wrong server",
            Seen::Hang => "a hang",
            Seen::Closed => "an end without an answer",
            Seen::Refused(errno) => errno,
        })
    }
}

/// Connects and asks `ping`; gives the answer, `hang`, `closed`, or the name of an errno.
pub fn probe(path: &Path, kind: SockType) -> Result<String> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, kind, flags, None)?;
    if kind == SockType::Datagram {
        bind(fd.as_raw_fd(), &UnixAddr::new_unnamed())?;
    }
    let asked = connect(fd.as_raw_fd(), &address(path)?)
        .and_then(|()| send(fd.as_raw_fd(), b"ping\n", MsgFlags::MSG_NOSIGNAL));
    match asked {
        Ok(_) => {}
        Err(Errno::EAGAIN) => return Ok("hang".into()),
        Err(errno) => return Ok(format!("{errno:?}")),
    }
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(PATIENCE))? == 0 {
        return Ok("hang".into());
    }
    let mut answer = [0; 256];
    match recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()) {
        Ok(0) => Ok("closed".into()),
        Ok(count) => {
            let text = String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned();
            Ok(text.trim_end().to_owned())
        }
        Err(errno) => Ok(format!("{errno:?}")),
    }
}

impl World {
    /// What a client sees at `path`, as `user` or else the world's own; `own` gives, after the
    /// answer, the processes whose answer is the right one: a server may have forked meanwhile.
    pub fn probe(
        &self,
        path: &Path,
        kind: &str,
        user: Option<&User>,
        own: impl Fn() -> Vec<i32>,
    ) -> Result<Seen> {
        let mut command = self.command(self.bin("unixd"));
        command.args(["probe", kind]).arg(path);
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let ran = run(command, CLIENT)?.success()?;
        self.note(&ran);
        let words = ran.stdout.trim_end();
        if let Some(pid) = words.strip_prefix("pong ") {
            let pid: i32 = pid.parse().context(words)?;
            // The daemon's list of an instance's processes may be some milliseconds old, and a worker younger.
            let is_own = wait_until(YOUNG, "it is one of the service's", || own().contains(&pid)).is_ok();
            return Ok(if is_own { Seen::Answers } else { Seen::WrongServer });
        }
        Ok(match words {
            "hang" => Seen::Hang,
            "closed" => Seen::Closed,
            errno if errno.starts_with('E') => Seen::Refused(errno.to_owned()),
            _ => Seen::WrongServer,
        })
    }
}
