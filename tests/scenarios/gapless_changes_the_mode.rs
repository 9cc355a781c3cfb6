//! A gapless restart into a spec with another mode of the socket: from `activate` to `publish` no client notices, also none
//! that waits in the old listener's queue. From `publish` to `activate` it cannot be, is refused, and nobody is touched.

use crate::publish::spec;
use crate::publish_gapless::{beside_clients, restart};
use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("gapless_changes_the_mode::activate_to_publish", &[Need::Daemon], to_publish),
        scenario(
            "gapless_changes_the_mode::publish_to_activate",
            &[Need::Daemon, Need::Nushell],
            to_activate,
        ),
    ]
}

/// It accepts rarely, so that somebody always waits.
const SLOW: [&str; 3] = ["--finish", "--accept-every", "10"];

fn to_publish(world: &World) -> Result {
    world.start_daemon()?;
    for _ in 0..5 {
        let old = world.up(&specs::activated(world, "web", &["rpc.sock"], &SLOW))?;
        let public = world.socket("web", "rpc.sock");
        beside_clients(&public, 6, || {
            // Their queue is never empty by now.
            std::thread::sleep(Duration::from_millis(100));
            world.register(&spec(world, "web", &SLOW))?;
            let row = restart(world, "web")?;
            ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == old, "{row}");
            Ok(())
        })?;
        world.rpc("service.stop", json!({"name": "web"}))?;
    }
    Ok(())
}

fn to_activate(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&spec(world, "web", &[]))?;
    world.register(&specs::activated(world, "web", &["rpc.sock"], &[]))?;
    let error = world.rpc_error("service.restart", json!({"name": "web", "gapless": true}))?;
    ensure!(error.kind == "not_gapless" && error.message.contains("rpc.sock"), "{error}");
    let error = world.nu_refuses("proc restart --gapless web", "proc::not_gapless")?;
    ensure!(error.help.contains("without --gapless"), "{error}");
    ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "the instance serves on");
    let verdicts = world.verdicts("web", "rpc.sock")?;
    ensure!(verdicts.iter().all(|verdict| ["absent", "ok"].contains(&verdict.as_str())), "{verdicts:?}");

    let row = world.rpc("service.restart", json!({"name": "web"}))?;
    ensure!(row.only()?.text("outcome")? == "restarted", "{row}");
    ensure!(restart(world, "web")?.text("outcome")? == "restarted", "from then on it is gapless");
    Ok(())
}
