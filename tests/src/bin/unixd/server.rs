//! The server itself: one thread, its signals and its clients.

use crate::Result;
use crate::churn::churn;
use crate::endpoint::{Endpoint, bind_all, handed_over};
use crate::habits::{Habits, Keeper};
use crate::hand_over::{execute_anew, give, take};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, User, setgid, setgroups, setuid};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Binds, has its children, and serves; gives the exit status.
pub fn start(habits: &Habits) -> Result<u8> {
    let earlier = habits.journal.as_ref().map(|journal| starts_in(journal, &habits.tag)).unwrap_or_default();
    record(habits, "start")?;
    if earlier < habits.fail_first {
        return Err(format!("start {} of those that fail", earlier + 1).into());
    }
    // Before any child or thread: a signal from now on waits for the loop.
    let signals = watched();
    signals.thread_block()?;
    let endpoints = if habits.activated { handed_over(habits)? } else { bind_all(habits)? };
    let mut children = Vec::new();
    if let Some(first) = endpoints.first().filter(|_| habits.workers > 0) {
        for _ in 0..habits.workers {
            let mut arguments = vec![OsStr::new("__worker"), OsStr::new(first.kind_name())];
            arguments.extend(paths(habits).filter(|_| habits.workers_unlink).map(Path::as_os_str));
            children.push(child(&arguments, Some(first), false)?);
        }
    }
    if let Some(keeper) = habits.child {
        let stays = (keeper != Keeper::Holds).to_string();
        for (endpoint, path) in endpoints.iter().zip(paths(habits)) {
            // The path is for whoever reads the process list.
            let arguments = [OsStr::new("__hold"), OsStr::new(&stays), path.as_os_str()];
            child(&arguments, Some(endpoint), keeper == Keeper::Escapes)?;
        }
    }
    if let Some(name) = &habits.drop_user {
        let user = User::from_name(name)?.ok_or_else(|| format!("no user {name}"))?;
        setgroups(&[user.gid])?;
        setgid(user.gid)?;
        setuid(user.uid)?;
    }
    if let Some(first) = paths(habits).next().filter(|_| habits.churn > 0) {
        churn(first, habits.churn)?;
    }
    ready(habits)?;
    serve(habits, endpoints, children)
}

fn ready(habits: &Habits) -> Result {
    std::thread::sleep(habits.ready_after);
    if let Some(marker) = &habits.marker {
        File::create(marker)?;
    }
    if habits.notify {
        let place = std::env::var("NOTIFY_SOCKET").map_err(|_| "no NOTIFY_SOCKET")?;
        let address = match place.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&place)?,
        };
        UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &address)?;
    }
    record(habits, "ready")
}

fn watched() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        set.add(signal);
    }
    set
}

struct Peer {
    stream: UnixStream,
    pending: Vec<u8>,
}

