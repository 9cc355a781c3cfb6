//! A process outside the service serves on its path: a start leaves it alone and says who it is; `restart --clean` ends it.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("foreign_listener_not_stolen", &[Need::Daemon, Need::Nushell], not_stolen)]
}

fn not_stolen(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock");
    std::fs::create_dir_all(world.sockets().join("mine"))?;
    let mut stranger = world.command(world.unixd()).arg(&path).stdin(Stdio::null()).spawn()?;
    let pid = i32::try_from(stranger.id())?;
    wait_until(SOON, "the stranger listens", || ping(&path).is_ok())?;

    world.register(&specs::unixd(world, "mine", &[]))?;
    let started = world.nu_json("proc start mine")?;
    let row = started.only()?;
    ensure!(row.text("status")? == "failed", "a start does not take a live path: {row}");
    ensure!(row.text("health_reason")?.contains(&pid.to_string()), "the reason names pid {pid}: {row}");
    ensure!(ping(&path)? == pid, "the stranger still answers");
    let rows = world.nu_json("proc socket-check mine")?;
    let row = rows.only()?;
    ensure!(row.text("verdict")? == "foreign" && row.pid("pid")? == pid, "{row}");
    let failed = world.nu_refuses("proc start mine --fail", "proc::failed")?;
    ensure!(failed.mentions(&pid.to_string()), "--fail says who: {failed}");

    let restarted = world.nu_json("proc restart mine --clean")?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted", "{row}");
    let killed = row.field("killed").to_string();
    ensure!(killed.contains(&pid.to_string()), "`killed` names pid {pid}: {row}");
    wait_until(SOON, "the stranger is ended", || matches!(stranger.try_wait(), Ok(Some(_))))?;
    ensure!(ping(&path)? == row.pid("new_pid")?, "the service answers");
    Ok(())
}
