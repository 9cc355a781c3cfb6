//! `publish`: each instance binds a path of its own, and the public name leads to the one that serves.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("publish::start_stop", &[Need::Daemon], start_stop),
        scenario("publish::late_unlink_hits_private_name", &[Need::Daemon], late_unlink),
        scenario("publish::stranger_is_not_replaced", &[Need::Daemon], stranger),
        scenario("publish::lost_name_is_put_back", &[Need::Daemon], lost_name),
    ]
}

/// The fixture server on a socket that is published.
pub fn spec(world: &World, name: &str, options: &[&str]) -> Value {
    specs::with(
        specs::unixd(world, name, options),
        json!({"sockets": [{"path": "rpc.sock", "mode": "publish"}], "on_missing": "relink"}),
    )
}

/// What lies in the service's folder.
pub fn names(world: &World, service: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(world.sockets().join(service))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn start_stop(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&spec(world, "web", &[]))?;
    let public = world.socket("web", "rpc.sock");
    ensure!(ping(&public)? == pid, "clients find it by the public name");
    ensure!(names(world, "web")? == [".rpc.sock.1", "rpc.sock"], "{:?}", names(world, "web")?);
    let checked = world.rpc("socket.check", json!({"name": "web"}))?;
    let row = checked.only()?;
    ensure!(row.text("verdict")? == "ok" && row.text("path")? == public.to_string_lossy(), "{row}");

    for clean in [false, true] {
        let restarted = world.rpc("service.restart", json!({"name": "web", "clean": clean}))?;
        let row = restarted.only()?;
        ensure!(row.text("outcome")? == "restarted" && ping(&public)? == row.pid("new_pid")?, "{row}");
    }
    ensure!(names(world, "web")? == [".rpc.sock.3", "rpc.sock"], "{:?}", names(world, "web")?);

    world.rpc("service.stop", json!({"name": "web"}))?;
    wait_until(SOON, "nothing is left", || names(world, "web").is_ok_and(|names| names.is_empty()))?;
    world.rpc("service.start", json!({"name": "web"}))?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(ping(&public)? == row.pid("pid")?, "{row}");
    Ok(())
}

fn late_unlink(world: &World) -> Result {
    world.start_daemon()?;
    // A child of the old instance unlinks what its parent bound, when the new one serves already.
    let old = world.up(&spec(world, "web", &["--unlink-late-child", "300"]))?;
    let public = world.socket("web", "rpc.sock");
    let own = world.socket("web", ".rpc.sock.1");
    let restarted = world.rpc("service.restart", json!({"name": "web", "gapless": true}))?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == old, "{row}");
    wait_until(SOON, "the old one's own name is gone", || !own.exists())?;
    ensure!(ping(&public)? == row.pid("new_pid")?, "the public name is the new one's");

    // One that unlinks while it serves harms nobody.
    fs::remove_file(world.socket("web", ".rpc.sock.2"))?;
    ensure!(ping(&public)? == row.pid("new_pid")?, "it serves on");
    let status = world.status("web")?;
    ensure!(status.text("status")? == "running", "{status}");
    Ok(())
}

fn stranger(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&spec(world, "web", &["--listen-after", "300"]))?;
    let public = world.socket("web", "rpc.sock");
    let row = std::thread::scope(|scope| {
        let starting = scope.spawn(|| world.rpc("service.start", json!({"name": "web"})));
        wait_until(SOON, "it has bound", || world.socket("web", ".rpc.sock.1").exists())?;
        let listener = UnixListener::bind(&public)?;
        let started = starting.join().map_err(|_| scenarios::Fault("the client ended".into()))??;
        ensure!(public.exists(), "what a stranger listens on is not replaced");
        drop(listener);
        Ok(started.only()?.clone())
    })?;
    ensure!(row.text("status")? == "failed", "{row}");
    ensure!(row.text("health_reason")?.contains("foreign"), "{row}");
    // Nobody listens there any more: the next audit puts it in place.
    let row = world.wait_status("web", "running", Duration::from_secs(15))?;
    ensure!(ping(&public)? == row.pid("pid")?, "{row}");
    Ok(())
}

fn lost_name(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&spec(world, "web", &[]))?;
    let public = world.socket("web", "rpc.sock");
    for _ in 0..3 {
        fs::remove_file(&public)?;
        wait_until(SOON, "the public name is back", || ping(&public).is_ok_and(|found| found == pid))?;
    }
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == pid, "{row}");
    Ok(())
}
