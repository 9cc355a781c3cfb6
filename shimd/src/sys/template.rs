//! The template: `shimd __template`, a process that is a trampoline already and makes more of itself.
//!
//! An exec of the daemon's own binary for each start costs a loader, a runtime and their page faults: about 1.5 ms, more
//! than many a server takes to come up. The template has that behind it once. It is small and has one thread, so that a
//! fork of it takes 0.1 ms, and the daemon stays its children's parent:
//!
//! | daemon | | template |
//! | --- | --- | --- |
//! | one message a start | → byte, and descriptors: channel, stdout, stderr, and with `c` the cgroup's folder | makes a child *of the daemon* (`CLONE_PARENT`), born in the cgroup if there is one |
//! | the plan, as for any trampoline | channel → | makes what execve takes of it; the child finds it made |
//! | goes on with the channel | | the child goes on as any trampoline does: see `exec` |
//! | dies | end of file → | ends |
//!
//! A child that cannot be made is told on its channel as the trampoline's own failures are. A template that is gone, or
//! takes no message, is no harm: the start goes the way without one, and the next one finds a new template. It is in a
//! session of its own, so that a Ctrl-C for the daemon is not for it.
//!
//! What the daemon's process is given later (a limit by prlimit(1), another niceness) the template does not have: a
//! start gets what the daemon had when it began.
#![allow(unsafe_code)] // clone3 has no wrapper in nix, and descriptors that came with a message become owned

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

use super::exec::{self, Birth, Task};
use super::schedule;

/// The argument by which `main` knows it.
pub const ARGUMENT: &str = "__template";
/// A message without a cgroup, and one with.
const PLAIN: &[u8] = b"p";
const IN_CGROUP: &[u8] = b"c";

/// The daemon's end.
#[derive(Debug)]
pub struct Template {
    /// `None` while there is no template.
    channel: Mutex<Option<OwnedFd>>,
}

impl Template {
    /// Starts one from the daemon's own binary; where that fails, starts go without.
    pub fn start() -> Template {
        Template { channel: Mutex::new(spawn(Path::new("/proc/self/exe")).ok()) }
    }

    /// None, for ever: each start spawns its own trampoline.
    pub fn none() -> Template {
        Template { channel: Mutex::new(None) }
    }

    /// [`start`](Template::start) with the path of the binary.
    ///
    /// # Errors
    /// Where no process, or no descriptor, is to be had.
    pub fn start_with(shimd: &Path) -> Result<Template, Errno> {
        Ok(Template { channel: Mutex::new(Some(spawn(shimd)?)) })
    }

    /// Asks for a trampoline with these as channel, stdout and stderr, born in `cgroup`. Does not wait. False where
    /// there is no template to ask; whether it did it shows on the channel.
    pub fn make(&self, channel: BorrowedFd, out: BorrowedFd, err: BorrowedFd, cgroup: Option<&Path>) -> bool {
        let own = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(own) = own.as_ref() else { return false };
        let folder = match cgroup.map(File::open).transpose() {
            Ok(folder) => folder,
            // The trampoline tells why, as it does without a template.
            Err(_) => return false,
        };
        let mut given = vec![channel.as_raw_fd(), out.as_raw_fd(), err.as_raw_fd()];
        given.extend(folder.as_ref().map(AsRawFd::as_raw_fd));
        let word = [IoSlice::new(if folder.is_some() { IN_CGROUP } else { PLAIN })];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(own.as_raw_fd(), &word, &[ControlMessage::ScmRights(&given)], flags, None).is_ok()
    }

    /// Another one in its place, after a start that it did not make: it may have been killed.
    pub fn renew(&self) {
        let mut own = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_some() {
            // The old one, if it lives, reads an end of file.
            *own = None;
            *own = spawn(Path::new("/proc/self/exe")).ok();
        }
    }
}

/// Gives the daemon's end of the channel.
#[allow(clippy::zombie_processes)] // the reaper waits for every child of the daemon
fn spawn(shimd: &Path) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Command::new(shimd)
        .arg0("shimd")
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| super::pidfd::errno_of(&e))?;
    Ok(ours)
}

/// Runs the template and never returns: `main` calls this when its first argument is [`ARGUMENT`].
pub fn main() -> ! {
    // SAFETY: this process was made for this function. Nothing above descriptor 2 is anybody's.
    unsafe { exec::close_from(3) };
    let _ = nix::unistd::setsid(); // fails only where it leads one already
    // Once for all its children, each of which would ask the kernel 64 times.
    exec::reset_signals();
    schedule::soon_until_exec();
    let stdin = std::io::stdin();
    while let Some(mut order) = next(stdin.as_fd()) {
        // One whose daemon has thought better of it, or died.
        let Ok(task) = Task::read(&mut order.channel) else { continue };
        if let Some(birth) = child(&order) {
            become_trampoline(order, task, birth);
        }
    }
    std::process::exit(0)
}

/// What one start is made of.
struct Order {
    channel: UnixStream,
    out: OwnedFd,
    err: OwnedFd,
    cgroup: Option<OwnedFd>,
}

/// The next order; `None` once the daemon is gone. What is no order is dropped, and with it its channel.
fn next(own: BorrowedFd) -> Option<Order> {
    loop {
        let mut word = [0];
        let mut parts = [IoSliceMut::new(&mut word)];
        let mut control = nix::cmsg_space!([RawFd; 4]);
        let got = match recvmsg::<()>(
            own.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(Errno::EINTR) => continue,
            Ok(got) if got.bytes > 0 => got,
            _ => return None,
        };
        let mut given = Vec::with_capacity(4);
        for part in got.cmsgs().ok()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                // SAFETY: the kernel has just put these into our table; nobody else owns them.
                given.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let mut given = given.into_iter();
        if let (Some(channel), Some(out), Some(err)) = (given.next(), given.next(), given.next()) {
            return Some(Order { channel: channel.into(), out, err, cgroup: given.next() });
        }
    }
}

/// Makes the child, and tells it whether it is in the cgroup; `None` in the template. Where it cannot be made, its
/// channel is told.
fn child(order: &Order) -> Option<Birth> {
    let sibling = |cgroup: Option<&OwnedFd>| {
        let birth = if cgroup.is_some() { Birth::InCgroup } else { Birth::Forked };
        exec::sibling(cgroup.map(AsFd::as_fd)).map(|is_child| is_child.then_some(birth))
    };
    let made = match sibling(order.cgroup.as_ref()) {
        // Before Linux 5.7, or where the cgroup does not take it: the trampoline tries the slow way, and tells.
        Err(errno) if order.cgroup.is_some() && !matches!(errno, Errno::EAGAIN | Errno::ENOMEM) => {
            sibling(None)
        }
        made => made,
    };
    made.unwrap_or_else(|errno| {
        exec::tell_unborn(&order.channel, errno);
        None
    })
}

/// In the child: takes the places of a trampoline that was spawned, and goes on as one.
fn become_trampoline(order: Order, task: Task, birth: Birth) -> ! {
    let Order { channel, out, err, cgroup } = order;
    let placed = nix::unistd::dup2_stdout(&out).and_then(|()| nix::unistd::dup2_stderr(&err));
    drop((out, err, cgroup));
    match placed {
        Ok(()) => exec::carry_on(channel, task, birth),
        Err(_) => std::process::exit(exec::ABANDONED),
    }
}
