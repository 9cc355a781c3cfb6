//! One of many does not come up again: the others do; those that depend on it say which it is, and come up by themselves
//! when it does.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, fleet, scenario, specs};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("restart_many_one_fails", &[Need::Daemon, Need::Nushell], one_fails)]
}

fn one_fails(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(
        world,
        &[
            ("base", &[], &[]),
            ("bad", &["base"], &[]),
            ("on-bad", &["bad"], &[]),
            ("above", &["on-bad", "good"], &[]),
            ("good", &["base"], &[]),
            ("alone", &[], &[]),
        ],
    )?;
    // What it is restarted with does not start.
    let on_base = json!({"depends_on": ["base"]});
    let broken = specs::with(specs::unixd(world, "bad", &["--no-such-option"]), on_base.clone());
    world.register(&broken)?;
    let rows = world.nu_json("proc list | proc restart --clean")?;
    ensure!(rows.rows()?.len() == 6, "a row for each: {rows}");
    for name in ["base", "good", "alone"] {
        let row = rows.row("name", name)?;
        ensure!(row.text("outcome")? == "restarted", "{row}");
    }
    let bad = rows.row("name", "bad")?;
    ensure!(bad.text("outcome")? == "failed" && bad.text("health_reason")?.contains("status 1"), "{bad}");
    for (name, on) in [("on-bad", "bad"), ("above", "on-bad")] {
        let row = rows.row("name", name)?;
        let reason = row.text("health_reason")?;
        ensure!(row.text("outcome")? == "failed", "{row}");
        ensure!(reason.contains(&format!("dependency {on} is failed")), "which dependency it is: {row}");
        ensure!(world.service(name)?.text("status")? == "failed", "not down in silence: {row}");
    }
    let failed = world.nu_refuses("proc restart --clean on-bad good --fail", "proc::failed")?;
    ensure!(failed.mentions("dependency bad is failed"), "{failed}");

    let mended = specs::with(specs::unixd(world, "bad", &[]), on_base);
    world.register(&mended)?;
    world.rpc("service.start", json!({"name": "bad"}))?;
    for name in ["on-bad", "above"] {
        world.wait_status(name, "running", SOON)?;
    }
    Ok(())
}
