//! A child of the old instance, in a session of its own, keeps the listener open.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    let mut trials = Vec::new();
    for (name, option) in
        [("of_the_session", "--child-holds"), ("without_its_environment", "--child-escapes")]
    {
        trials.push(scenario(
            &format!("child_keeps_listener::restart_clean::{name}"),
            &needs,
            move |world| restart_clean(world, option),
        ));
        trials.push(scenario(&format!("child_keeps_listener::main_killed::{name}"), &needs, move |world| {
            main_killed(world, option)
        }));
    }
    trials
}

/// The child that holds the listener; the service can be up a moment before it is there.
fn holder(world: &World) -> Result<i32> {
    wait_until(SOON, "the child holds the listener", || {
        world
            .processes()
            .into_iter()
            .find(|process| process.command.contains("__hold"))
            .map(|process| process.pid)
    })
}

fn spec(world: &World, option: &str) -> serde_json::Value {
    specs::with(specs::unixd(world, "kept", &[option]), json!({"stop": {"timeout": "1sec"}}))
}

fn restart_clean(world: &World, option: &str) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world, option))?;
    let holder = holder(world)?;
    let restarted = world.nu_json("proc restart kept --clean")?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted", "{row}");
    ensure!(
        !processes::alive(old) && !processes::alive(holder),
        "the old tree {old}, {holder} is dead: {row}"
    );
    ensure!(ping(&world.socket("kept", "rpc.sock"))? == row.pid("new_pid")?, "the new instance answers");
    Ok(())
}

fn main_killed(world: &World, option: &str) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world, option))?;
    let holder = holder(world)?;
    processes::signal(old, Signal::SIGKILL);
    let row = scenarios::wait::wait_for(SOON, "not shown as running", || {
        let row = world.service("kept")?;
        Ok((row.text("status")? != "running").then_some(row))
    })?;
    world.note(format!("killed: {row}"));
    let restarted = world.nu_json("proc restart kept --clean")?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted", "{row}");
    ensure!(!processes::alive(holder), "the holder {holder} is ended: {row}");
    ensure!(ping(&world.socket("kept", "rpc.sock"))? == row.pid("new_pid")?, "the new instance answers");
    Ok(())
}
