//! `shimd wrap`: READY=1 is said when clients can connect, by the process that the manager started.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockType, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use scenarios::client::{ask, ping};
use scenarios::fault::Context;
use scenarios::wait::holds_for;
use scenarios::{Need, Result, World, Wrapped, ensure, processes, scenario, wait_until};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon];
    let python = [Need::Daemon, Need::Program("python3")];
    vec![
        scenario("wrap_notify::ready_when_it_listens", &needs, listens),
        scenario("wrap_notify::and_when_the_service_says_so", &needs, says_so),
        scenario("wrap_notify::the_rest_is_handed_on", &python, handed_on),
        scenario("wrap_notify::follows_the_main_process", &python, follows),
        scenario(
            "wrap_notify::strangers_are_not_believed",
            &[Need::Daemon, Need::Root, Need::User("nobody")],
            strangers,
        ),
        scenario("wrap_notify::newline_on_a_descriptor", &needs, newline),
        scenario("wrap_notify::not_ready_in_time", &needs, late),
        scenario("wrap_notify::a_loss_is_told", &needs, loss),
    ]
}

/// A manager as systemd is one.
struct Manager {
    socket: UnixDatagram,
    address: PathBuf,
    heard: RefCell<Vec<Heard>>,
}

#[derive(Debug)]
struct Heard {
    text: String,
    pid: i32,
    descriptors: Vec<OwnedFd>,
}

impl Manager {
    fn new(world: &World) -> Result<Manager> {
        let address = world.file("notify");
        let socket = UnixDatagram::bind(&address)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        socket.set_nonblocking(true)?;
        Ok(Manager { socket, address, heard: RefCell::default() })
    }

    fn listen(&self) {
        while let Some(heard) = self.take() {
            self.heard.borrow_mut().push(heard);
        }
    }

    fn take(&self) -> Option<Heard> {
        let (mut bytes, mut control) = ([0; 4096], nix::cmsg_space!(UnixCredentials, [RawFd; 8]));
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg::<()>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let got = got.ok()?;
        let (mut pid, mut descriptors) = (0, Vec::new());
        for part in got.cmsgs().ok()? {
            match part {
                ControlMessageOwned::ScmCredentials(sender) => pid = sender.pid(),
                // SAFETY: the kernel has just put these into our table; nobody else owns them.
                #[allow(unsafe_code)]
                ControlMessageOwned::ScmRights(given) => {
                    descriptors.extend(given.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
                _ => {}
            }
        }
        let count = got.bytes;
        Some(Heard { text: String::from_utf8_lossy(bytes.get(..count)?).into_owned(), pid, descriptors })
    }

    fn heard(&self, line: &str) -> bool {
        self.listen();
        self.heard.borrow().iter().any(|heard| heard.text.lines().any(|said| said == line))
    }

    fn hears(&self, wrapped: &Wrapped, line: &str) -> Result {
        wait_until(SOON, format!("the manager hears {line}"), || self.heard(line))?;
        let heard = self.heard.borrow();
        ensure!(
            heard.iter().all(|heard| heard.pid == wrapped.pid()),
            "from its main process alone: {heard:?}"
        );
        Ok(())
    }
}

fn start(world: &World, manager: &Manager, options: &[&str], service: &[&str]) -> Result<Wrapped> {
    let mut command = world.wrap_command(&[options, &["--"], service].concat());
    command.env("NOTIFY_SOCKET", &manager.address).env("WATCHDOG_USEC", "1000000");
    world.wrap_by(command)
}

fn socket(world: &World) -> (PathBuf, String) {
    let path = world.file("a.sock");
    let text = path.display().to_string();
    (path, text)
}

fn env(path: &Path, name: &str) -> Result<String> {
    ask(path, SockType::Stream, &format!("env {name}"))
}

fn listens(world: &World) -> Result {
    let manager = Manager::new(world)?;
    let (path, text) = socket(world);
    let wrapped =
        start(world, &manager, &["--socket", &text], &[&world.unixd(), "--listen-after", "400", &text])?;
    wait_until(SOON, "it is bound", || path.exists())?;
    holds_for(Duration::from_millis(250), "bound is not ready", || Ok(!manager.heard("READY=1")))?;
    manager.hears(&wrapped, "READY=1")?;
    ping(&path)?;
    manager.hears(&wrapped, "STATUS=the socket is ok")?;
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        let has = env(&path, name)?;
        ensure!(
            !has.contains("notify") && !has.contains("1000000"),
            "it is wrap's to speak with the manager: {has}"
        );
    }
    Ok(())
}

fn says_so(world: &World) -> Result {
    let manager = Manager::new(world)?;
    let (path, text) = socket(world);
    let service = [&world.unixd(), "--notify", "--ready-after", "500", &text];
    let wrapped = start(world, &manager, &["--notify", "--socket", &text], &service)?;
    wait_until(SOON, "it listens", || std::os::unix::net::UnixStream::connect(&path).is_ok())?;
    holds_for(Duration::from_millis(250), "listening is not enough", || Ok(!manager.heard("READY=1")))?;
    manager.hears(&wrapped, "READY=1")?;
    ensure!(env(&path, "NOTIFY_SOCKET")?.contains("@shimd/wrap/"), "it speaks with wrap");
    ensure!(env(&path, "WATCHDOG_USEC")?.contains("1000000"), "and its watchdog is the manager's");
    Ok(())
}

/// What every sd_notify client does.
const SD_NOTIFY: &str = "
import os, socket, sys, time, signal
def say(text, fds=[]):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])
    socket.send_fds(s, [text.encode()], fds)
";

fn python(world: &World, lines: &str) -> Result<String> {
    Ok(world.write("service.py", &format!("{SD_NOTIFY}{lines}"))?.display().to_string())
}

