//! `proc stop` of many: a service is told to stop once those that depend on it, and are stopped too, are down.

use libtest_mimic::Trial;
use scenarios::{Fault, Json, Need, Result, World, ensure, fleet, processes, scenario, specs};
use serde_json::{Value, json};
use std::path::Path;
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Each with what it depends on.
const SERVICES: [(&str, &[&str]); 5] =
    [("base", &[]), ("left", &["base"]), ("right", &["base"]), ("top", &["left", "right"]), ("alone", &[])];

/// After SIGTERM they live on for so long.
const LATE: &[&str] = &["--unlink-late", "150"];

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("stop_many_in_order::by_every_command", &needs, every),
        scenario("stop_many_in_order::only_those_that_are_named", &needs, named),
        scenario("stop_many_in_order::the_last_command_counts", &needs, overtaken),
        scenario("stop_many_in_order::who_must_be_killed_holds_up_nobody", &needs, killed),
    ]
}

fn up(world: &World) -> Result<Vec<i32>> {
    let services: Vec<_> = SERVICES.iter().map(|(name, on)| (*name, *on, LATE)).collect();
    fleet::up(world, &services)
}

fn every(world: &World) -> Result {
    world.start_daemon()?;
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nu/lib.nu").display().to_string();
    // The last ends the daemon.
    for command in [
        "proc stop base alone left right top | get status | uniq | to json -r",
        "proc list | proc stop --fail | get status | uniq | to json -r",
        "use nu/lib.nu *; service down base alone left right top | get status | uniq | to json -r",
        "proc unregister base alone left right top | get change | uniq | to json -r",
        "proc shim stop --services | get services | to json -r",
    ] {
        let pids = up(world)?;
        let mark = fleet::mark(world)?;
        let said = world.nu(&command.replace("nu/lib.nu", &lib))?.success()?.stdout;
        ensure!(["[\"inactive\"]", "[\"deleted\"]", "5"].contains(&said.trim()), "{command}: {said}");
        ensure!(!pids.iter().any(|pid| processes::alive(*pid)), "{command}: all are down");
        if command.contains("shim stop") {
            world.start_daemon()?;
        }
        let story = fleet::since(world, mark)?;
        for (name, on) in SERVICES {
            for on in on {
                story.wrote(&format!("stop {name}"), &format!("stop {on}"))?;
                story.was(&format!("{name} inactive"), &format!("{on} stopping"))?;
            }
        }
        // Who has no part in it waits for nobody.
        story.was("alone stopping", "top inactive")?;
    }
    Ok(())
}

/// Who depends on what is stopped, and is not named, goes on; the order holds through it.
fn named(world: &World) -> Result {
    world.start_daemon()?;
    let pids = up(world)?;
    let mark = fleet::mark(world)?;
    let rows = world.nu_json("proc stop base top")?;
    ensure!(rows.rows()?.len() == 2, "a row for each that is named: {rows}");
    fleet::since(world, mark)?.was("top inactive", "base stopping")?;
    for (name, pid) in ["left", "right"].into_iter().zip([pids[1], pids[2]]) {
        ensure!(world.service(name)?.pid("pid")? == pid, "{name} was not asked for");
    }
    Ok(())
}

/// A stop whose turn has not come is taken back by a start, and by a restart.
fn overtaken(world: &World) -> Result {
    world.start_daemon()?;
    let services = [
        ("base", &[][..], &[][..]),
        ("other", &[], &[]),
        ("top", &["base", "other"], &["--unlink-late", "1500"]),
    ];
    let pids = fleet::up(world, &services)?;
    let rows = thread::scope(|scope| -> Result<Value> {
        let stop = scope.spawn(|| world.rpc("service.stop", json!({"names": ["base", "other", "top"]})));
        world.wait_status("top", "stopping", SOON)?;
        let row = world.rpc("service.start", json!({"name": "base"}))?;
        ensure!(
            row.only()?.pid("pid")? == pids[0] && processes::alive(pids[2]),
            "it was never stopped: {row}"
        );
        let row = world.rpc("service.restart", json!({"name": "other"}))?;
        ensure!(row.only()?.text("outcome")? == "restarted" && !processes::alive(pids[2]), "{row}");
        stop.join().map_err(|_| Fault::new("the stop panicked"))?
    })?;
    for (name, status) in [("base", "running"), ("other", "running"), ("top", "inactive")] {
        ensure!(rows.row("name", name)?.text("status")? == status, "{rows}");
    }
    ensure!(world.service("base")?.pid("pid")? == pids[0], "the same process");
    ensure!(world.service("other")?.pid("pid")? != pids[1], "another process");
    Ok(())
}

/// A process that ignores SIGTERM.
fn killed(world: &World) -> Result {
    world.start_daemon()?;
    let services = [("base", &[][..], &[][..]), ("top", &["base"], &["--ignore-term"])];
    fleet::up(world, &services)?;
    let mut spec = specs::unixd(world, "top", &["--ignore-term"]);
    spec = specs::with(spec, json!({"depends_on": ["base"], "stop": {"timeout": "300ms"}}));
    world.register(&spec)?;
    world.rpc("service.restart", json!({"name": "top"}))?;
    let mark = fleet::mark(world)?;
    let rows = world.nu_json("proc stop base top --fail")?;
    ensure!(rows.rows()?.len() == 2, "{rows}");
    fleet::since(world, mark)?.was("top stopping", "base stopping")?;
    Ok(())
}
