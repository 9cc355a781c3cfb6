//! The story that the product answers: the file goes, the listener lives, and every view says so until it is cured.

use libtest_mimic::Trial;
use scenarios::client::{ask, ping};
use scenarios::command::run;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// An event, not the audit's period of 5 s, makes a loss visible.
const NOTICED: Duration = Duration::from_secs(1);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("unlink_under_listener::is_dangling_and_failed", &needs, dangling),
        scenario("unlink_under_listener::runs_again_when_linked_back", &needs, linked_back),
        scenario("unlink_under_listener::whole_folder_removed", &needs, folder_removed),
        scenario("unlink_under_listener::replaced_by_a_file", &needs, replaced),
        scenario("unlink_under_listener::one_of_several_types", &needs, several),
    ]
}

fn up(world: &World, spec: &Value) -> Result<i32> {
    world.start_daemon()?;
    world.up(spec)
}

fn dangling(world: &World) -> Result {
    let pid = up(world, &specs::unixd(world, "web", &[]))?;
    let path = world.socket("web", "rpc.sock");
    let start = Instant::now();
    fs::remove_file(&path)?;
    let row = world.wait_status("web", "failed", SOON)?;
    ensure!(start.elapsed() < NOTICED, "noticed only after {:?}", start.elapsed());
    let reason = row.text("health_reason")?;
    ensure!(reason.starts_with("declared socket missing on disk: rpc.sock"), "health_reason: {reason}");
    ensure!(row.pid("pid")? == pid && processes::alive(pid), "its process is untouched: {row}");

    let listed = world.nu_json("proc list")?;
    let listed = listed.row("name", "web")?;
    ensure!(listed.text("status")? == "failed" && listed.int("sockets_ok")? == 0, "{listed}");
    for view in ["proc socket-check web".to_owned(), format!("proc socket-check {}", path.display())] {
        let rows = world.nu_json(&view)?;
        let row = rows.only()?;
        ensure!(row.text("verdict")? == "dangling" && row.pid("pid")? == pid, "{view}: {row}");
    }
    let failed = world.nu_refuses("proc socket-check web --fail", "proc::failed")?;
    ensure!(failed.mentions("rpc.sock"), "--fail names the socket: {failed}");

    let mut check = world.command(world.bin("shimd"));
    check.args(["check", "--json"]).arg(&path);
    let ran = run(check, SOON)?;
    ensure!(ran.code == Some(1) && ran.stdout.contains("dangling"), "shimd check:\n{ran}");

    let restarted = world.nu_json("proc restart web --clean")?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == pid, "{row}");
    ensure!(ping(&path)? == row.pid("new_pid")?, "the new process answers: {row}");
    let row = world.service("web")?;
    ensure!(row.text("status")? == "running" && row.field("health_reason").is_null(), "{row}");

    let mut check = world.command(world.bin("shimd"));
    check.arg("check").arg(&path);
    run(check, SOON)?.success()?;
    Ok(())
}

fn linked_back(world: &World) -> Result {
    let pid = up(world, &specs::unixd(world, "web", &[]))?;
    let path = world.socket("web", "rpc.sock");
    let kept = world.file("kept");
    fs::hard_link(&path, &kept)?;
    for _ in 0..3 {
        fs::remove_file(&path)?;
        world.wait_status("web", "failed", SOON)?;
        fs::hard_link(&kept, &path)?;
        let row = world.wait_status("web", "running", SOON)?;
        ensure!(row.pid("pid")? == pid, "no restart: {row}");
    }
    ensure!(ping(&path)? == pid, "the same process answers");
    Ok(())
}

fn folder_removed(world: &World) -> Result {
    let pid = up(world, &specs::unixd_on(world, "web", &["rpc.sock", "ui.sock"], &[]))?;
    fs::remove_dir_all(world.sockets().join("web"))?;
    world.wait_status("web", "failed", SOON)?;
    // Failed with the first file; the others go one after the other.
    let all_lost = || world.service("web").and_then(|row| row.int("sockets_ok")).is_ok_and(|ok| ok == 0);
    wait_until(SOON, "both sockets are lost", all_lost)?;
    let row = world.service("web")?;
    ensure!(row.text("health_reason")?.starts_with("declared socket missing on disk: "), "{row}");
    ensure!(row.pid("pid")? == pid, "{row}");
    let restarted = world.nu_json("proc restart web --clean")?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "the folder is made again: {restarted}");
    ping(&world.socket("web", "ui.sock")).map(drop)
}

fn replaced(world: &World) -> Result {
    up(world, &specs::unixd(world, "web", &[]))?;
    let path = world.socket("web", "rpc.sock");
    fs::remove_file(&path)?;
    fs::write(&path, "not a socket")?;
    world.wait_status("web", "failed", SOON)?;
    let rows = world.nu_json("proc socket-check web")?;
    ensure!(rows.only()?.text("verdict")? == "replaced", "a file in its place: {rows}");
    let restarted = world.nu_json("proc restart web --clean")?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "failed", "a regular file is never removed: {row}");
    ensure!(fs::read(&path)? == b"not a socket", "the file is as it was");
    Ok(())
}

fn several(world: &World) -> Result {
    let sockets = ["rpc.sock", "dgram:log.sock", "seqpacket:seq.sock"];
    up(world, &specs::unixd_on(world, "web", &sockets, &[]))?;
    for socket in sockets {
        let (kind, base) = socket.split_once(':').unwrap_or(("stream", socket));
        let kind = scenarios::client::socket_type(kind).unwrap_or(nix::sys::socket::SockType::Stream);
        let path = world.socket("web", base);
        let kept = world.file(base);
        fs::hard_link(&path, &kept)?;
        fs::remove_file(&path)?;
        let row = world.wait_status("web", "failed", SOON)?;
        ensure!(row.int("sockets_ok")? == 2, "two of three: {row}");
        let rows = world.rpc("socket.check", json!({"name": "web"}))?;
        for row in rows.rows()? {
            let lost = row.text("socket")? == base;
            ensure!(row.text("verdict")? == if lost { "dangling" } else { "ok" }, "{base} is lost: {row}");
        }
        fs::hard_link(&kept, &path)?;
        world.wait_status("web", "running", SOON)?;
        ask(&path, kind, "ping")?;
    }
    Ok(())
}
