//! The server has closed its listener, which raises no event, and another process then removes the dead file: what
//! `shimd` links back before it asks the kernel, it takes away again.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("relink_of_closed_listener", &[Need::Daemon, Need::Nushell], run)]
}

fn run(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::unixd(world, "web", &["--close"]);
    let pid = world.up(&specs::with(spec, json!({"on_missing": "relink"})))?;
    let path = world.socket("web", "rpc.sock");
    processes::signal(pid, Signal::SIGUSR2);
    wait_until(SOON, "the listener is closed", || ping(&path).is_err())?;
    world.hand("rm", &[&path])?;
    let row = wait_until(SOON, "the socket is absent", || {
        let row = world.socket_row("web", "rpc.sock").ok()?;
        (row.text("verdict").ok()? == "absent").then_some(row)
    })?;
    ensure!(row.int("inode").is_err(), "nobody listens: {row}");
    ensure!(path.symlink_metadata().is_err(), "the dead file is not left at the path");
    let events = world.nu_json("proc events | where kind == relinked")?;
    ensure!(events.rows()?.is_empty(), "nothing was healed, and nothing is said to be: {events}");
    ensure!(world.service("web")?.text("status")? == "failed", "clients cannot reach it");
    Ok(())
}
