//! Bridges: a process that stands in at a path for a listener whose file is gone, until that service is restarted.
//!
//! `shimd __bridge PID PATH` binds a socket at the path and passes each connection on to the nameless listener, both
//! ways. It is a process of its own, in a session of its own, so that it outlives the daemon that started it, and its
//! command line says what it is ([`socket_audit::bridge`]).
//!
//! | it ends when | within |
//! | --- | --- |
//! | the process that listens has ended, and nobody else holds the listener | a moment |
//! | nobody listens any more | a second, or the next client |
//! | its own file was removed or replaced | a second |
//! | it is told to (SIGTERM: [`retire`]) | a moment |
//!
//! It then stops to listen, removes its file if that is still its own, and lets connections that are open finish.
//!
//! Whose listener is bridged to is not taken on trust: the name that a listener was bound to may be relative to a folder
//! that has been left since, lead through a link that has been changed, or be of another mount namespace. So the user who
//! made it must be one who may make files where the bridge is to stand: nobody gets a place that they could not have
//! taken by themselves.
//!
//! What a bridge cannot carry: descriptors (SCM_RIGHTS), and its clients' pids. Their users and groups it does
//! ([`crate::sys::as_peer`]).

mod process;
mod site;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use socket_audit::bridge::{ARGUMENT, Bridge, PROGRAM};
use socket_audit::{Diag, ListenerId};

use crate::sys::pidfd::PidFd;

pub use process::main;

/// How long a bridge may take until it listens: it makes a folder and a socket.
const START: Duration = Duration::from_secs(5);
/// How long one may take to stop to listen.
const STOP: Duration = Duration::from_secs(2);

/// What a bridge is told on its stdin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Where it is to stand: absolute.
    pub path: PathBuf,
    /// The process that listens.
    pub pid: i32,
    /// Its listener.
    pub listener: ListenerId,
    /// Who made it, where the kernel tells.
    pub creator: Option<u32>,
    /// How many clients may wait there.
    pub backlog: u32,
}

/// What it says on its stdout, once.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It listens. With what the operator should know of it.
    Listens(Option<String>),
    /// It cannot, and why.
    Cannot(String),
}

/// Why there is no bridge.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No process could be had.
    #[error("{}: cannot start a bridge: {source}; see the limits of processes and memory", path.display())]
    Spawn {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says why itself.
    #[error("{0}")]
    Cannot(String),
    /// It said nothing.
    #[error("{}: the bridge {what}; look at the path, and try again", path.display())]
    Silent {
        /// The path.
        path: PathBuf,
        /// What it did instead.
        what: &'static str,
    },
}

/// Starts a bridge and waits until it listens; says what is to be known of it. Blocks, for 5 s at most. The bridge
/// becomes a child that the caller has to reap when it ends (the daemon's reaper does).
///
/// # Errors
/// [`StartError`]; then nothing is left.
pub fn start(order: &Order) -> Result<Option<String>, StartError> {
    start_with(Path::new("/proc/self/exe"), order)
}

/// [`start`] with the path of the binary.
///
/// # Errors
/// As [`start`].
#[allow(clippy::zombie_processes)] // the reaper waits for every child of the daemon
pub fn start_with(shimd: &Path, order: &Order) -> Result<Option<String>, StartError> {
    let spawn = |source| StartError::Spawn { path: order.path.clone(), source };
    let mut child = Command::new(shimd)
        .arg0(PROGRAM)
        .args([ARGUMENT, &order.pid.to_string()])
        .arg(&order.path)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(spawn)?;
    // Held before it can end and be reaped: its number may be another's by then.
    let held = PidFd::open(child.id() as i32);
    let answer = converse(&mut child, order);
    if !matches!(answer, Ok(Answer::Listens(_)))
        && let Ok(held) = held
    {
        // It has ended by itself, or hangs.
        let _ = held.signal(libc::SIGKILL);
    }
    match answer {
        Ok(Answer::Listens(note)) => Ok(note),
        Ok(Answer::Cannot(why)) => Err(StartError::Cannot(why)),
        Err(what) => Err(StartError::Silent { path: order.path.clone(), what }),
    }
}

fn converse(child: &mut Child, order: &Order) -> Result<Answer, &'static str> {
    const GONE: &str = "ended before it said anything";
    let text = serde_json::to_vec(order).map_err(|_| "cannot be told of a path that is not UTF-8")?;
    // The order is smaller than a pipe: this does not block. Its end is the end of the text.
    child.stdin.take().ok_or(GONE)?.write_all(&text).map_err(|_| GONE)?;
    let mut said = child.stdout.take().ok_or(GONE)?;
    let until = Instant::now() + START;
    let mut answer = Vec::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(said.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => continue,
            Ok(0) => return Err("did not listen in time"),
            Ok(_) | Err(_) => {}
        }
        let mut part = [0; 4096];
        match said.read(&mut part) {
            Ok(0) => return serde_json::from_slice(&answer).map_err(|_| GONE),
            Ok(count) => answer.extend(part.iter().take(count)),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(GONE),
        }
    }
}

/// The bridge of our own user that a process is, if it stands at this path.
pub fn ours(pid: i32, path: &Path) -> Option<Bridge> {
    Bridge::of(pid).filter(|bridge| bridge.path == path && bridge.user == Some(geteuid().as_raw()))
}

/// Ends a bridge: once this returns it listens no more. Connections that are open go on, unless it has to be killed.
pub fn retire(bridge: &Bridge, listener: ListenerId) {
    let Ok(process) = PidFd::open(bridge.pid) else { return };
    // Its number may have become another's between the look and the hold.
    if Bridge::of(bridge.pid).as_ref() != Some(bridge) || process.signal(libc::SIGTERM).is_err() {
        return;
    }
    let mut diag = Diag::open().ok();
    let mut listens =
        || diag.as_mut().is_none_or(|diag| !matches!(diag.query(listener.inode, listener.cookie), Ok(None)));
    let until = Instant::now() + STOP;
    while process.is_alive() && listens() {
        if Instant::now() >= until {
            let _ = process.signal(libc::SIGKILL);
        }
        let _ = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::from(2u8));
    }
}
