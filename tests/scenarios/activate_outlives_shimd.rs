//! The daemon is killed: its listeners come back from the instance, or from the service manager, with whoever waits.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::{ask_and_wait, ping, pong};
use scenarios::manager::Manager;
use scenarios::wait::wait_for;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, scenario_as, specs, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon];
    vec![
        scenario("activate_outlives_shimd::taken_back_from_the_service", &needs, taken_back),
        scenario_as("nobody", "activate_outlives_shimd::ordinary_user", &needs, taken_back),
        scenario("activate_outlives_shimd::kept_by_the_service_manager", &needs, stored),
        scenario("activate_outlives_shimd::nobody_had_it", &needs, nobody_had_it),
    ]
}

fn spec(world: &World) -> Value {
    let spec = specs::activated(world, "web", &["rpc.sock"], &["--stop-accepting"]);
    specs::with(spec, json!({"restart": {"policy": "always", "delay": "20ms"}}))
}

fn inode(world: &World) -> Result<i64> {
    let rows = world.rpc("socket.check", json!({"names": ["web"]}))?;
    rows.only()?.int("inode")
}

fn said(world: &World) -> Result<Vec<String>> {
    let events = world.rpc("event.list", json!({"kinds": ["listener"]}))?;
    events.rows()?.iter().map(|row| Ok(row.field("detail").text("reason")?.to_owned())).collect()
}

fn taken_back(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world))?;
    let path = world.socket("web", "rpc.sock");
    let before = inode(world)?;
    processes::signal_taken(old, Signal::SIGUSR1)?;
    let mut waiting = ask_and_wait(&path, 3)?;
    world.kill_daemon()?;
    waiting.extend(ask_and_wait(&path, 3)?);
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == old && inode(world)? == before, "the same service, the same listener: {row}");
    waiting.extend(ask_and_wait(&path, 3)?);
    // It is the daemon's again: it outlives the instance.
    processes::signal(old, Signal::SIGKILL);
    for client in waiting {
        ensure!(pong(client)? != old, "the next instance answers");
    }
    world.wait_status("web", "running", SOON)?;
    ensure!(inode(world)? == before, "the same listener still");
    ensure!(said(world)?.is_empty(), "nothing was lost: {:?}", said(world)?);
    Ok(())
}

fn stored(world: &World) -> Result {
    let mut manager = Manager::new(world)?;
    world.start_daemon_by(manager.daemon(world)?)?;
    let old = world.up(&spec(world))?;
    let before = inode(world)?;
    wait_for(SOON, "the manager is given the listener", || {
        manager.listen()?;
        Ok(manager.kept.len() == 1)
    })?;
    ensure!(manager.kept.iter().all(|(name, _)| name == "web/rpc.sock"), "its name");
    // Both at once: nothing is left of the service.
    world.kill_daemon()?;
    processes::signal(old, Signal::SIGKILL);
    wait_until(SOON, "the service is dead", || !processes::alive(old))?;
    let waiting = ask_and_wait(&world.socket("web", "rpc.sock"), 3)?;
    world.start_daemon_by(manager.daemon(world)?)?;
    world.wait_status("web", "running", SOON)?;
    for client in waiting {
        ensure!(pong(client)? != old, "the next instance answers");
    }
    ensure!(inode(world)? == before && said(world)?.is_empty(), "the same listener: {:?}", said(world)?);
    world.rpc("service.stop", json!({"name": "web"}))?;
    wait_for(SOON, "the manager is told to forget it", || {
        manager.listen()?;
        Ok(manager.kept.is_empty())
    })
}

fn nobody_had_it(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world))?;
    let path = world.socket("web", "rpc.sock");
    processes::signal_taken(old, Signal::SIGUSR1)?;
    let waiting = ask_and_wait(&path, 2)?;
    world.kill_daemon()?;
    processes::signal(old, Signal::SIGKILL);
    wait_until(SOON, "the service is dead", || !processes::alive(old))?;
    for client in waiting {
        ensure!(pong(client).is_err(), "the last who had it open is gone");
    }
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(ping(&path)? == row.pid("pid")?, "bound anew: {row}");
    let said = said(world)?;
    ensure!(said.iter().any(|reason| reason.contains("bound anew")), "and said: {said:?}");
    Ok(())
}
