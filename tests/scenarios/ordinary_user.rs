//! The main job for a user without privileges.

use libtest_mimic::Trial;
use scenarios::client::{ask, ping};
use scenarios::{Json, Need, Result, World, ensure, processes, scenario_as, specs};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario_as("nobody", "ordinary_user::main_job", &needs, main_job),
        scenario_as("nobody", "ordinary_user::cannot_become_another", &needs, another_user),
    ]
}

fn main_job(world: &World) -> Result {
    let spec = specs::unixd(world, "web", &["--fork-workers", "1", "--child-holds"]);
    let spec = world.write("web.json", &spec.to_string())?;
    world.nu_json(&format!("proc register {}", spec.display()))?;
    let started = world.nu_json("proc start web")?;
    let first = started.only()?.pid("pid")?;
    let path = world.socket("web", "rpc.sock");
    let uid = world.user().map(|user| user.uid.to_string()).unwrap_or_default();
    ensure!(ask(&path, nix::sys::socket::SockType::Stream, "uid")? == uid, "it runs as the user");
    let control = fs::metadata(world.control_socket())?;
    ensure!(
        control.uid().to_string() == uid && control.permissions().mode() & 0o077 == 0,
        "the control socket: {control:?}"
    );

    fs::remove_file(&path)?;
    world.wait_status("web", "failed", SOON)?;
    let rows = world.nu_json("proc socket-check web")?;
    ensure!(rows.only()?.text("verdict")? == "dangling", "{rows}");
    let restarted = world.nu_json("proc restart web --clean")?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted" && !processes::alive(first), "{row}");
    ping(&path)?;
    world.kill_daemon()?;
    world.nu_json("proc shim start")?;
    let row = world.wait_status("web", "running", SOON)?;
    let pid = row.pid("pid")?;
    let stopped = world.nu_json("proc stop web")?;
    ensure!(stopped.only()?.text("status")? == "inactive" && !processes::alive(pid), "{stopped}");
    Ok(())
}

fn another_user(world: &World) -> Result {
    let spec = specs::with(specs::unixd(world, "web", &[]), serde_json::json!({"user": "root"}));
    let spec = world.write("web.json", &spec.to_string())?;
    world.nu_json(&format!("proc register {}", spec.display()))?;
    let started = world.nu_json("proc start web")?;
    let row = started.only()?;
    ensure!(
        row.text("status")? == "failed" && row.text("health_reason")?.contains("root"),
        "it says which user: {row}"
    );
    Ok(())
}