fn handed_on(world: &World) -> Result {
    let manager = Manager::new(world)?;
    let file = world.write("stored", "what is kept")?;
    let script = python(
        world,
        &format!(
            "say('STATUS=warming up\\nX_OWN=1')
say('FDSTORE=1\\nFDNAME=kept', [os.open({:?}, os.O_RDONLY)])
say('READY=1\\nMAINPID=%d' % os.getpid())
say('WATCHDOG=1')
say('RELOADING=1')
say('READY=1')
time.sleep(60)",
            file.display().to_string()
        ),
    )?;
    let wrapped = start(world, &manager, &["--notify"], &["python3", &script])?;
    for line in ["STATUS=warming up", "X_OWN=1", "FDSTORE=1", "READY=1", "WATCHDOG=1", "RELOADING=1"] {
        manager.hears(&wrapped, line)?;
    }
    let ready = || {
        manager.listen();
        manager.heard.borrow().iter().filter(|heard| heard.text.contains("READY=1")).count() == 2
    };
    wait_until(SOON, "the end of the reload is told as well", ready)?;
    let heard = manager.heard.borrow();
    ensure!(
        !heard.iter().any(|heard| heard.text.contains("MAINPID")),
        "wrap stays the main process: {heard:?}"
    );
    let stored = heard.iter().find(|heard| heard.text.contains("FDNAME=kept")).context("FDSTORE")?;
    let mut text = String::new();
    File::from(stored.descriptors.first().context("no descriptor came along")?.try_clone()?)
        .read_to_string(&mut text)?;
    ensure!(text == "what is kept", "{text}");
    Ok(())
}

fn follows(world: &World) -> Result {
    let manager = Manager::new(world)?;
    let script = python(
        world,
        "say('READY=1')
pid = os.fork()
if pid:
    say('MAINPID=%d' % pid)
    time.sleep(0.3)
    os._exit(0)
signal.signal(signal.SIGUSR1, lambda *_: open('usr1', 'w').close())
while os.getppid() != 1 and not os.path.exists('old-is-gone'): time.sleep(0.02)
time.sleep(60)",
    )?;
    let mut wrapped = start(world, &manager, &["--notify"], &["python3", &script])?;
    manager.hears(&wrapped, "READY=1")?;
    let keeper = wrapped.keeper()?;
    let first = processes::children(keeper);
    wait_until(SOON, "the first process is gone", || {
        let now = processes::children(keeper);
        now.len() == 1 && now != first
    })?;
    ensure!(processes::alive(wrapped.pid()), "wrap follows the new one: {}", wrapped.errors());
    wait_until(SOON, "signals go to the new one", || {
        wrapped.signal(Signal::SIGUSR1).is_ok() && world.file("usr1").exists()
    })?;
    wrapped.signal(Signal::SIGTERM)?;
    wrapped.dies_of(SOON, Signal::SIGTERM)
}

fn strangers(world: &World) -> Result {
    let manager = Manager::new(world)?;
    let script = python(world, "time.sleep(60)")?;
    let wrapped = start(world, &manager, &["--notify"], &["python3", &script])?;
    let address = format!("@shimd/wrap/{}", wrapped.pid());
    let stranger = world.write("stranger.py", &format!("{SD_NOTIFY}say('READY=1')"))?;
    let said = |uid: u32| -> Result {
        let mut command = world.command("/usr/bin/python3");
        command.arg(&stranger).env("NOTIFY_SOCKET", &address).uid(uid);
        scenarios::command::run(command, SOON)?.success().map(drop)
    };
    wait_until(SOON, "it listens", || said(65534).is_ok())?;
    holds_for(Duration::from_millis(200), "another user is not believed", || Ok(!manager.heard("READY=1")))?;
    said(0)?;
    manager.hears(&wrapped, "READY=1")
}

fn newline(world: &World) -> Result {
    let (path, text) = socket(world);
    let (mut read, write) = std::io::pipe()?;
    let unixd = world.unixd();
    let mut command = world.wrap_command(&[
        "--notify-fd",
        "3",
        "--socket",
        &text,
        "--",
        &unixd,
        "--listen-after",
        "200",
        &text,
    ]);
    let raw = write.as_raw_fd();
    // SAFETY: between fork and exec one system call is made.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || nix::errno::Errno::result(libc::dup2(raw, 3)).map(drop).map_err(Into::into));
    }
    let _wrapped = world.wrap_by(command)?;
    drop(write);
    let mut said = Vec::new();
    // The end of the file comes too: neither the service nor anybody of ours holds it.
    read.read_to_end(&mut said)?;
    ensure!(said == b"\n", "{said:?}");
    ping(&path).map(drop)
}

fn late(world: &World) -> Result {
    let manager = Manager::new(world)?;
    let (_, text) = socket(world);
    let options = ["--ready-timeout", "300ms", "--socket", &text];
    let mut wrapped = start(world, &manager, &options, &["/bin/sleep", "60"])?;
    wrapped.exits(SOON, 125)?;
    wrapped.says(SOON, "not ready within 300ms: ")?;
    ensure!(!manager.heard("READY=1"), "it was never ready");
    Ok(())
}

fn loss(world: &World) -> Result {
    let manager = Manager::new(world)?;
    let (path, text) = socket(world);
    let options = ["--on-missing", "report", "--socket", &text];
    let wrapped = start(world, &manager, &options, &[&world.unixd(), &text])?;
    manager.hears(&wrapped, "READY=1")?;
    fs::remove_file(&path)?;
    let told = || {
        manager.listen();
        manager
            .heard
            .borrow()
            .iter()
            .any(|heard| heard.text.starts_with(&format!("STATUS={text}: dangling: ")))
    };
    wait_until(SOON, "the loss is in the manager's status", told)
}
