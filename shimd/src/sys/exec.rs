//! The trampoline: `shimd __exec`, the few moments between the daemon's posix_spawn and the service's own program.
//!
//! A daemon that forks itself to prepare a child copies its page tables, and between fork and exec hardly anything
//! is allowed. So the daemon spawns its own binary anew, with one end of a socket pair as stdin (the *channel*), and
//! this side does the preparing:
//!
//! | trampoline | channel | daemon |
//! | --- | --- | --- |
//! | closes every other descriptor | ← length, plan (JSON) | |
//! | makes of it what execve takes | | |
//! | takes the listeners, if the plan names some | ← one byte with up to 253 descriptors, until all are there | |
//! | enters the cgroup as a new child *of the daemon* (below) | | |
//! | session, stdin, signals, umask, limits, user, cwd, program, listeners at 3 and up | `Ready{pid}` → | records the instance |
//! | execs | ← `g` | |
//! | | end of file → | the program runs |
//!
//! What fails is sent as `Failed`, before or after `Ready`. An end of file instead of `g` means that the daemon died
//! before it had recorded the instance: the trampoline exits with status 125 and nothing was started.
//!
//! Moving a process into a cgroup (`cgroup.procs`) waits for an RCU grace period: 15 to 20 ms on an idle machine. A
//! child *born* in it (`clone3` with `CLONE_INTO_CGROUP`, Linux 5.7) costs 0.1 ms, so the trampoline makes one, with
//! `CLONE_PARENT` as its sibling, and leaves. One that the [`template`](super::template) made is in there from its birth,
//! and has its [`Task`] from it.
#![allow(unsafe_code)] // close_range, clone3 and the reset of all signal dispositions have no wrapper in nix

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::pidfd::errno_of;
use super::schedule;
use super::spawn::{ExecPlan, Ids};

use image::Image;

pub(crate) mod handover;
mod image;

/// The answer to the plan that lets the trampoline exec.
pub(crate) const GO: &[u8] = b"g";
/// Exit status of a trampoline that was never told to go.
pub(super) const ABANDONED: i32 = 125;
/// Where programs are looked for when the plan's environment has no PATH.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a service's files are created with where its spec names no umask.
pub(crate) const DEFAULT_UMASK: u32 = 0o022;
/// clone3(2): the child starts in the cgroup whose folder is open as `clone_args.cgroup`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the trampoline says: one JSON text a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Prepared, and waiting for [`GO`].
    Ready {
        /// The process that is going to be the service.
        pid: i32,
        /// Why it is not in the plan's cgroup, if it had one and is not.
        cgroup_errno: Option<i32>,
    },
    /// A step that went wrong. Nothing was started.
    Failed(Failure),
}

/// One failed step, as the kernel told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub step: Step,
    pub errno: i32,
    /// What it was done to: a path, a user id.
    pub subject: String,
    /// The interpreter that the program's `#!` line names, where the exec itself failed.
    pub interpreter: Option<String>,
}

/// The steps of a spawn, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// posix_spawn of the trampoline itself, or the talk with it.
    Spawn,
    /// setsid.
    Session,
    /// `/dev/null` as stdin.
    Stdin,
    /// The soft limit of open files.
    Limit,
    /// Supplementary groups.
    Groups,
    /// The group id.
    Gid,
    /// The user id.
    Uid,
    /// chdir.
    Cwd,
    /// Finding the program.
    Program,
    /// Putting the listeners where the service looks for them.
    Listeners,
    /// execve.
    Exec,
}

/// Where a trampoline comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Birth {
    /// An exec of the daemon's own binary.
    Spawned,
    /// The template, which has reset the signals.
    Forked,
    /// The same, born in the plan's cgroup.
    InCgroup,
}

/// Runs the trampoline and never returns: `main` calls this first of all when its first argument is `__exec`.
pub fn trampoline() -> ! {
    // SAFETY: this process was made for this function. Nothing above descriptor 2 is anybody's: what the daemon
    // did not mark close-on-exec, and so leaked to us.
    unsafe { close_from(3) };
    schedule::soon_until_exec();
    let status = match take_channel() {
        Some(mut channel) => match Task::read(&mut channel) {
            Ok(task) => run(channel, task, Birth::Spawned),
            Err(_) => ABANDONED,
        },
        None => {
            let _ = writeln!(std::io::stderr(), "shimd __exec is for shimd itself: see `shimd --help`");
            2
        }
    };
    std::process::exit(status)
}

