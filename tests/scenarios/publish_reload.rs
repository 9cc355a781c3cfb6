//! A published service reloads: it binds its own name anew, and the public one follows, again and again.

use crate::publish::{names, spec};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Less than the period of 5 s: it is seen by its event.
const AT_ONCE: Duration = Duration::from_secs(2);
const RELOADS: usize = 10;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("publish_reload::at_once", &[Need::Daemon], |world| run(world, &["--reload"])),
        scenario("publish_reload::within_settle", &[Need::Daemon], |world| {
            run(world, &["--reload-takes", "20"])
        }),
        scenario("publish_reload::beyond_settle", &[Need::Daemon], |world| {
            run(world, &["--reload-takes", "250"])
        }),
    ]
}

fn run(world: &World, options: &[&str]) -> Result {
    world.start_daemon()?;
    let pid = world.up(&spec(world, "web", options))?;
    let public = world.socket("web", "rpc.sock");
    let own = world.socket("web", ".rpc.sock.1");
    for reload in 0..RELOADS {
        let before = fs::symlink_metadata(&own)?.ctime_nsec();
        ensure!(processes::signal(pid, Signal::SIGHUP), "reload {reload}: the server has ended");
        wait_until(SOON, "it has bound its own name anew", || {
            fs::symlink_metadata(&own).is_ok_and(|found| found.ctime_nsec() != before)
        })?;
        wait_until(AT_ONCE, format!("reload {reload}: clients get in by the public name"), || {
            ping(&public).is_ok_and(|answers| answers == pid)
        })?;
        world.wait_status("web", "running", AT_ONCE)?;
    }
    ensure!(world.service("web")?.int("restarts")? == 0, "no restart");
    ensure!(names(world, "web")? == [".rpc.sock.1", "rpc.sock"], "{:?}", names(world, "web")?);
    // The pin is of the last socket, and the next generation follows as ever.
    fs::remove_file(&public)?;
    wait_until(AT_ONCE, "it is put back", || ping(&public).is_ok_and(|answers| answers == pid))?;
    let row = world.rpc("service.restart", specs::with(json!({"name": "web"}), json!({"gapless": true})))?;
    ensure!(row.only()?.text("outcome")? == "restarted", "{row}");
    Ok(())
}
