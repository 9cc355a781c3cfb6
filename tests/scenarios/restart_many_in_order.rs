//! `proc restart --clean` of many: dependents are down before what they depend on is stopped, and start after it is up; so
//! many at a time; a row for each.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, fleet, scenario};
use std::collections::BTreeSet;

/// Each with what it depends on, of the lines before: four layers, some across, and three on their own.
const SERVICES: [(&str, &[&str]); 20] = [
    ("db", &[]),
    ("cache", &[]),
    ("bus", &[]),
    ("vault", &[]),
    ("users", &["db", "vault"]),
    ("orders", &["db", "bus"]),
    ("stock", &["db"]),
    ("mail", &["bus"]),
    ("search", &["cache", "bus"]),
    ("bills", &["orders", "users"]),
    ("shop", &["orders", "stock", "search"]),
    ("news", &["mail"]),
    ("api", &["shop", "bills"]),
    ("admin", &["users", "bills"]),
    ("feed", &["news", "search"]),
    ("web", &["api", "cache"]),
    ("edge", &["web", "feed", "admin"]),
    ("clock", &[]),
    ("printer", &[]),
    ("radio", &[]),
];

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("restart_many_in_order::all", &[Need::Daemon, Need::Nushell], all),
        scenario("restart_many_in_order::through_what_stays", &[Need::Daemon], through),
        scenario("restart_many_in_order::so_many_at_a_time", &[Need::Daemon], bounded),
    ]
}

fn all(world: &World) -> Result {
    world.start_daemon()?;
    let services: Vec<_> =
        SERVICES.iter().map(|(name, on)| (*name, *on, &["--listen-after", "20"][..])).collect();
    let old = fleet::up(world, &services)?;
    let mark = fleet::mark(world)?;
    let rows = world.nu_json("proc list | proc restart --clean")?;
    ensure!(rows.rows()?.len() == SERVICES.len(), "a row for each: {rows}");
    let mut pids = BTreeSet::new();
    for ((name, _), old) in SERVICES.iter().zip(old) {
        let row = rows.row("name", name)?;
        ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == old, "{row}");
        ensure!(row.int("stopped_in")? <= row.int("took")? && row.int("ready_in")? > 0, "{row}");
        pids.insert(row.pid("new_pid")?);
    }
    ensure!(pids.len() == SERVICES.len(), "each has a process of its own: {rows}");
    let story = fleet::since(world, mark)?;
    for (name, on) in SERVICES {
        for on in on {
            // What the services saw, and what the daemon said.
            story.wrote(&format!("stop {name}"), &format!("stop {on}"))?;
            story.wrote(&format!("ready {on}"), &format!("start {name}"))?;
            story.was(&format!("{name} starting"), &format!("{on} stopping"))?;
            story.was(&format!("{on} running"), &format!("{name} running"))?;
        }
    }
    Ok(())
}

/// `top` depends on `base` through `middle`, which is not restarted.
fn through(world: &World) -> Result {
    world.start_daemon()?;
    let pids =
        fleet::up(world, &[("base", &[], &[]), ("middle", &["base"], &[]), ("top", &["middle"], &[])])?;
    let mark = fleet::mark(world)?;
    let rows = world.rpc("service.restart", serde_json::json!({"names": ["base", "top"], "clean": true}))?;
    for row in rows.rows()? {
        ensure!(row.text("outcome")? == "restarted", "{row}");
    }
    let story = fleet::since(world, mark)?;
    story.wrote("stop top", "stop base")?;
    story.wrote("ready base", "start top")?;
    ensure!(world.service("middle")?.pid("pid")? == pids[1], "middle was not asked for");
    Ok(())
}

fn bounded(world: &World) -> Result {
    world.start_daemon()?;
    let names: Vec<String> = (0..40).map(|n| format!("one{n:02}")).collect();
    let slow = ["--listen-after", "30"];
    fleet::up(world, &names.iter().map(|n| (n.as_str(), &[][..], &slow[..])).collect::<Vec<_>>())?;
    let mark = fleet::mark(world)?;
    let rows = world.rpc("service.restart", serde_json::json!({"names": names, "clean": true}))?;
    for row in rows.rows()? {
        ensure!(row.text("outcome")? == "restarted", "{row}");
    }
    let processors = std::thread::available_parallelism()?.get();
    let most = fleet::since(world, mark)?.at_once("start", "ready");
    ensure!(most > 1 && most <= 4 * processors, "{most} started at once on {processors} processors");
    Ok(())
}