/// What a trampoline is to do: the plan, and what was made of it.
///
/// A fork shares its parent's memory page by page, and takes a fault of some microseconds for each page that it touches,
/// code as well. So the template makes all that can be made before the fork, and its child does little more than ask the
/// kernel.
pub(super) struct Task {
    plan: ExecPlan,
    /// Or why no execve could take it.
    image: Result<Image, Failure>,
}

impl Task {
    /// Waits for the plan, and makes the image.
    pub(super) fn read(channel: &mut UnixStream) -> std::io::Result<Task> {
        let mut length = [0; 4];
        channel.read_exact(&mut length)?;
        let mut text = vec![0; u32::from_le_bytes(length) as usize];
        channel.read_exact(&mut text)?;
        let plan: ExecPlan = serde_json::from_slice(&text)?;
        Ok(Task { image: Image::of(&plan), plan })
    }
}

/// Goes on as a trampoline that has its task, and never returns: the template's child. Its stdout and stderr are the
/// service's, and nothing else is open that stays so across an exec.
pub(super) fn carry_on(channel: UnixStream, task: Task, birth: Birth) -> ! {
    schedule::soon_until_exec();
    std::process::exit(run(channel, task, birth))
}

/// The exit status, if it was not the exec that ended this.
fn run(mut channel: UnixStream, Task { plan, image }: Task, birth: Birth) -> i32 {
    let Ok(listeners) = handover::receive(&channel, plan.listeners.len()) else { return ABANDONED };
    let cgroup_errno = match enter_cgroup(plan.cgroup.as_deref().filter(|_| birth != Birth::InCgroup)) {
        Entered::Elsewhere => return 0, // the sibling carries on
        Entered::Here(failed) => failed.map(|errno| errno as i32),
    };
    let program = prepare(&plan, birth).and(image).and_then(Image::find).and_then(|mut program| {
        // Last: what is opened from here on must not take their places.
        handover::place(&mut channel, listeners, &plan.listeners)?;
        program.hand_over(&plan.listeners)?;
        Ok(program)
    });
    let program = match program {
        Ok(program) => program,
        Err(failure) => return fail(&channel, failure),
    };
    let pid = nix::unistd::getpid().as_raw();
    let mut answer = [0];
    let told = send(&channel, &Report::Ready { pid, cgroup_errno }).is_ok();
    match told.then(|| channel.read_exact(&mut answer)) {
        Some(Ok(())) => {}
        _ => return ABANDONED,
    }
    // The channel is close-on-exec, as is all that was opened here: the daemon reads an end of file.
    schedule::ordinarily();
    let failure = program.exec();
    fail(&channel, failure)
}

/// Tells the daemon and gives the exit status a shell would (127: no such program, else 126).
fn fail(channel: &UnixStream, failure: Failure) -> i32 {
    let status = if failure.errno == libc::ENOENT { 127 } else { 126 };
    let _ = send(channel, &Report::Failed(failure));
    status
}

/// The template could not make the process that this channel is for.
pub(super) fn tell_unborn(channel: &UnixStream, errno: Errno) {
    let _ = send(channel, &Report::Failed(failure(Step::Spawn, errno, "a process for it")));
}

fn send(mut channel: &UnixStream, report: &Report) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    channel.write_all(&line)
}

/// Moves the channel from stdin to a close-on-exec descriptor. `None` where stdin is no socket.
fn take_channel() -> Option<UnixStream> {
    let stdin = std::io::stdin();
    nix::sys::socket::getsockopt(&stdin, nix::sys::socket::sockopt::SockType).ok()?;
    let moved = fcntl(&stdin, FcntlArg::F_DUPFD_CLOEXEC(3)).ok()?;
    // SAFETY: fcntl has just made this descriptor; nobody else owns it.
    Some(UnixStream::from(unsafe { OwnedFd::from_raw_fd(moved) }))
}

/// Closes every descriptor from `first` on.
///
/// # Safety
/// Nothing in this process may own one of them.
pub(super) unsafe fn close_from(first: i32) {
    // SAFETY: close_range takes three integers; what it closes is the caller's promise.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    // Before Linux 5.9, or under a filter that does not know it.
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = open.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|&fd| fd >= first) {
        // SAFETY: as above; the descriptor of the folder itself is closed by now, and EBADF is no harm.
        unsafe { libc::close(fd) };
    }
}

enum Entered {
    /// This process goes on, in the cgroup or (with the reason) not.
    Here(Option<Errno>),
    /// A sibling, born in the cgroup, goes on.
    Elsewhere,
}

