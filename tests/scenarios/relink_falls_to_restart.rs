//! Where a dentry cannot be put back, the service is restarted cleanly, within its limits; `report` only says it.

use super::relink_puts_it_back::serve;
use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(12);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    let root = [Need::Daemon, Need::Nushell, Need::Root];
    vec![
        scenario("relink_falls_to_restart::pin_removed_too", &needs, pin_removed_too),
        scenario("relink_falls_to_restart::mounted_over", &root, mounted_over),
        scenario("relink_falls_to_restart::restart_by_choice", &needs, restart_by_choice),
        scenario("relink_falls_to_restart::report_only", &needs, report_only),
    ]
}

/// Waits until another process than `old` answers.
fn restarted(world: &World, old: i32) -> Result<i32> {
    let path = world.socket("web", "rpc.sock");
    wait_until(SOON, format!("another process than {old} answers"), || {
        ping(&path).ok().filter(|answers| *answers != old)
    })
}

fn pin_removed_too(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let path = world.socket("web", "rpc.sock");
    let pins = world.sockets().join(".shimd");
    // A pin comes a moment after the first `ok`: one that comes after this rm would put the dentry back.
    wait_until(SOON, "there is a pin", || fs::read_dir(&pins).is_ok_and(|mut pins| pins.next().is_some()))?;
    world.hand("rm", &["-rf".as_ref(), pins.as_os_str(), path.as_os_str()])?;
    restarted(world, pid)?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.int("restarts")? == 1, "one restart: {row}");
    let told = world.nu_json("proc events web | where kind == verdict and detail.verdict == dangling")?;
    ensure!(!told.rows()?.is_empty(), "its loss is told: {told}");
    // The new one has a pin again.
    world.hand("rm", &[&path])?;
    super::relink_puts_it_back::relinked(world, "rpc.sock", 1)?;
    Ok(())
}

fn mounted_over(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let folder = world.sockets().join("web");
    world.hand("mount", &["-t".as_ref(), "tmpfs".as_ref(), "none".as_ref(), folder.as_os_str()])?;
    let second = restarted(world, pid)?;
    world.wait_status("web", "running", SOON)?;
    let doctor = world.nu_json("proc doctor | where check == pins")?;
    world.note(&doctor);
    // On its own mount now: the only place for a pin is in the folder itself.
    world.hand("rm", &[folder.join("rpc.sock")])?;
    let path = folder.join("rpc.sock");
    wait_until(SOON, "the second is answered for again", || {
        ping(&path).is_ok_and(|answers| answers == second)
    })?;
    world.nu_json("proc stop web")?;
    world.hand("umount", &[&folder])?;
    Ok(())
}

fn restart_by_choice(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::unixd(world, "web", &[]);
    let fields =
        json!({"on_missing": "restart", "restart": {"policy": "on-failure", "limit": 3, "window": "1hr"}});
    let mut pid = world.up(&specs::with(spec, fields))?;
    let path = world.socket("web", "rpc.sock");
    ensure!(!world.sockets().join(".shimd").exists(), "no pin is made");
    for _ in 0..2 {
        fs::remove_file(&path)?;
        pid = restarted(world, pid)?;
        world.wait_status("web", "running", SOON)?;
    }
    fs::remove_file(&path)?;
    let row = world.wait_status("web", "failed", SOON)?;
    ensure!(row.pid("pid")? == pid, "three starts are used up: the process is left alone: {row}");
    let again = world.nu_json("proc restart web")?;
    ensure!(again.only()?.text("outcome")? == "restarted", "a command begins anew: {again}");
    Ok(())
}

fn report_only(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&specs::unixd(world, "web", &[]))?;
    ensure!(!world.sockets().join(".shimd").exists(), "no pin is made");
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    let row = world.wait_status("web", "failed", SOON)?;
    ensure!(row.pid("pid")? == pid, "{row}");
    scenarios::wait::holds_for(Duration::from_secs(1), "nothing is done about it", || {
        let row = world.socket_row("web", "rpc.sock")?;
        Ok(row.text("verdict")? == "dangling" && row.int("relinked")? == 0)
    })
}
