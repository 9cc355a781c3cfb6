//! From the request `service.restart` with `clean` to the first answer of the new process, for the real servers of this
//! file's table that are on PATH, and for the fixture server, whose own stop and start take next to nothing.
//!
//! What is ours is the same for all, so that the ratio is that of a server's own time. The aim is for each of them.

use crate::client::{Control, first_answer};
use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Line, Section};
use nix::sys::signal::{SigSet, Signal};
use scenarios::{Json, Result, World, bins, ensure, processes};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RUNS: u32 = 20;
/// Redis heeds a signal ten times a second. So each run meets its server at another age, a whole period in all, and
/// figure and floor meet the same ages.
const PERIOD: Duration = Duration::from_millis(100);

/// Stands for the socket's path.
const SOCKET: &str = "{here}";
/// Name, command line and a question that is answered.
const REAL: [(&str, &[&str], &str); 3] = [
    (
        "redis",
        &[
            "redis-server",
            "--port",
            "0",
            "--save",
            "",
            "--daemonize",
            "no",
            "--dir",
            "/",
            "--unixsocket",
            SOCKET,
        ],
        "PING\r\n",
    ),
    (
        "dbus-daemon",
        &["dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=unix:path={here}"],
        "\0AUTH\r\n",
    ),
    // SSH_AGENTC_REQUEST_IDENTITIES.
    ("ssh-agent", &["ssh-agent", "-D", "-a", SOCKET], "\0\0\0\u{1}\u{b}"),
];

/// A server and a question that it answers.
pub struct Server {
    name: &'static str,
    /// With `SOCKET` for its path.
    argv: Vec<String>,
    question: &'static str,
}

impl Server {
    /// The fixture server.
    pub fn unixd(world: &World) -> Server {
        Server { name: "unixd", argv: vec![world.unixd(), SOCKET.into()], question: "ping\n" }
    }

    /// Its program.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

pub fn measure() -> Result<Vec<Section>> {
    in_world("restart", |world| {
        world.start_daemon()?;
        let mut servers: Vec<Server> = REAL.iter().filter_map(real).collect();
        servers.push(Server::unixd(world));
        servers.iter().map(|server| figure(world, server)).collect()
    })
}

/// The server, if it is on PATH.
fn real((name, argv, question): &(&'static str, &[&str], &'static str)) -> Option<Server> {
    let (program, options) = argv.split_first()?;
    let program = bins::on_path(program)?.display().to_string();
    let argv = [program].into_iter().chain(options.iter().map(|&option| option.to_owned())).collect();
    Some(Server { name, argv, question })
}

/// The arguments with the socket's path, or what a spec calls it, in its place.
fn at<'a>(argv: &'a [String], socket: &'a str) -> impl Iterator<Item = String> + use<'a> {
    argv.iter().map(move |argument| argument.replace(SOCKET, socket))
}

fn figure(world: &World, server: &Server) -> Result<Section> {
    let Server { name, argv, question } = server;
    let exec: Vec<String> = at(argv, "{socket:s.sock}").collect();
    let mut pid = world.up(&json!({"name": name, "exec": exec, "sockets": ["s.sock"]}))?;
    let socket = world.socket(name, "s.sock");
    let mut own = Own::start(world, server)?;
    let (mut floor, mut clean, mut stopped, mut ready) = <[Samples; 4]>::default().into();
    let mut answered = Instant::now();
    for run in 0..RUNS {
        let age = PERIOD + PERIOD * run / RUNS;
        wait_for_age(own.answered, age);
        floor.add(own.restart(world, server)?);

        let mut control = Control::open(world)?;
        wait_for_age(answered, age);
        let start = Instant::now();
        let row = std::thread::scope(|scope| -> Result<Value> {
            let asking =
                scope.spawn(|| control.call("service.restart", json!({"name": name, "clean": true})));
            (answered, pid) = first_answer(&socket, question, pid)?;
            clean.add(answered - start);
            asking.join().map_err(|_| scenarios::Fault::new("the asking thread panicked"))?
        })?;
        let row = row.only()?;
        ensure!(row.text("outcome")? == "restarted" && row.pid("new_pid")? == pid, "not restarted: {row}");
        let part = |field| row.int(field).map(|nanos| Duration::from_nanos(nanos.unsigned_abs()));
        stopped.add(part("stopped_in")?);
        ready.add(part("ready_in")?);
    }
    Ok(Section {
        title: format!("restart --clean → first answer, {name}"),
        floor: Some(Line::timed("SIGTERM, wait, posix_spawn → first answer", &floor)),
        lines: vec![
            Line::timed("restart --clean → first answer", &clean).aim(Aim::Floors(1.5)),
            Line::timed("… of which until the old tree was gone", &stopped),
            Line::timed("… from the exec until every socket was ok", &ready),
        ],
    })
}

fn wait_for_age(born: Instant, age: Duration) {
    std::thread::sleep(age.saturating_sub(born.elapsed()));
}

/// The same server, started by hand.
pub struct Own {
    child: Child,
    socket: PathBuf,
    answered: Instant,
}

impl Own {
    /// Starts it.
    pub fn start(world: &World, server: &Server) -> Result<Own> {
        let socket = world.file(server.name);
        let mut own = Own { child: spawn(world, server, &socket)?, socket, answered: Instant::now() };
        (own.answered, _) = first_answer(&own.socket, server.question, 0)?;
        ensure!(own.child.try_wait()?.is_none(), "{} ended", server.name);
        Ok(own)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// By a signal, a wait and a spawn; gives how long it took to the first answer.
    pub fn restart(&mut self, world: &World, server: &Server) -> Result<Duration> {
        let start = Instant::now();
        let old = i32::try_from(self.child.id())?;
        processes::signal(old, Signal::SIGTERM);
        self.child.wait()?;
        self.child = spawn(world, server, &self.socket)?;
        (self.answered, _) = first_answer(&self.socket, server.question, old)?;
        Ok(self.answered - start)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(world: &World, server: &Server, socket: &Path) -> Result<Child> {
    let mut argv = at(&server.argv, socket.to_str().unwrap_or_default());
    let mut command: Command = world.command(argv.next().unwrap_or_default());
    command.args(argv).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // This process keeps SIGTERM for its own end, and a child takes the mask of the thread that spawns it.
    let term = SigSet::from(Signal::SIGTERM);
    term.thread_unblock()?;
    let spawned = command.spawn();
    term.thread_block()?;
    Ok(spawned?)
}
