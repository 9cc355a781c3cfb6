//! The main process is killed, and a child that holds its listener does not end: until that is killed too, `socket-check` names
//! the child, and not a process that is no more.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("dead_main_is_not_named", &[Need::Daemon], run)]
}

fn run(world: &World) -> Result {
    world.start_daemon()?;
    let spec =
        specs::with(specs::unixd(world, "web", &["--child-stays"]), json!({"stop": {"timeout": "30sec"}}));
    let main = world.up(&spec)?;
    let child = processes::children(main);
    ensure!(child.len() == 1, "one child holds the listener: {child:?}");
    ensure!(processes::signal(main, Signal::SIGKILL), "it lives");
    world.wait_status("web", "stopping", SOON)?;
    let named = wait_until(SOON, "somebody who lives is named", || {
        let row = world.socket_row("web", "rpc.sock").ok()?;
        row.pid("pid").ok().filter(|pid| *pid != main)
    })?;
    ensure!(child == [named], "{named} is named, and {child:?} listens");
    processes::signal(named, Signal::SIGKILL);
    world.wait_status("web", "failed", SOON)?;
    Ok(())
}
