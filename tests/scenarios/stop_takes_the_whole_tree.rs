//! A stop ends workers, and children in sessions of their own, before it says `inactive`.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs};
use serde_json::json;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    let trial = |name: &str, options: &'static [&'static str]| {
        scenario(&format!("stop_takes_the_whole_tree::{name}"), &needs, move |world| stops(world, options))
    };
    vec![
        trial("workers", &["--fork-workers", "3"]),
        trial("a_child_in_its_own_session", &["--child-holds"]),
        trial("a_child_without_its_environment", &["--child-escapes"]),
        trial("workers_and_a_late_child", &["--fork-workers", "2", "--unlink-late-child", "60000"]),
    ]
}

fn stops(world: &World, options: &[&str]) -> Result {
    let daemon = world.start_daemon()?;
    let spec = specs::with(specs::unixd(world, "tree", options), json!({"stop": {"timeout": "1sec"}}));
    world.up(&spec)?;
    let stopped = world.nu_json("proc stop tree")?;
    let row = stopped.only()?;
    ensure!(row.text("status")? == "inactive", "{row}");
    let left: Vec<_> = world.processes().into_iter().filter(|process| process.pid != daemon).collect();
    ensure!(left.is_empty(), "alive after `inactive`: {left:?}");
    ensure!(processes::alive(daemon), "the daemon lives");
    let rows = world.rpc("socket.check", json!({"name": "tree"}))?;
    let verdict = rows.only()?.text("verdict")?;
    ensure!(["absent", "stale"].contains(&verdict), "nobody listens: {rows}");
    Ok(())
}
