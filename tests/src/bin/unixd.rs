//! A small server of the project's own, with the habits of real ones: `unixd [OPTIONS] [stream:|dgram:|seqpacket:]PATH...`
//!
//! It answers each line of a client: `ping` → `pong PID`, `env NAME`, `uid`, `gid`, `cwd`, `args`, `fds` (the numbers of its
//! open files), `say TEXT` (writes it to its output). `unixd ask TYPE PATH LINE` is a client; `unixd probe TYPE PATH` says what one sees.
//!
//! | option | habit |
//! | --- | --- |
//! | `--refuse-stale` | no unlink before bind: exit 1 when the file exists |
//! | `--bind-temp-rename` | binds PATH.PID.tmp and renames it into place before it listens |
//! | `--relative` | changes into the folder and binds the bare name |
//! | `--listen-after MS` | bound, and not listening yet, for so long |
//! | `--fork-workers N` | workers inherit the first listener and go on with it when the main process is killed |
//! | `--workers-unlink` | a worker that ends at SIGTERM unlinks the paths, as if it were the server |
//! | `--child-holds` | a child in a session of its own holds the listeners, and lives on when the main process ends |
//! | `--child-escapes` | the same, and it has nothing of the service's environment and ignores SIGTERM |
//! | `--drop-user NAME` | becomes that user after the bind |
//! | `--ignore-term` | SIGTERM does nothing |
//! | `--unlink-at-exit` | SIGTERM: unlinks whatever lies at its paths, and exits |
//! | `--unlink-late MS` | SIGTERM: closes, waits, unlinks whatever lies at its paths by then, and exits |
//! | `--unlink-late-child MS` | SIGTERM: exits at once; a child in a session of its own waits and unlinks |
//! | `--reload` | SIGHUP: unlinks its paths, binds and listens anew |
//! | `--stop-accepting` | SIGUSR1: accepts nobody any more |
//! | `--notify`, `--marker FILE` | once it listens: `READY=1` to `NOTIFY_SOCKET`; makes the file |
//! | `--ready-after MS` | with either of them: only after so long |
//! | `--fail-first N --journal FILE` | exit 1 at once in the first N starts that the journal has |
//! | `--exit-after MS`, `--exit-code N` | ends by itself, 0 unless said otherwise |
//! | `--journal FILE`, `--tag TEXT` | adds `start TAG PID`, `ready TAG PID`, `stop TAG PID` lines |

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::{Pid, User, setgid, setgroups, setsid, setuid};
use scenarios::client::{ask, socket_type};
use scenarios::probe::probe;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

