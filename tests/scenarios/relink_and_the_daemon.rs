//! Pins across the daemon's own life: they stay when it is killed, the next one uses them, and what nobody owns is swept.
//! Its own stops and restarts are no loss.

use super::relink_puts_it_back::{relinked, serve};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(12);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("relink_and_the_daemon::lost_while_it_was_down", &needs, lost_while_down),
        scenario("relink_and_the_daemon::sweeps_what_nobody_owns", &needs, sweeps),
        scenario("relink_and_the_daemon::own_stops_are_no_loss", &needs, own_stops),
    ]
}

fn pins(world: &World) -> Vec<String> {
    let list = fs::read_dir(world.sockets().join(".shimd")).into_iter().flatten().flatten();
    list.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn lost_while_down(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let path = world.socket("web", "rpc.sock");
    ensure!(pins(world).len() == 1, "one pin: {:?}", pins(world));
    world.kill_daemon()?;
    world.hand("rm", &[&path])?;
    world.start_daemon()?;
    relinked(world, "rpc.sock", 1)?;
    ensure!(ping(&path)? == pid && world.service("web")?.pid("pid")? == pid, "without a restart");
    ensure!(pins(world).len() == 1, "one pin: {:?}", pins(world));
    Ok(())
}

fn sweeps(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    world.kill_daemon()?;
    processes::signal(pid, Signal::SIGKILL);
    wait_until(SOON, "the service has ended", || !processes::alive(pid))?;
    ensure!(pins(world).len() == 1, "its pin is left: {:?}", pins(world));
    world.start_daemon()?;
    // Before the first audit of everything, five seconds later.
    wait_until(Duration::from_secs(4), "the pin is swept", || pins(world).is_empty())?;
    Ok(())
}

fn own_stops(world: &World) -> Result {
    world.start_daemon()?;
    let habits: [(&str, &[&str]); 2] =
        [("tidy", &["--unlink-at-exit"]), ("late", &["--unlink-late-child", "30"])];
    for (name, options) in habits {
        let spec = specs::unixd(world, name, options);
        world.up(&specs::with(spec, json!({"on_missing": "relink"})))?;
    }
    for _ in 0..10 {
        let restarted = world.nu_json("proc restart tidy late --clean")?;
        for row in restarted.rows()? {
            ensure!(row.text("outcome")? == "restarted", "{row}");
        }
    }
    world.nu_json("proc stop tidy late")?;
    world.nu_json("proc start tidy late")?;
    for name in ["tidy", "late"] {
        let row = world.service(name)?;
        ensure!(row.int("restarts")? == 0, "one restart for each command: {row}");
        let spawned = world.nu_json(&format!(
            "proc events {name} | where kind == state and detail.status == starting | length"
        ))?;
        ensure!(spawned == json!(12), "{name} was started {spawned} times");
    }
    let events = world.nu_json("proc events tidy | where kind == relinked")?;
    ensure!(events.rows()?.is_empty(), "what it removes itself when told to stop is no loss: {events}");
    world.nu_json("proc stop tidy late")?;
    wait_until(SOON, "no pin and no folder of pins is left", || !world.sockets().join(".shimd").exists())
}
