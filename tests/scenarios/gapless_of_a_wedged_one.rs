//! A gapless restart of an instance that takes no connections any more: the new one comes up beside it, as beside one that
//! serves. Nobody meets a refusal or a missing file meanwhile, and the row does not say of the old one that it serves.

use crate::publish::spec;
use crate::publish_gapless::restart;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Fault, Json, Need, Result, World, ensure, processes, scenario};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("gapless_of_a_wedged_one::nobody_is_refused", &[Need::Daemon], nobody_is_refused),
        scenario("gapless_of_a_wedged_one::new_one_fails", &[Need::Daemon], new_one_fails),
        scenario("gapless_of_a_wedged_one::that_never_came_up", &[Need::Daemon], never_came_up),
    ]
}

const SOON: Duration = Duration::from_secs(10);

/// A published service whose process is stopped while a client waits for it: `failed`, by a wedged socket.
fn wedged(world: &World) -> Result<(i32, UnixStream)> {
    world.start_daemon()?;
    let mut web = spec(world, "web", &[]);
    web["stop"] = json!({"timeout": "300ms"});
    let pid = world.up(&web)?;
    processes::signal(pid, Signal::SIGSTOP);
    let waits = UnixStream::connect(world.socket("web", "rpc.sock"))?;
    world.wait_status("web", "failed", SOON)?;
    Ok((pid, waits))
}

/// Connects again and again until `done`.
fn knock(socket: &Path, done: &AtomicBool) -> Result<Vec<UnixStream>> {
    let mut connected = Vec::new();
    while !done.load(Ordering::Relaxed) {
        connected
            .push(UnixStream::connect(socket).map_err(|e| Fault(format!("after {}: {e}", connected.len())))?);
        // The queue of a stopped process has room for 64.
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(connected)
}

fn nobody_is_refused(world: &World) -> Result {
    let (old, _waits) = wedged(world)?;
    let public = world.socket("web", "rpc.sock");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result {
        let knocking = scope.spawn(|| knock(&public, &done));
        let row = restart(world, "web");
        done.store(true, Ordering::Relaxed);
        knocking.join().map_err(|_| Fault("a client ended".into()))??;
        let row = row?;
        ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == old, "{row}");
        ensure!(ping(&public)? == row.pid("new_pid")?, "the new one answers: {row}");
        Ok(())
    })?;
    world.wait_status("web", "running", SOON)?;
    let verdicts = world.verdicts("web", "rpc.sock")?;
    ensure!(verdicts == ["absent", "ok", "wedged", "ok"], "{verdicts:?}");
    Ok(())
}

fn new_one_fails(world: &World) -> Result {
    let (old, _waits) = wedged(world)?;
    let mut web = spec(world, "web", &["--no-such-option"]);
    web["stop"] = json!({"timeout": "300ms"});
    world.register(&web)?;
    let row = restart(world, "web")?;
    let why = row.text("health_reason")?;
    ensure!(row.text("outcome")? == "failed" && why.contains("did not take over"), "{row}");
    ensure!(why.ends_with(&format!("process {old} was left as it is")), "{why}");
    ensure!(processes::alive(old), "{old} was left");
    processes::signal(old, Signal::SIGCONT);
    world.wait_status("web", "running", SOON)?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == old, "it serves again");
    Ok(())
}

/// Nobody was served by it, and it may hold what the next one needs.
fn never_came_up(world: &World) -> Result {
    world.start_daemon()?;
    let mut idle = spec(world, "web", &[]);
    idle["exec"] = json!(["sh", "-c", "exec sleep 1000", "{socket:rpc.sock}"]);
    idle["ready"] = json!({"timeout": "300ms"});
    world.register(&idle)?;
    world.rpc("service.start", json!({"name": "web"}))?;
    let row = world.wait_status("web", "failed", SOON)?;
    let old = row.pid("pid")?;
    world.register(&spec(world, "web", &[]))?;
    let row = restart(world, "web")?;
    ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == old, "{row}");
    let told = world.rpc("event.list", json!({"name": "web", "kinds": ["state"]}))?;
    let states: Vec<&str> = told.rows()?.iter().filter_map(|e| e["detail"]["status"].as_str()).collect();
    ensure!(states.ends_with(&["failed", "stopping", "starting", "running"]), "{states:?}");
    Ok(())
}
