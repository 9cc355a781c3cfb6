//! What no clean can put right is found before a restart stops what serves: it goes on, and the row says why.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("restart_that_cannot_come_up::folder_that_is_a_link", &[Need::Daemon], link),
        scenario(
            "restart_that_cannot_come_up::immutable_folder",
            &[Need::Daemon, Need::Root, Need::Program("chattr")],
            immutable,
        ),
        scenario("restart_that_cannot_come_up::log_that_is_a_folder", &[Need::Daemon, Need::Nushell], log),
        scenario("restart_that_cannot_come_up::whose_socket_is_lost", &[Need::Daemon], lost),
    ]
}

/// It is refused, with and without --clean, and the old one serves.
fn refused(world: &World, pid: i32, why: &str) -> Result {
    for clean in [true, false] {
        let rows = world.rpc("service.restart", json!({"name": "web", "clean": clean}))?;
        let row = rows.only()?;
        ensure!(row.text("outcome")? == "failed" && row.pid("new_pid")? == pid, "clean {clean}: {row}");
        let reason = row.text("health_reason")?;
        ensure!(reason.contains(why) && reason.contains("was left as it is"), "clean {clean}: {row}");
        ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "the old one serves");
        ensure!(world.service("web")?.text("status")? == "running", "and is said to");
    }
    Ok(())
}

/// Once it is put right, the same command does it.
fn done(world: &World, pid: i32) -> Result {
    let rows = world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    let row = rows.only()?;
    ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == pid, "{row}");
    Ok(())
}

fn up(world: &World) -> Result<i32> {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))
}

fn link(world: &World) -> Result {
    let pid = up(world)?;
    let (folder, real) = (world.sockets().join("web"), world.sockets().join("real"));
    fs::rename(&folder, &real)?;
    symlink(&real, &folder)?;
    refused(world, pid, "a link is not followed here")?;
    fs::remove_file(&folder)?;
    fs::rename(&real, &folder)?;
    done(world, pid)
}

fn immutable(world: &World) -> Result {
    let pid = up(world)?;
    let folder = world.sockets().join("web");
    let flag = |flag: &str| Command::new("chattr").arg(flag).arg(&folder).status().is_ok_and(|s| s.success());
    if !flag("+i") {
        // A file system that knows no such flag.
        return Ok(());
    }
    let refused = refused(world, pid, "chattr -i");
    ensure!(flag("-i"), "the flag is taken away again");
    refused?;
    done(world, pid)
}

fn log(world: &World) -> Result {
    let pid = up(world)?;
    let log = folder_for_log(world)?;
    refused(world, pid, "is not a regular file")?;
    let row: Value = world.nu_json("proc restart --clean web")?;
    ensure!(row.only()?.text("outcome")? == "failed", "{row}");
    world.nu_refuses("proc restart --clean web --fail", "proc::failed")?;
    fs::remove_dir(&log)?;
    done(world, pid)
}

/// Puts a folder in its log's place.
fn folder_for_log(world: &World) -> Result<PathBuf> {
    let log = world.home().join("logs/web.out");
    fs::remove_file(&log)?;
    fs::create_dir(&log)?;
    Ok(log)
}

/// One whose socket is lost stays as well: its connections are better than nothing.
fn lost(world: &World) -> Result {
    world.start_daemon()?;
    let mut spec = specs::unixd(world, "web", &[]);
    spec["sockets"] = json!([{"path": "rpc.sock", "on_missing": "report"}]);
    let pid = world.up(&spec)?;
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    wait_until(SOON, "it is seen to be lost", || {
        (world.socket_row("web", "rpc.sock").ok()?.text("verdict").ok()? == "dangling").then_some(())
    })?;
    let log = folder_for_log(world)?;
    let rows = world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    let row = rows.only()?;
    ensure!(row.text("outcome")? == "failed" && row.pid("new_pid")? == pid, "{row}");
    ensure!(row.text("health_reason")?.contains("was left as it is"), "{row}");
    fs::remove_dir(&log)?;
    done(world, pid)
}
