//! An old instance that unlinks, at its end, whatever lies at its path by then. A restart that does not wait for the whole
//! tree loses the new instance's file to it.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::wait::holds_for;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    let trial = |name: &str, options: &'static [&'static str]| {
        scenario(&format!("late_unlink_by_old_instance::{name}"), &needs, move |world| {
            restarts(world, options)
        })
    };
    vec![
        trial("its_exit_handler", &["--unlink-late", "400"]),
        trial("a_child_that_outlives_it", &["--unlink-late-child", "1000"]),
        trial("a_child_that_outlives_the_stop_timeout", &["--unlink-late-child", "8000"]),
    ]
}

fn restarts(world: &World, options: &[&str]) -> Result {
    world.start_daemon()?;
    let spec = specs::with(specs::unixd(world, "late", options), json!({"stop": {"timeout": "2sec"}}));
    world.up(&spec)?;
    let path = world.socket("late", "rpc.sock");
    for command in ["proc restart late --clean", "proc restart late"] {
        let restarted = world.nu_json(command)?;
        let row = restarted.only()?;
        ensure!(row.text("outcome")? == "restarted", "{command}: {row}");
        let pid = row.pid("new_pid")?;
        let left: Vec<_> =
            world.processes().into_iter().filter(|process| process.command.contains("__unlink")).collect();
        ensure!(left.is_empty(), "{command}: the old instance's child still lives: {left:?}");
        // Longer than the old instance waits in the first two cases; in the third it is dead.
        holds_for(Duration::from_millis(1200), "the new instance keeps its file", || {
            Ok(path.exists() && world.service("late")?.text("status")? == "running")
        })?;
        ensure!(ping(&path)? == pid, "the new instance answers");
    }
    Ok(())
}
