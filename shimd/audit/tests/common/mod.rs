//! A folder of its own for each test, and servers in processes of their own.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::panic)] // these are tests, if not by attribute

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, connect, listen, shutdown, socket,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use socket_audit::{Auditor, Expect, Finding, Owner, SocketKind, Verdict, Witness};

/// Names the server that a re-executed test binary is to be.
pub const SERVER: &str = "SOCKET_AUDIT_TEST_SERVER";

/// A folder that is removed with all in it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("socket-audit-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(fs::canonicalize(path).unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A socket of any type, bound, and listening if its type does.
pub fn serve(kind: SocketKind, path: &Path) -> OwnedFd {
    let socket = bound(kind, path);
    if kind != SocketKind::Dgram {
        listen(&socket, Backlog::new(8).unwrap()).unwrap();
    }
    socket
}

/// A socket of any type, bound only.
pub fn bound(kind: SocketKind, path: &Path) -> OwnedFd {
    let socket = unbound(kind);
    bind(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    socket
}

pub fn unbound(kind: SocketKind) -> OwnedFd {
    let kind = match kind {
        SocketKind::Stream => SockType::Stream,
        SocketKind::Dgram => SockType::Datagram,
        SocketKind::Seqpacket => SockType::SeqPacket,
    };
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

pub fn connect_to(socket: &OwnedFd, path: &Path) {
    connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
}

pub fn shut(socket: &OwnedFd) {
    shutdown(socket.as_raw_fd(), Shutdown::Both).unwrap();
}

/// A socket file that nobody listens on.
pub fn stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

/// A server in another process, ended with this value.
pub struct Server(Child);

impl Server {
    /// This test binary again, as the server `what`, in `cwd`. `prefix` is a command that runs it.
    pub fn start(prefix: &[&str], what: &[&OsStr], cwd: &Path) -> (Server, String) {
        let exe = std::env::current_exe().unwrap();
        Server::run(
            match prefix {
                [] => Command::new(&exe),
                [program, args @ ..] => {
                    let mut command = Command::new(program);
                    command.args(args).arg(&exe);
                    command
                }
            },
            what,
            cwd,
        )
    }

    /// A command that runs this test binary; gives what the server said as it was ready.
    pub fn run(mut command: Command, what: &[&OsStr], cwd: &Path) -> (Server, String) {
        command.args(["--exact", "server", "--nocapture", "--quiet"]);
        command.env(SERVER, what.join(OsStr::new("\n"))).current_dir(cwd);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = Server(command.spawn().unwrap());
        let mut said = String::new();
        for line in BufReader::new(server.0.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, ready)) = line.split_once("READY") {
                return (server, ready.trim().to_owned());
            }
            said += &line;
        }
        panic!("the server ended early: {said}");
    }

    /// Any child, ended like one.
    pub fn of(child: Child) -> Server {
        Server(child)
    }

    /// A stream server of `name`, which may be relative, in `cwd`.
    pub fn listen(name: impl AsRef<OsStr>, cwd: &Path) -> Server {
        Server::start(&[], &[OsStr::new("listen"), name.as_ref()], cwd).0
    }

    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Stops it (SIGSTOP), and waits until it is.
    pub fn stop(&self) {
        let pid = Pid::from_raw(self.pid());
        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    }

    /// Lets it go on.
    pub fn resume(&self) {
        let pid = Pid::from_raw(self.pid());
        kill(pid, Signal::SIGCONT).unwrap();
        let resumed = waitpid(pid, Some(WaitPidFlag::WCONTINUED)).unwrap();
        assert_eq!(resumed, WaitStatus::Continued(pid));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body of each test file's `server` test: does nothing in the test run itself.
pub fn be_the_server() {
    let Ok(what) = std::env::var(SERVER) else { return };
    let words: Vec<&str> = what.split('\n').collect();
    let _held = match words.as_slice() {
        ["listen", path] => {
            let held = serve(SocketKind::Stream, Path::new(path));
            println!("READY");
            held
        }
        ["listen-and-leave", path] => {
            let held = serve(SocketKind::Stream, Path::new(path));
            std::env::set_current_dir("/").unwrap();
            println!("READY");
            held
        }
        ["listen-in-root", root, path] => {
            nix::unistd::chroot(*root).unwrap();
            std::env::set_current_dir("/").unwrap();
            let held = serve(SocketKind::Stream, Path::new(path));
            println!("READY");
            held
        }
        ["listen-undumpable", path] => {
            nix::sys::prctl::set_dumpable(false).unwrap();
            let held = serve(SocketKind::Stream, Path::new(path));
            println!("READY");
            held
        }
        ["audit-pids", path, pid] => {
            let owner = Owner::Pids(vec![pid.parse().unwrap()]);
            let found = audit(&Expect { owner, ..Expect::path(path) });
            println!("READY {}", found.verdict);
            unbound(SocketKind::Stream)
        }
        ["connect", path] => {
            let said = match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => "open".to_owned(),
                Err(error) => error.to_string(),
            };
            println!("READY {said}");
            unbound(SocketKind::Stream)
        }
        ["audit", path] => {
            let found = audit(&Expect::path(path));
            println!("READY {}: {}", found.verdict, found.reason);
            unbound(SocketKind::Stream)
        }
        other => panic!("no such server: {other:?}"),
    };
    // Until the parent lets go of the pipe, be it by a panic.
    let _ = std::io::stdin().read(&mut [0; 1]);
}

/// One finding by a fresh auditor.
pub fn audit(expect: &Expect) -> Finding {
    Auditor::new().unwrap().audit(std::slice::from_ref(expect)).pop().unwrap()
}

/// The verdict on a path whoever owns it.
pub fn verdict(path: &Path) -> Verdict {
    let found = audit(&Expect::path(path));
    assert_eq!(found.reason.is_empty(), found.verdict == Verdict::Ok && !path.is_symlink(), "{found:?}");
    found.verdict
}

/// Expects a listener of these processes.
pub fn of_pids(path: &Path, pids: &[i32]) -> Expect {
    Expect { owner: Owner::Pids(pids.to_vec()), ..Expect::path(path) }
}

/// Expects the listener that is there now, and trusts that it is the owner's.
pub fn trusted(path: &Path) -> Expect {
    let found = audit(&Expect::path(path));
    assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    Expect {
        known: found.listener.map(|found| found.id()),
        owner: Owner::Trusted,
        witness: Witness::of(path).ok().map(Arc::new),
        ..Expect::path(path)
    }
}

pub fn me() -> i32 {
    std::process::id() as i32
}

/// A file system mounted over a folder, taken away with this value.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn tmpfs(folder: PathBuf) -> Mounted {
        Mounted::on(folder, "tmpfs", "")
    }

    pub fn on(folder: PathBuf, kind: &str, options: &str) -> Mounted {
        mount(Some("none"), &folder, Some(kind), MsFlags::empty(), Some(options)).unwrap();
        Mounted(folder)
    }

    /// An image, through a loop device.
    pub fn image(image: &Path, folder: PathBuf) -> Mounted {
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), folder.as_os_str()]);
        Mounted(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

pub fn run(program: &str, args: &[&OsStr]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}