fn enter_cgroup(cgroup: Option<&Path>) -> Entered {
    let Some(cgroup) = cgroup else { return Entered::Here(None) };
    let folder = match File::open(cgroup) {
        Ok(folder) => folder,
        Err(e) => return Entered::Here(Some(errno_of(&e))),
    };
    match sibling(Some(folder.as_fd())) {
        Ok(true) => Entered::Here(None),
        Ok(false) => Entered::Elsewhere,
        // Before Linux 5.7, or under a filter that does not know it: the slow way.
        Err(_) => {
            let moved = File::options().write(true).open(cgroup.join("cgroup.procs"));
            let moved = moved.and_then(|mut procs| procs.write_all(b"0"));
            Entered::Here(moved.err().map(|e| errno_of(&e)))
        }
    }
}

/// Makes a sibling of this process, in the cgroup whose folder is open as `cgroup` if there is one: true in the sibling.
pub(super) fn sibling(cgroup: Option<BorrowedFd>) -> Result<bool, Errno> {
    /// `struct clone_args`, as of Linux 5.7 (88 bytes).
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64, // with CLONE_PARENT it is the one this process has: SIGCHLD
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let mut args = CloneArgs { flags: libc::CLONE_PARENT as u64, ..CloneArgs::default() };
    if let Some(folder) = cgroup {
        (args.flags, args.cgroup) = (args.flags | CLONE_INTO_CGROUP, folder.as_raw_fd() as u64);
    }
    // SAFETY: without CLONE_VM this is fork(2): the child has a copy of all memory. The process has one thread, so
    // no lock is left held in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    Errno::result(pid).map(|pid| pid == 0)
}

/// Everything between the cgroup and the program that can fail, in an order in which each step still may.
fn prepare(plan: &ExecPlan, birth: Birth) -> Result<(), Failure> {
    nix::unistd::setsid().map_err(|e| failure(Step::Session, e, "a new session"))?;
    let null = File::open("/dev/null").map_err(|e| failure(Step::Stdin, errno_of(&e), "/dev/null"))?;
    nix::unistd::dup2_stdin(null).map_err(|e| failure(Step::Stdin, e, "/dev/null"))?;
    if birth == Birth::Spawned {
        reset_signals();
    }
    umask(Mode::from_bits_truncate(plan.umask.unwrap_or(DEFAULT_UMASK)));
    if let Some(soft) = plan.nofile_soft {
        let limit = getrlimit(Resource::RLIMIT_NOFILE)
            .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard));
        limit.map_err(|e| failure(Step::Limit, e, format!("{soft} open files")))?;
    }
    if let Some(ids) = &plan.ids {
        become_user(ids)?;
    }
    // As the user: a service must be able to enter its own folder.
    let cwd = plan.cwd.as_deref().unwrap_or(Path::new("/"));
    nix::unistd::chdir(cwd).map_err(|e| failure(Step::Cwd, e, cwd.display()))
}

/// Groups first: after the user id has changed nothing else can.
fn become_user(ids: &Ids) -> Result<(), Failure> {
    let own = Uid::effective();
    if !own.is_root() && own.as_raw() == ids.uid && Gid::effective().as_raw() == ids.gid {
        return Ok(()); // what we are already, and what needs no privilege
    }
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    let groups: Vec<Gid> = ids.groups.iter().copied().map(Gid::from_raw).collect();
    nix::unistd::setgroups(&groups).map_err(|e| failure(Step::Groups, e, format!("{:?}", ids.groups)))?;
    nix::unistd::setresgid(gid, gid, gid).map_err(|e| failure(Step::Gid, e, gid))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(|e| failure(Step::Uid, e, uid))
}

/// The service gets the dispositions and the mask of a fresh login. (Rust's runtime ignores SIGPIPE, and an ignored
/// signal stays ignored across exec.) Not through the C library, which keeps its own two signals to itself: whoever
/// started the daemon may have ignored those as well.
pub(super) fn reset_signals() {
    let default = [0_u64; 4]; // the kernel's struct sigaction: SIG_DFL, no flags, nothing masked
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the kernel reads one struct sigaction, and SIG_DFL runs no code of ours. SIGKILL and SIGSTOP are
        // refused: no harm.
        let null = std::ptr::null::<u64>();
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), null, size_of::<u64>()) };
    }
    let _ = SigSet::empty().thread_set_mask(); // cannot fail with a valid set
}

fn failure(step: Step, errno: Errno, subject: impl ToString) -> Failure {
    Failure { step, errno: errno as i32, subject: subject.to_string(), interpreter: None }
}
