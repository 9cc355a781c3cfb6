//! What a client in a tight loop sees of a restart of a `bind` service: from the last answer of the old process to the
//! first of the new one. For the fixture server, whose own stop and start take next to nothing, so that what is left is
//! the supervisor's; under `shimd`, and under dinit where it is on PATH (`dinit`, `dinitctl`).

use crate::client::Control;
use crate::in_world;
use crate::restart::{Own, Server};
use crate::samples::Samples;
use crate::table::{Aim, Line, Section};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use scenarios::{Fault, Result, World, bins, ensure, processes, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const RUNS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(30);

pub fn measure() -> Result<Vec<Section>> {
    in_world("gap", |world| {
        world.start_daemon()?;
        let server = Server::unixd(world);
        let mut own = Own::start(world, &server)?;
        let socket = world.socket("gap", "s.sock");
        let exec = [world.unixd().as_str(), "{socket:s.sock}"].map(str::to_owned);
        world.up(&json!({"name": "gap", "exec": exec, "sockets": ["s.sock"]}))?;
        let mut dinit = Dinit::start(world, &server)?;
        let mut control = Control::open(world)?;
        let (mut floor, mut plain, mut clean, mut peer) = <[Samples; 4]>::default().into();
        for _ in 0..RUNS {
            let path = own.socket().to_owned();
            floor.add(gap(&path, || own.restart(world, &server).map(drop))?);
            let mut ours = |clean| {
                gap(&socket, || {
                    control.call("service.restart", json!({"name": "gap", "clean": clean})).map(drop)
                })
            };
            plain.add(ours(false)?);
            clean.add(ours(true)?);
            if let Some(dinit) = &mut dinit {
                peer.add(gap(&dinit.socket.clone(), || dinit.restart(world))?);
            }
        }
        let mut lines =
            vec![Line::timed("proc restart", &plain), Line::timed("proc restart --clean", &clean)];
        if dinit.is_some() {
            lines.push(Line::timed("dinitctl restart", &peer));
            let most = Aim::Most(crate::table::Amount::Time(peer.median()));
            lines = lines
                .into_iter()
                .enumerate()
                .map(|(i, line)| if i < 2 { line.aim(most) } else { line })
                .collect();
        } else {
            eprintln!("bench: gap: dinit is not on PATH, and is not compared");
        }
        Ok(vec![Section {
            title: "restart → what a client misses, unixd".into(),
            floor: Some(Line::timed("SIGTERM, wait, posix_spawn", &floor)),
            lines,
        }])
    })
}

/// From the last answer of the process that serves now to the first of another, while `restart` runs.
fn gap(path: &Path, restart: impl FnOnce() -> Result) -> Result<Duration> {
    let (begun, ready) = channel();
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || -> Result<Duration> {
            let start = Instant::now();
            let old = answer(path).ok_or_else(|| Fault::new("it does not answer"))?;
            begun.send(())?;
            let mut last = Instant::now();
            loop {
                match answer(path) {
                    Some(pid) if pid == old => last = Instant::now(),
                    Some(_) => return Ok(last.elapsed()),
                    None => ensure!(start.elapsed() < PATIENCE, "{}: no answer", path.display()),
                }
            }
        });
        ready.recv_timeout(PATIENCE)?;
        restart()?;
        asking.join().map_err(|_| Fault::new("the asking thread panicked"))?
    })
}

/// One question: who answers.
fn answer(path: &Path) -> Option<i32> {
    let mut stream = UnixStream::connect(path).ok()?;
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"ping\n").ok()?;
    (stream.read(&mut [0; 64]).ok()? > 0).then_some(pid)
}

/// dinit with the same server as its only service.
struct Dinit {
    child: Child,
    control: PathBuf,
    socket: PathBuf,
}

impl Dinit {
    fn start(world: &World, server: &Server) -> Result<Option<Dinit>> {
        let (Some(program), Some(_)) = (bins::on_path("dinit"), bins::on_path("dinitctl")) else {
            return Ok(None);
        };
        let (control, socket) = (world.file("dinit.ctl"), world.file("dinit.sock"));
        std::fs::create_dir(world.file("dinit.d"))?;
        world.write(
            "dinit.d/boot",
            &format!(
                "type = process\ncommand = {} {}\nrestart = false\n",
                server.program(),
                socket.display()
            ),
        )?;
        let child = world
            .command(&program)
            .args(["--user", "--quiet", "--services-dir"])
            .arg(world.file("dinit.d"))
            .arg("--socket-path")
            .arg(&control)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let dinit = Dinit { child, control, socket };
        wait_until(PATIENCE, "the answer of dinit's service", || answer(&dinit.socket))?;
        Ok(Some(dinit))
    }

    fn restart(&self, world: &World) -> Result {
        let asked = world
            .command(bins::on_path("dinitctl").ok_or_else(|| Fault::new("no dinitctl"))?)
            .arg("--socket-path")
            .arg(&self.control)
            .args(["restart", "boot"])
            .stdout(Stdio::null())
            .status()?;
        ensure!(asked.success(), "dinitctl restart: {asked}");
        Ok(())
    }
}

impl Drop for Dinit {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It stops its service; killed, it would leave it.
            processes::signal(pid, Signal::SIGTERM);
        }
        // Ended already is as good.
        let _ = self.child.wait();
    }
}
