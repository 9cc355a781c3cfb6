//! Real servers under clients in a tight loop, a short form of `cargo xtask bench load`: lost dentries drop no connection,
//! and restarts of published and activated sockets refuse and drop nobody.

use libtest_mimic::Trial;
use scenarios::load::{Load, Mode, SERVERS, Server};
use scenarios::{Need, Result, World, ensure, scenario};
use std::time::Duration;

const REMOVALS: usize = 20;
const RESTARTS: usize = 5;
/// Far above what a busy machine needs to put a dentry back, and far below any restart policy's means.
const LONG: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    SERVERS.iter().flat_map(trials_of).collect()
}

fn trials_of(server: &'static Server) -> Vec<Trial> {
    let trial = |mode: &'static Mode| {
        let name = format!("load_on_real_servers::{}_{}", server.name, mode.name());
        match server.record() {
            Ok(record) => {
                let needs = [Need::Daemon, Need::Server(Box::new(record))];
                scenario(&name, &needs, move |world| story(world, server, *mode))
            }
            Err(fault) => Trial::test(name, move || Err(fault.into())),
        }
    };
    server.modes.iter().map(trial).collect()
}

fn story(world: &World, server: &Server, mode: Mode) -> Result {
    world.start_daemon()?;
    let load = Load::up(world, server, mode)?;
    let (fresh, open) = load.removals(REMOVALS, server.stays_open)?;
    world.note(format!("removals: {fresh:?}, {open:?}"));
    ensure!(fresh.dropped == 0 && open.dropped == 0, "dropped: {fresh:?}, {open:?}");
    ensure!(fresh.refused.keys().all(|errno| errno == "ENOENT"), "another refusal: {fresh:?}");
    ensure!(fresh.longest < LONG, "a client waited for {:?}", fresh.longest);
    ensure!(open.answered > 0 || !server.stays_open, "nobody stayed: {open:?}");
    let seen = load.restarts(RESTARTS)?;
    world.note(format!("restarts: {seen:?}"));
    if mode != Mode::Bind {
        ensure!(seen.failed() == 0 && seen.dropped == 0, "a restart was noticed: {seen:?}");
    }
    load.down()
}
