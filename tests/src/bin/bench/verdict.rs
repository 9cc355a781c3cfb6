//! From `unlink` to the verdict.
//!
//! `service.list` looks for itself (an lstat) before it answers, so a client that asks all the time is told sooner than
//! the daemon notices. What the daemon does by itself shows twice: in the line that it logs as it changes the
//! state, nobody asking; and in the answers of `service.reset_failed`, which tells the state as it is, does
//! nothing to a running service and looks at no file.

use crate::client::Control;
use crate::floor::{self, Floor, unlink};
use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Line, Section};
use scenarios::{Result, World, ensure, specs, wait_until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const RUNS: usize = 200;
/// The daemon and the machine have come to rest when nothing was asked for so long.
const REST: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(10);

pub fn measure() -> Result<Vec<Section>> {
    in_world("verdict", |world| {
        let (mut daemon, logged) = start(world)?;
        let sections = figures(world, &logged);
        world.end()?;
        daemon.wait()?;
        sections
    })
}

fn figures(world: &World, logged: &Receiver<Instant>) -> Result<Vec<Section>> {
    world.up(&specs::unixd(world, "web", &[]))?;
    let socket = world.socket("web", "rpc.sock");
    // A second link, by which the name comes back without a restart.
    let pin = world.file("pin");
    fs::hard_link(&socket, &pin)?;
    let plain = Floor::start(world, &pin)?;
    let mut client = Control::open(world)?;
    let (mut wake, mut noticed, mut told, mut pushed, mut asked) = <[Samples; 5]>::default().into();
    for _ in 0..RUNS {
        rest(&mut client)?;
        wake.add(plain.wake()?);

        rest(&mut client)?;
        while logged.try_recv().is_ok() {}
        let start = unlink(&socket)?;
        noticed.add(logged.recv_timeout(LIMIT)? - start);
        told.add(until_red(&mut client, "service.list", start)?);
        fs::hard_link(&pin, &socket)?;

        for (method, samples) in [("service.reset_failed", &mut pushed), ("service.list", &mut asked)] {
            rest(&mut client)?;
            // The connection's tasks are awake, as they are under a client that asks all the time.
            client.status(method, "web")?;
            let start = unlink(&socket)?;
            samples.add(until_red(&mut client, method, start)?);
            fs::hard_link(&pin, &socket)?;
        }
    }
    Ok(vec![Section {
        title: "unlink → verdict".into(),
        floor: Some(Line::timed(floor::WHAT, &wake)),
        lines: vec![
            Line::timed("the daemon, idle, says dangling in its log", &noticed),
            Line::timed("… and a client that asks then is told", &told).aim(Aim::Floors(4.0)),
            Line::timed("a client that asks all the time, the state as it is", &pushed).aim(Aim::Floors(4.0)),
            Line::timed("a client that asks all the time, service.list", &asked),
        ],
    }])
}

/// A daemon whose log comes through a pipe: the moments at which it said `dangling`.
fn start(world: &World) -> Result<(Child, Receiver<Instant>)> {
    let mut command = world.command(world.bin("shimd"));
    command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let log = child.stderr.take();
    let (sender, moments) = channel();
    std::thread::spawn(move || {
        for line in log.into_iter().flat_map(|log| BufReader::new(log).lines()) {
            let now = Instant::now();
            if line.is_ok_and(|line| line.contains("dangling")) && sender.send(now).is_err() {
                return;
            }
        }
    });
    wait_until(LIMIT, "the daemon answers", || world.daemon_pid().is_ok())?;
    Ok((child, moments))
}

/// Waits until the service is green, and a moment more.
fn rest(client: &mut Control) -> Result {
    let start = Instant::now();
    while client.status("service.list", "web")? != "running" {
        ensure!(start.elapsed() < LIMIT, "the service does not turn green again");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(REST);
    Ok(())
}

fn until_red(client: &mut Control, method: &str, start: Instant) -> Result<Duration> {
    while client.status(method, "web")? == "running" {
        ensure!(start.elapsed() < LIMIT, "{method} says running without a socket");
    }
    Ok(start.elapsed())
}
