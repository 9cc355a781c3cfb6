//! Who does not end at the stop signal is killed at the time-out, and not before.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs};
use serde_json::{Value, json};
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("stop_timeout_kills::who_ignores_sigterm", &[Need::Daemon], ignores),
        scenario("stop_timeout_kills::not_who_listens_to_its_signal", &[Need::Daemon], obeys),
    ]
}

fn took(row: &Value) -> Result<Duration> {
    Ok(Duration::from_nanos(u64::try_from(row.int("took")?)?))
}

fn stop(world: &World, name: &str) -> Result<Duration> {
    let rows = world.rpc("service.stop", json!({"name": name}))?;
    let row = rows.only()?;
    ensure!(row.text("status")? == "inactive", "{row}");
    took(row)
}

fn ignores(world: &World) -> Result {
    world.start_daemon()?;
    let spec =
        specs::with(specs::unixd(world, "deaf", &["--ignore-term"]), json!({"stop": {"timeout": "700ms"}}));
    let pid = world.up(&spec)?;
    let took = stop(world, "deaf")?;
    ensure!(!processes::alive(pid), "it is dead");
    ensure!(took >= Duration::from_millis(650) && took < Duration::from_secs(4), "it took {took:?}");
    Ok(())
}

fn obeys(world: &World) -> Result {
    world.start_daemon()?;
    let more = json!({"stop": {"signal": "SIGINT", "timeout": "10sec"}});
    let pid = world.up(&specs::with(specs::unixd(world, "good", &["--ignore-term"]), more))?;
    let took = stop(world, "good")?;
    ensure!(
        !processes::alive(pid) && took < Duration::from_secs(2),
        "SIGINT ends it at once, not in {took:?}"
    );
    Ok(())
}
