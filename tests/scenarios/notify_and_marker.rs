//! A spec that asks for a notification or a marker: listening is not enough to be `running`.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::wait::holds_for;
use scenarios::{Fault, Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("notify_and_marker::notify", &[Need::Daemon], notify),
        scenario("notify_and_marker::marker", &[Need::Daemon], marker),
        scenario("notify_and_marker::stale_marker_is_removed", &[Need::Daemon], stale_marker),
        scenario("notify_and_marker::never_ready_fails", &[Need::Daemon], never_ready),
    ]
}

/// Starts it in a thread; while it listens and is not ready it is `starting`, then `running`.
fn late(world: &World, spec: &Value) -> Result {
    world.register(spec)?;
    let path = world.socket("slow", "rpc.sock");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| world.rpc("service.start", json!({"name": "slow"})));
        wait_until(SOON, "it listens", || std::os::unix::net::UnixStream::connect(&path).is_ok())?;
        holds_for(Duration::from_millis(300), "it is starting while it is not ready", || {
            Ok(world.service("slow")?.text("status")? == "starting")
        })?;
        let started = starting.join().map_err(|_| Fault::new("the request panicked"))??;
        ensure!(started.only()?.text("status")? == "running", "{started}");
        ping(&path).map(drop)
    })
}

fn notify(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::unixd(world, "slow", &["--notify", "--ready-after", "900"]);
    late(world, &specs::with(spec, json!({"ready": {"notify": true}})))
}

fn marked(world: &World, options: &[&str]) -> Value {
    let marker = world.socket("slow", "up.marker").display().to_string();
    let mut all = vec!["--marker", &marker];
    all.extend(options);
    specs::with(specs::unixd(world, "slow", &all), json!({"ready": {"marker": "up.marker"}}))
}

fn marker(world: &World) -> Result {
    world.start_daemon()?;
    late(world, &marked(world, &["--ready-after", "900"]))
}

fn stale_marker(world: &World) -> Result {
    world.start_daemon()?;
    fs::create_dir_all(world.sockets().join("slow"))?;
    fs::write(world.socket("slow", "up.marker"), "")?;
    late(world, &marked(world, &["--ready-after", "900"]))
}

fn never_ready(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::unixd(world, "slow", &[]);
    world.register(&specs::with(spec, json!({"ready": {"notify": true, "timeout": "400ms"}})))?;
    let started = world.rpc("service.start", json!({"name": "slow"}))?;
    let row = started.only()?;
    ensure!(row.text("status")? == "failed", "{row}");
    let reason = row.text("health_reason")?.to_lowercase();
    ensure!(reason.contains("ready") || reason.contains("notif"), "it says what did not come: {row}");
    Ok(())
}
