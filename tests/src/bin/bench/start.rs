//! Start of 1,000 services, a socket each, in one request: from the request to all of them running.

use crate::fleet;
use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::{Result, World, wait_until};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SERVICES: usize = 1_000;
const RUNS: usize = 3;
const LIMIT: Duration = Duration::from_secs(60);

pub fn measure() -> Result<Vec<Section>> {
    in_world("start", |world| {
        world.start_daemon()?;
        let names = fleet::names(0..SERVICES);
        fleet::register(world, &names)?;
        let (mut floor, mut services) = (Samples::default(), Samples::default());
        for _ in 0..RUNS {
            floor.add(by_hand(world, SERVICES)?);
            services.add(fleet::start(world, &names)?);
            fleet::stop(world, &names)?;
        }
        Ok(vec![Section {
            title: format!("start of {SERVICES} services"),
            floor: Some(Line::timed("posix_spawn of all from here → all sockets answer", &floor)),
            lines: vec![
                Line::timed("one request → all running", &services)
                    .aim(Aim::Most(Amount::Time(Duration::from_secs(1)))),
            ],
        }])
    })
}

/// Children that are dead in the end.
struct Children(Vec<(Child, PathBuf)>);

impl Drop for Children {
    fn drop(&mut self) {
        for (child, path) in &mut self.0 {
            // Ended already is as good.
            let _ = child.kill();
            let _ = child.wait();
            let _ = fs::remove_file(path);
        }
    }
}

/// Spawns so many fixture servers from here, until all answer; gives how long that took.
pub fn by_hand(world: &World, count: usize) -> Result<Duration> {
    let mut children = Children(Vec::new());
    let start = Instant::now();
    for name in fleet::names(0..count) {
        let path = world.file(&name);
        let mut command = world.command(world.bin("unixd"));
        command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        children.0.push((command.spawn()?, path));
    }
    for (_, path) in &children.0 {
        wait_until(LIMIT, path.display(), || UnixStream::connect(path).is_ok())?;
    }
    Ok(start.elapsed())
}