#[derive(Default)]
struct Habits {
    sockets: Vec<(SockType, PathBuf)>,
    refuse_stale: bool,
    temp_rename: bool,
    relative: bool,
    listen_after: Duration,
    workers: usize,
    workers_unlink: bool,
    child_holds: bool,
    child_escapes: bool,
    drop_user: Option<String>,
    ignore_term: bool,
    unlink_at_exit: bool,
    unlink_late: Option<Duration>,
    unlink_late_child: Option<Duration>,
    reload: bool,
    stop_accepting: bool,
    notify: bool,
    marker: Option<PathBuf>,
    ready_after: Duration,
    fail_first: usize,
    exit_after: Option<Duration>,
    exit_code: u8,
    journal: Option<PathBuf>,
    tag: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("unixd: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &[String]) -> Result<u8> {
    match arguments {
        [command, kind, path, line @ ..] if command == "ask" => {
            let kind = socket_type(kind).ok_or("TYPE is stream, dgram or seqpacket")?;
            println!("{}", ask(Path::new(path), kind, &line.join(" ")).map_err(|fault| fault.to_string())?);
            Ok(0)
        }
        [command, kind, path] if command == "probe" => {
            let kind = socket_type(kind).ok_or("TYPE is stream, dgram or seqpacket")?;
            println!("{}", probe(Path::new(path), kind).map_err(|fault| fault.to_string())?);
            Ok(0)
        }
        // The children that some habits need. Their listener is their standard input.
        [command, kind, paths @ ..] if command == "__worker" => {
            let kind = socket_type(kind).ok_or("no type")?;
            let listener = std::io::stdin().as_fd().try_clone_to_owned()?;
            let sockets = paths.iter().map(|path| (kind, path.into())).collect();
            let habits = Habits { sockets, unlink_at_exit: true, ..Habits::default() };
            serve(&habits, vec![Endpoint::of(kind, listener)], Vec::new())
        }
        [command, escapes, ..] if command == "__hold" => {
            setsid()?;
            let mut set = SigSet::empty();
            set.add(Signal::SIGTERM);
            if escapes == "true" {
                set.thread_block()?;
            }
            loop {
                std::thread::park();
            }
        }
        [command, after, paths @ ..] if command == "__unlink" => {
            setsid()?;
            std::thread::sleep(millis(after)?);
            remove(paths.iter().map(Path::new));
            Ok(0)
        }
        _ => start(&habits(arguments)?),
    }
}

fn habits(arguments: &[String]) -> Result<Habits> {
    let mut habits = Habits { tag: "unixd".to_owned(), ..Habits::default() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--refuse-stale" => habits.refuse_stale = true,
            "--bind-temp-rename" => habits.temp_rename = true,
            "--relative" => habits.relative = true,
            "--listen-after" => habits.listen_after = millis(value()?)?,
            "--fork-workers" => habits.workers = value()?.parse()?,
            "--workers-unlink" => habits.workers_unlink = true,
            "--child-holds" => habits.child_holds = true,
            "--child-escapes" => habits.child_escapes = true,
            "--drop-user" => habits.drop_user = Some(value()?.clone()),
            "--ignore-term" => habits.ignore_term = true,
            "--unlink-at-exit" => habits.unlink_at_exit = true,
            "--unlink-late" => habits.unlink_late = Some(millis(value()?)?),
            "--unlink-late-child" => habits.unlink_late_child = Some(millis(value()?)?),
            "--reload" => habits.reload = true,
            "--stop-accepting" => habits.stop_accepting = true,
            "--notify" => habits.notify = true,
            "--marker" => habits.marker = Some(value()?.into()),
            "--ready-after" => habits.ready_after = millis(value()?)?,
            "--fail-first" => habits.fail_first = value()?.parse()?,
            "--exit-after" => habits.exit_after = Some(millis(value()?)?),
            "--exit-code" => habits.exit_code = value()?.parse()?,
            "--journal" => habits.journal = Some(value()?.into()),
            "--tag" => habits.tag = value()?.clone(),
            option if option.starts_with('-') => return Err(format!("no option {option}").into()),
            path => {
                let typed = path.split_once(':').and_then(|(kind, path)| Some((socket_type(kind)?, path)));
                let (kind, path) = typed.unwrap_or((SockType::Stream, path));
                habits.sockets.push((kind, path.into()));
            }
        }
    }
    Ok(habits)
}

fn millis(text: &str) -> Result<Duration> {
    Ok(Duration::from_millis(text.parse()?))
}

fn start(habits: &Habits) -> Result<u8> {
    let earlier = habits.journal.as_ref().map(|journal| starts_in(journal, &habits.tag)).unwrap_or_default();
    record(habits, "start")?;
    if earlier < habits.fail_first {
        return Err(format!("start {} of those that fail", earlier + 1).into());
    }
    // Before any child or thread: a signal from now on waits for the loop.
    let signals = watched();
    signals.thread_block()?;
    let endpoints = bind_all(habits)?;
    let mut children = Vec::new();
    if let Some(first) = endpoints.first().filter(|_| habits.workers > 0) {
        for _ in 0..habits.workers {
            let mut arguments = vec![OsStr::new("__worker"), OsStr::new(first.kind_name())];
            arguments.extend(paths(habits).filter(|_| habits.workers_unlink).map(Path::as_os_str));
            children.push(child(&arguments, Some(first), false)?);
        }
    }
    if habits.child_holds || habits.child_escapes {
        let escapes = habits.child_escapes.to_string();
        for (endpoint, path) in endpoints.iter().zip(paths(habits)) {
            // The path is for whoever reads the process list.
            let arguments = [OsStr::new("__hold"), OsStr::new(&escapes), path.as_os_str()];
            child(&arguments, Some(endpoint), habits.child_escapes)?;
        }
    }
    if let Some(name) = &habits.drop_user {
        let user = User::from_name(name)?.ok_or_else(|| format!("no user {name}"))?;
        setgroups(&[user.gid])?;
        setgid(user.gid)?;
        setuid(user.uid)?;
    }
    ready(habits)?;
    serve(habits, endpoints, children)
}