/// Serves everybody until a signal or its time ends it; gives the exit status.
pub fn serve(habits: &Habits, mut endpoints: Vec<Endpoint>, mut children: Vec<Child>) -> Result<u8> {
    let set = watched();
    set.thread_block()?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let began = Instant::now();
    let mut accepting = habits.workers == 0;
    let mut finishing = false;
    let mut next_accept = began;
    let mut peers: Vec<Peer> = Vec::new();
    loop {
        if finishing && peers.is_empty() {
            return finish(habits, endpoints, &mut children);
        }
        let left = habits.exit_after.map(|after| after.saturating_sub(began.elapsed()));
        if left == Some(Duration::ZERO) {
            return Ok(habits.exit_code);
        }
        let pause =
            Some(next_accept.saturating_duration_since(Instant::now())).filter(|pause| !pause.is_zero());
        let timeout = match left.into_iter().chain(pause).min() {
            Some(shortest) => PollTimeout::try_from(shortest + Duration::from_millis(1))?,
            None => PollTimeout::NONE,
        };
        let (woken, ready_peers) = {
            let open = if accepting && pause.is_none() { endpoints.as_slice() } else { &[] };
            let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            fds.extend(open.iter().map(|endpoint| PollFd::new(endpoint.as_fd(), PollFlags::POLLIN)));
            fds.extend(peers.iter().map(|peer| PollFd::new(peer.stream.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut any = fds.iter().map(|fd| fd.any().unwrap_or(false)).skip(1);
            let woken: Vec<bool> = any.by_ref().take(open.len()).collect();
            (woken, any.collect::<Vec<bool>>())
        };
        while let Some(signal) = signals.read_signal()? {
            match Signal::try_from(i32::try_from(signal.ssi_signo)?)? {
                Signal::SIGUSR1 if habits.stop_accepting => accepting = false,
                Signal::SIGHUP if habits.reload => {
                    remove(paths(habits));
                    std::thread::sleep(habits.reload_takes);
                    endpoints = bind_all(habits)?;
                }
                Signal::SIGUSR2 if habits.exec => return execute_anew(endpoints),
                Signal::SIGUSR2 if habits.close => {
                    endpoints.clear();
                    if habits.close_unlinks {
                        remove(paths(habits));
                    }
                }
                Signal::SIGUSR2 if habits.give.is_some() => give(&endpoints, habits.give.as_deref())?,
                Signal::SIGTERM if habits.ignore_term => {}
                Signal::SIGTERM if habits.finish => (accepting, finishing) = (false, true),
                _ => {
                    drop(peers);
                    return finish(habits, endpoints, &mut children);
                }
            }
        }
        // Peers first: those that are accepted below were not looked at.
        let mut ready = ready_peers.into_iter();
        peers.retain_mut(|peer| !ready.next().unwrap_or(false) || answer(peer));
        let mut taken = Vec::new();
        for (endpoint, _) in endpoints.iter().zip(woken).filter(|(_, woken)| *woken) {
            next_accept = Instant::now() + habits.accept_every.unwrap_or_default();
            match endpoint {
                Endpoint::Listener(_, listener) => match listener.accept() {
                    Ok((stream, _)) => peers.push(Peer { stream, pending: Vec::new() }),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                },
                Endpoint::Taker(listener) => taken.push(take(listener)?),
                Endpoint::Datagram(socket) => {
                    let mut message = [0; 4096];
                    if let Ok((count, from)) = socket.recv_from(&mut message) {
                        let line =
                            String::from_utf8_lossy(message.get(..count).unwrap_or_default()).into_owned();
                        // Who sends without an address wants no answer.
                        let _ = socket.send_to_addr(reply(line.trim_end()).as_bytes(), &from);
                    }
                }
            }
        }
        endpoints.extend(taken);
    }
}

fn finish(habits: &Habits, endpoints: Vec<Endpoint>, children: &mut [Child]) -> Result<u8> {
    record(habits, "stop")?;
    for child in children.iter() {
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    }
    for child in children.iter_mut() {
        child.wait()?;
    }
    drop(endpoints);
    if let Some(late) = habits.unlink_late {
        std::thread::sleep(late);
    }
    if habits.unlink_late.is_some() || habits.unlink_at_exit {
        remove(paths(habits));
    }
    if let Some(late) = habits.unlink_late_child {
        let mut arguments = vec!["__unlink".to_owned(), late.as_millis().to_string()];
        arguments.extend(paths(habits).map(|path| path.display().to_string()));
        child(&arguments, None, false)?;
    }
    Ok(0)
}

/// Takes what came and answers each whole line; `false` when the peer is gone.
fn answer(peer: &mut Peer) -> bool {
    let mut part = [0; 4096];
    match peer.stream.read(&mut part) {
        Ok(0) | Err(_) => return false,
        Ok(count) => peer.pending.extend(part.iter().take(count)),
    }
    while let Some(end) = peer.pending.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = peer.pending.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line);
        if peer.stream.write_all(reply(line.trim_end()).as_bytes()).is_err() {
            return false;
        }
    }
    true
}

fn reply(line: &str) -> String {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let answer = match word {
        "ping" => format!("pong {}", std::process::id()),
        "env" => std::env::var(rest).unwrap_or_default(),
        "uid" => nix::unistd::geteuid().to_string(),
        "gid" => nix::unistd::getegid().to_string(),
        "cwd" => std::env::current_dir().unwrap_or_default().display().to_string(),
        "args" => std::env::args().collect::<Vec<_>>().join(" "),
        "fds" => open_files().join(" "),
        "say" => {
            println!("{rest}");
            "said".to_owned()
        }
        _ => format!("? {line}"),
    };
    format!("{answer}\n")
}

/// Numbers and targets of the open files.
fn open_files() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let described = entries.map(|entry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        format!("{}={}", OsStr::to_string_lossy(&entry.file_name()), target.display())
    });
    described.collect()
}

/// A child of this program, with the listener as its standard input.
fn child<A: AsRef<OsStr>>(arguments: &[A], listener: Option<&Endpoint>, bare: bool) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(match listener {
        Some(endpoint) => Stdio::from(endpoint.as_fd().try_clone_to_owned()?),
        None => Stdio::null(),
    });
    if bare {
        command.env_clear().stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    }
    Ok(command.spawn()?)
}

fn paths(habits: &Habits) -> impl Iterator<Item = &Path> {
    habits.sockets.iter().map(|(_, path)| path.as_path())
}

/// Unlinks paths.
pub fn remove<'a>(paths: impl Iterator<Item = &'a Path>) {
    for path in paths {
        // Gone already is as good as removed; what cannot be removed shows itself at the bind.
        let _ = fs::remove_file(path);
    }
}

fn record(habits: &Habits, what: &str) -> Result {
    if let Some(journal) = &habits.journal {
        let mut file = OpenOptions::new().create(true).append(true).open(journal)?;
        file.write_all(format!("{what} {} {}\n", habits.tag, std::process::id()).as_bytes())?;
    }
    Ok(())
}

fn starts_in(journal: &Path, tag: &str) -> usize {
    let prefix = format!("start {tag} ");
    let text = fs::read_to_string(journal).unwrap_or_default();
    text.lines().filter(|line| line.starts_with(&prefix)).count()
}
