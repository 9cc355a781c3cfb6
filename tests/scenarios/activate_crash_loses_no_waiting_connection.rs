//! Connections that were not accepted outlive the instance: the next one answers them.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::{ask_and_wait, pong};
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("activate_crash_loses_no_waiting_connection::started_again", &[Need::Daemon], started_again),
        scenario("activate_crash_loses_no_waiting_connection::failed", &[Need::Daemon], failed),
        scenario("activate_crash_loses_no_waiting_connection::unlinks_at_exit", &[Need::Daemon], unlinks),
        scenario("activate_crash_loses_no_waiting_connection::bound_anew", &[Need::Daemon], bound_anew),
    ]
}

/// Nobody is accepted any more.
fn stall(world: &World, name: &str) -> Result<i32> {
    let pid = world.service(name)?.pid("pid")?;
    processes::signal_taken(pid, Signal::SIGUSR1)?;
    Ok(pid)
}

fn started_again(world: &World) -> Result {
    world.start_daemon()?;
    let restart = json!({"restart": {"policy": "always", "delay": "20ms", "limit": 50}});
    let spec = specs::activated(world, "web", &["rpc.sock"], &["--stop-accepting"]);
    world.up(&specs::with(spec, restart))?;
    for _ in 0..5 {
        let old = stall(world, "web")?;
        let waiting = ask_and_wait(&world.socket("web", "rpc.sock"), 50)?;
        processes::signal(old, Signal::SIGKILL);
        for client in waiting {
            let new = pong(client)?;
            ensure!(new != old, "the next instance answers");
        }
        world.wait_status("web", "running", SOON)?;
    }
    Ok(())
}

fn failed(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&specs::activated(world, "web", &["rpc.sock"], &[]))?;
    processes::signal(old, Signal::SIGKILL);
    world.wait_status("web", "failed", SOON)?;
    let waiting = ask_and_wait(&world.socket("web", "rpc.sock"), 5)?;
    let started = world.rpc("service.start", json!({"name": "web"}))?;
    let new = started.only()?.pid("pid")?;
    for client in waiting {
        ensure!(pong(client)? == new, "the next instance answers");
    }
    Ok(())
}

/// A server that removes, at its end, whatever lies at its path: its dentry comes back from the pin.
fn unlinks(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::activated(world, "web", &["rpc.sock"], &["--unlink-at-exit", "--stop-accepting"]);
    world.up(&specs::with(spec, json!({"on_missing": "relink"})))?;
    for clean in [false, true] {
        let old = stall(world, "web")?;
        let waiting = ask_and_wait(&world.socket("web", "rpc.sock"), 5)?;
        let restarted = world.rpc("service.restart", json!({"name": "web", "clean": clean}))?;
        ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
        for client in waiting {
            ensure!(pong(client)? != old, "the next instance answers");
        }
    }
    let events = world.rpc("event.list", json!({"kinds": ["listener"]}))?;
    ensure!(events.rows()?.is_empty(), "never bound anew: {events}");
    Ok(())
}

/// Without a pin it cannot come back: the listener is bound anew, and that is said.
fn bound_anew(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::activated(world, "web", &["rpc.sock"], &["--unlink-at-exit", "--stop-accepting"]);
    world.up(&spec)?;
    stall(world, "web")?;
    let waiting = ask_and_wait(&world.socket("web", "rpc.sock"), 2)?;
    let restarted = world.rpc("service.restart", json!({"name": "web"}))?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
    for client in waiting {
        ensure!(pong(client).is_err(), "its queue is gone");
    }
    wait_until(SOON, "the event is told", || {
        let events = world.rpc("event.list", json!({"kinds": ["listener"]})).ok()?;
        let said = events.rows().ok()?.first()?.field("detail").text("reason").ok()?.to_owned();
        said.contains("bound anew").then_some(())
    })
}