/// Something bound: a listener, or a datagram socket.
enum Endpoint {
    Listener(SockType, UnixListener),
    Datagram(UnixDatagram),
}

impl Endpoint {
    fn of(kind: SockType, fd: OwnedFd) -> Endpoint {
        match kind {
            SockType::Datagram => Endpoint::Datagram(UnixDatagram::from(fd)),
            kind => Endpoint::Listener(kind, UnixListener::from(fd)),
        }
    }

    fn kind_name(&self) -> &'static str {
        match self {
            Endpoint::Datagram(_) => "dgram",
            Endpoint::Listener(SockType::SeqPacket, _) => "seqpacket",
            Endpoint::Listener(..) => "stream",
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Endpoint::Listener(_, listener) => listener.as_fd(),
            Endpoint::Datagram(socket) => socket.as_fd(),
        }
    }
}

fn bind_all(habits: &Habits) -> Result<Vec<Endpoint>> {
    let mut bound = Vec::new();
    for (kind, path) in &habits.sockets {
        // Workers share the listener: whoever is too late to accept must not block.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, *kind, flags, None)?;
        let mut name = path.clone();
        if habits.relative {
            std::env::set_current_dir(path.parent().ok_or("no folder")?)?;
            name = path.file_name().ok_or("no name")?.into();
        }
        if habits.temp_rename {
            name.set_extension(format!("{}.tmp", std::process::id()));
        } else if !habits.refuse_stale {
            remove([name.as_path()].into_iter());
        }
        bind(fd.as_raw_fd(), &UnixAddr::new(&name)?)
            .map_err(|errno| format!("{}: {errno}", path.display()))?;
        if habits.temp_rename {
            fs::rename(&name, path)?;
        }
        std::thread::sleep(habits.listen_after);
        if *kind != SockType::Datagram {
            listen(&fd, Backlog::new(64)?)?;
        }
        bound.push(Endpoint::of(*kind, fd));
    }
    Ok(bound)
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
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        set.add(signal);
    }
    set
}

struct Peer {
    stream: UnixStream,
    pending: Vec<u8>,
}

/// One thread serves everybody until a signal or its time ends it; gives the exit status.
fn serve(habits: &Habits, mut endpoints: Vec<Endpoint>, mut children: Vec<Child>) -> Result<u8> {
    let set = watched();
    set.thread_block()?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let began = Instant::now();
    let mut accepting = habits.workers == 0;
    let mut peers: Vec<Peer> = Vec::new();
    loop {
        let timeout = match habits.exit_after.map(|after| after.saturating_sub(began.elapsed())) {
            Some(Duration::ZERO) => return Ok(habits.exit_code),
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1))?,
            None => PollTimeout::NONE,
        };
        let (woken, ready_peers) = {
            let open = if accepting { endpoints.as_slice() } else { &[] };
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
                    endpoints = bind_all(habits)?;
                }
                Signal::SIGTERM if habits.ignore_term => {}
                _ => {
                    drop(peers);
                    return finish(habits, endpoints, &mut children);
                }
            }
        }
        // Peers first: those that are accepted below were not looked at.
        let mut ready = ready_peers.into_iter();
        peers.retain_mut(|peer| !ready.next().unwrap_or(false) || answer(peer));
        for (endpoint, _) in endpoints.iter().zip(woken).filter(|(_, woken)| *woken) {
            match endpoint {
                Endpoint::Listener(_, listener) => match listener.accept() {
                    Ok((stream, _)) => peers.push(Peer { stream, pending: Vec::new() }),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                },
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

fn remove<'a>(paths: impl Iterator<Item = &'a Path>) {
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
