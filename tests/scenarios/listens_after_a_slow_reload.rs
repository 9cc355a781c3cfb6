//! A reload that takes longer than `settle` is a failure while it lasts, and none from the moment at which clients get in
//! again. The server binds, and listens a while later: that raises no event, and must not wait for the period.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use std::time::Duration;

/// Less than what the period (5 s), or a look at queues (1 s), would take.
const SOON: Duration = Duration::from_millis(500);
/// More than a reload takes.
const LASTS: Duration = Duration::from_secs(10);
const RELOADS: usize = 5;

pub fn trials() -> Vec<Trial> {
    vec![scenario("listens_after_a_slow_reload", &[Need::Daemon], run)]
}

fn run(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&specs::unixd(world, "web", &["--reload-takes", "200", "--listen-after", "60"]))?;
    let path = world.socket("web", "rpc.sock");
    for reload in 0..RELOADS {
        ensure!(processes::signal(pid, Signal::SIGHUP), "reload {reload}: the server has ended");
        // The state is told as it is known: nothing here has the socket looked at.
        world.wait_status("web", "failed", LASTS)?;
        wait_until(LASTS, "clients get in", || ping(&path).is_ok_and(|answers| answers == pid))?;
        world.wait_status("web", "running", SOON)?;
    }
    ensure!(world.service("web")?.int("restarts")? == 0, "no restart");
    Ok(())
}
