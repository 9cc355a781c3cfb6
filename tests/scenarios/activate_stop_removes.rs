//! Who stops a service wants nobody to wait for it: its listener is closed, its dentry and its pin are gone.

use libtest_mimic::Trial;
use scenarios::client::{ask_and_wait, ping, pong};
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon];
    vec![
        scenario("activate_stop_removes::stop_and_unregister", &needs, stop_and_unregister),
        scenario("activate_stop_removes::shutdown", &needs, shutdown),
        scenario("activate_stop_removes::lost_dentry_is_linked_back", &needs, linked_back),
    ]
}

fn stop_and_unregister(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::activated(world, "web", &["rpc.sock"], &["--accept-every", "60000"]);
    let spec = specs::with(spec, json!({"on_missing": "relink"}));
    world.up(&spec)?;
    let path = world.socket("web", "rpc.sock");
    let pins = world.sockets().join(".shimd");
    wait_until(SOON, "it has a pin", || pins.read_dir().is_ok_and(|mut found| found.next().is_some()))?;
    ping(&path)?;
    let waiting = ask_and_wait(&path, 2)?;
    let stopped = world.rpc("service.stop", json!({"name": "web"}))?;
    ensure!(stopped.only()?.text("status")? == "inactive", "{stopped}");
    let refused = UnixStream::connect(&path).err().map(|e| e.kind());
    ensure!(refused == Some(std::io::ErrorKind::NotFound), "nothing is at the path: {refused:?}");
    for client in waiting {
        ensure!(pong(client).is_err(), "nobody waits for ever");
    }
    ensure!(!pins.exists(), "no pin is left: {:?}", fs::read_dir(&pins)?.flatten().collect::<Vec<_>>());
    world.rpc("service.start", json!({"name": "web"}))?;
    ping(&path)?;
    world.rpc("service.delete", json!({"name": "web"}))?;
    ensure!(!path.exists() && !pins.exists(), "unregistered");
    Ok(())
}

fn shutdown(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&specs::activated(world, "web", &["rpc.sock"], &[]))?;
    let path = world.socket("web", "rpc.sock");
    world.stop_daemon(false)?;
    ensure!(ping(&path)? == pid, "the service lives on, with its listener");
    world.start_daemon()?;
    world.wait_status("web", "running", SOON)?;
    world.stop_daemon(true)?;
    ensure!(!path.exists(), "stopped with its services");
    // What was wanted is wanted still.
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(ping(&path)? == row.pid("pid")?, "{row}");
    let events = world.rpc("event.list", json!({"kinds": ["listener"]}))?;
    ensure!(events.rows()?.is_empty(), "nothing was lost: {events}");
    Ok(())
}

fn linked_back(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::activated(world, "web", &["rpc.sock"], &[]);
    let pid = world.up(&specs::with(spec, json!({"on_missing": "relink"})))?;
    let path = world.socket("web", "rpc.sock");
    let pins = world.sockets().join(".shimd");
    for _ in 0..10 {
        wait_until(SOON, "it has a pin", || pins.read_dir().is_ok_and(|mut found| found.next().is_some()))?;
        fs::remove_file(&path)?;
        wait_until(SOON, "it is back", || path.exists())?;
        ensure!(ping(&path)? == pid, "the same instance answers");
    }
    Ok(())
}
