//! The names that a killed daemon's instances had are removed by the next one, and are in the way of no start, whatever the mode of
//! the socket was then and is now.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("recovery_and_names::start_at_once", &[Need::Daemon], start_at_once),
        scenario("recovery_and_names::of_another_mode", &[Need::Daemon], another_mode),
        scenario("recovery_and_names::of_one_that_is_down", &[Need::Daemon], down),
        scenario("recovery_and_names::folders_of_pins", &[Need::Daemon], folders_of_pins),
    ]
}

/// Its socket was published, and is to be bound by the service from its next start on; it and the daemon are killed. The next
/// daemon removes what was left, and is asked for a start meanwhile.
fn start_at_once(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&super::publish::spec(world, "web", &[]))?;
    let own = world.sockets().join("web/.rpc.sock.1");
    ensure!(own.symlink_metadata().is_ok(), "it has a name of its own");
    world.rpc("service.set", json!({"spec": specs::unixd(world, "web", &[])}))?;
    world.kill_daemon()?;
    processes::signal(pid, Signal::SIGKILL);
    wait_until(SOON, "it is dead", || !processes::alive(pid))?;
    world.start_daemon()?;
    let started = world.rpc("service.start", json!({"name": "web"}))?;
    ensure!(started.only()?.text("status")? == "running", "nothing is in its way: {started}");
    wait_until(SOON, "its own name is removed", || own.symlink_metadata().is_err())
}

/// What a killed daemon left of a time when the socket was published goes with the next start.
fn another_mode(world: &World) -> Result {
    world.start_daemon()?;
    let folder = world.sockets().join("web");
    fs::create_dir_all(&folder)?;
    let own = folder.join(".rpc.sock.3");
    drop(UnixListener::bind(&own)?);
    world.up(&specs::unixd(world, "web", &[]))?;
    ensure!(own.symlink_metadata().is_err(), "the path of a dead generation is removed");
    Ok(())
}

/// A daemon that is killed between the making of a folder for pins and that of a pin leaves it empty.
fn folders_of_pins(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&specs::with(specs::unixd(world, "web", &[]), json!({"on_missing": "relink"})))?;
    world.kill_daemon()?;
    let own = format!(".shimd-{}", nix::unistd::geteuid());
    let left = [world.sockets().join(&own), world.sockets().join("web").join(&own)];
    for folder in &left {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    world.start_daemon()?;
    wait_until(SOON, "they are removed", || left.iter().all(|folder| !folder.exists()))?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "what it serves stays");
    let pins = || fs::read_dir(world.sockets().join(".shimd")).is_ok_and(|pins| pins.count() == 1);
    wait_until(SOON, "and has its pin", pins)
}

/// The same for a service that is not to be started: the next daemon removes it.
fn down(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    world.rpc("service.stop", json!({"name": "web"}))?;
    world.kill_daemon()?;
    let own = world.sockets().join("web/.rpc.sock.1");
    drop(UnixListener::bind(&own)?);
    world.start_daemon()?;
    wait_until(SOON, "the path of its last generation is removed", || own.symlink_metadata().is_err())
}
