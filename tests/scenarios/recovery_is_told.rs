//! What a daemon finds when it starts, it tells in its history: what was under way and goes on, what ended meanwhile. What is as it
//! was is no news, and no state follows another than the one that was told last.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("recovery_is_told::nothing_new", &[Need::Daemon, Need::Nushell], nothing_new),
        scenario("recovery_is_told::ended_meanwhile", &[Need::Daemon, Need::Nushell], ended),
        scenario("recovery_is_told::restart_goes_on", &[Need::Daemon, Need::Nushell], restart),
    ]
}

/// `was -> status` of each state event of `web`, which must follow one another; and their reasons.
fn states(world: &World) -> Result<Vec<(String, String)>> {
    let events = world.nu_json("proc events web | where kind == state")?;
    let mut states: Vec<(String, String)> = Vec::new();
    for event in events.rows()? {
        let detail = event.field("detail");
        let (was, status) = (detail.text("was")?, detail.text("status")?);
        if let Some((last, _)) = states.last() {
            ensure!(last == was, "after {last} comes {event}");
        }
        states.push((status.to_owned(), detail.text("reason").unwrap_or_default().to_owned()));
    }
    Ok(states)
}

fn web(world: &World) -> Value {
    specs::unixd(world, "web", &[])
}

fn nothing_new(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&web(world))?;
    let before = states(world)?;
    for _ in 0..2 {
        world.kill_daemon()?;
        world.start_daemon()?;
        world.wait_status("web", "running", SOON)?;
    }
    ensure!(states(world)? == before, "it ran all the time: {:?}, and was {before:?}", states(world)?);
    Ok(())
}

fn ended(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&web(world))?;
    world.kill_daemon()?;
    processes::signal(pid, Signal::SIGKILL);
    wait_until(SOON, "it is dead", || !processes::alive(pid))?;
    for _ in 0..2 {
        world.start_daemon()?;
        world.wait_status("web", "failed", SOON)?;
        world.kill_daemon()?;
    }
    world.start_daemon()?;
    let states = states(world)?;
    let told: Vec<&str> = states.iter().map(|(status, _)| status.as_str()).collect();
    ensure!(told == ["starting", "running", "failed"], "its end is told once: {states:?}");
    ensure!(states[2].1.contains("while shimd was down"), "and how: {states:?}");
    Ok(())
}

/// The daemon is killed while the old instance takes its time to stop.
fn restart(world: &World) -> Result {
    world.start_daemon()?;
    let spec =
        specs::with(specs::unixd(world, "web", &["--ignore-term"]), json!({"stop": {"timeout": "2sec"}}));
    let old = world.up(&spec)?;
    std::thread::scope(|scope| {
        // It is cut off.
        scope.spawn(|| drop(world.rpc("service.restart", json!({"name": "web", "clean": true}))));
        world.wait_status("web", "stopping", SOON)?;
        // The store answers this, and has the restart's intent by then.
        world.rpc("event.list", json!({}))?;
        world.kill_daemon()
    })?;
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? != old && !processes::alive(old), "the restart is done: {row}");
    let states = states(world)?;
    let goes_on = states.iter().any(|(_, reason)| reason.contains("a restart that was under way goes on"));
    ensure!(goes_on, "and told: {states:?}");
    Ok(())
}
