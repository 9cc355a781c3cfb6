//! `on_missing: relink`: a lost dentry is linked back to the same listener. No restart, no connection dropped.

use libtest_mimic::Trial;
use nix::unistd::{User, chown, geteuid};
use scenarios::client::{ping_as, socket_type};
use scenarios::{Json, Need, Result, World, ensure, scenario, scenario_as, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    let mut trials = vec![
        scenario("relink_puts_it_back::same_listener", &needs, same_listener),
        scenario("relink_puts_it_back::each_type", &needs, each_type),
        scenario("relink_puts_it_back::folder_too", &needs, folder_too),
        scenario("relink_puts_it_back::dead_file_exchanged", &needs, dead_file_exchanged),
        scenario("relink_puts_it_back::not_over_anything_else", &needs, not_over_anything_else),
    ];
    if geteuid().is_root() {
        // Nobody can be known: after `settle`.
        trials.push(scenario_as("nobody", "relink_puts_it_back::as_user", &needs, same_listener));
        trials.push(scenario_as("nobody", "relink_puts_it_back::folder_as_user", &needs, folder_too));
    }
    trials
}

/// Starts the daemon and a service whose lost sockets are linked back; gives its pid.
pub fn serve(world: &World, sockets: &[&str], options: &[&str]) -> Result<i32> {
    world.start_daemon()?;
    let spec = specs::unixd_on(world, "web", sockets, options);
    world.up(&specs::with(spec, json!({"on_missing": "relink"})))
}

/// Waits until the socket was put back so often, and is in order.
pub fn relinked(world: &World, socket: &str, times: i64) -> Result<Value> {
    let row = scenarios::wait::wait_for(SOON, format!("{socket} is put back {times} times"), || {
        let row = world.socket_row("web", socket)?;
        Ok((row.int("relinked")? >= times && row.text("verdict")? == "ok").then_some(row))
    })?;
    ensure!(row.int("relinked")? == times, "put back more often than it was lost: {row}");
    Ok(row)
}

fn same_listener(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let path = world.socket("web", "rpc.sock");
    let before = world.socket_row("web", "rpc.sock")?;
    let file = path.metadata()?.ino();
    let mut open = UnixStream::connect(&path)?;
    for times in 1..=5 {
        let rm = world.hand("rm", &[&path])?;
        let row = relinked(world, "rpc.sock", times)?;
        ensure!(row.int("inode")? == before.int("inode")? && row.pid("pid")? == pid, "the listener: {row}");
        ensure!(path.metadata()?.ino() == file, "the same file");
        ensure!(ping_as(&path, nix::sys::socket::SockType::Stream)? == pid, "clients are answered");
        let events = world.nu_json("proc events web | where kind == relinked")?;
        let events = events.rows()?;
        ensure!(events.len() == times as usize, "an event for each: {events:?}");
        if let Some(event) = events.last().filter(|_| world.names_culprits()) {
            let culprit = event.field("detail").field("culprit");
            ensure!(culprit.pid("pid")? == rm.pid, "{rm} did it: {event}");
        }
    }
    open.write_all(b"ping\n")?;
    let mut answer = String::new();
    BufReader::new(&open).read_line(&mut answer)?;
    ensure!(answer.trim() == format!("pong {pid}"), "an open connection goes on: {answer:?}");
    let row = world.service("web")?;
    ensure!(row.text("status")? == "running" && row.int("restarts")? == 0 && row.pid("pid")? == pid, "{row}");
    if world.names_culprits() {
        let failed = world.nu_json("proc events web | where kind == state and detail.status == failed")?;
        ensure!(failed.rows()?.is_empty(), "it was never called failed: {failed}");
    }
    Ok(())
}

fn each_type(world: &World) -> Result {
    let sockets = ["rpc.sock", "dgram:log.sock", "seqpacket:seq.sock"];
    let pid = serve(world, &sockets, &[])?;
    let named = sockets.map(|socket| socket.split_once(':').unwrap_or(("stream", socket)));
    let paths = named.map(|(_, base)| world.socket("web", base));
    world.hand("rm", &paths)?;
    for ((kind, base), path) in named.iter().zip(&paths) {
        relinked(world, base, 1)?;
        let kind = socket_type(kind).ok_or_else(|| scenarios::Fault::new("an unknown type"))?;
        ensure!(ping_as(path, kind)? == pid, "{base} answers");
    }
    Ok(())
}

fn folder_too(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock", "ui.sock"], &[])?;
    let folder = world.sockets().join("web");
    // A mode that no umask gives; a socket that is `ok` at a later audit is pinned with it.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o2751))?;
    let other = User::from_name("daemon")?.filter(|_| geteuid().is_root() && world.user().is_none());
    if let Some(other) = &other {
        chown(&folder, Some(other.uid), Some(other.gid))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o2751))?;
    }
    world.nu_json("proc restart web")?;
    let pid =
        if world.service("web")?.pid("pid")? == pid { pid } else { world.service("web")?.pid("pid")? };
    // With `rm -rf`, its files would be back before the folder can go.
    world.hand("mv", &[&folder, &world.file("moved")])?;
    for base in ["rpc.sock", "ui.sock"] {
        relinked(world, base, 1)?;
        ensure!(ping_as(&world.socket("web", base), nix::sys::socket::SockType::Stream)? == pid, "{base}");
    }
    let made = folder.metadata()?;
    ensure!(made.mode() & 0o7777 == 0o2751, "its mode is as it was: {:o}", made.mode());
    if let Some(other) = &other {
        ensure!(made.uid() == other.uid.as_raw(), "its owner is as it was: {}", made.uid());
    }
    // What was made anew is watched anew.
    world.hand("rm", &[world.socket("web", "rpc.sock")])?;
    relinked(world, "rpc.sock", 2)?;
    Ok(())
}

fn dead_file_exchanged(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let path = world.socket("web", "rpc.sock");
    let dead = world.file("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead)?);
    world.hand("mv", &[dead.as_os_str(), path.as_os_str()])?;
    relinked(world, "rpc.sock", 1)?;
    ensure!(ping_as(&path, nix::sys::socket::SockType::Stream)? == pid, "clients are answered");
    let left = fs::read_dir(world.sockets().join("web"))?.count();
    ensure!(left == 1, "{left} files in its folder: the dead one is gone");
    Ok(())
}

fn not_over_anything_else(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let path = world.socket("web", "rpc.sock");
    let file = world.write("file", "not a socket")?;
    world.hand("mv", &[file.as_os_str(), path.as_os_str()])?;
    let row = world.wait_status("web", "failed", SOON)?;
    ensure!(row.text("health_reason")?.contains("replaced"), "{row}");
    ensure!(fs::read(&path)? == b"not a socket", "the file is as it was");
    fs::remove_file(&path)?;
    relinked(world, "rpc.sock", 1)?;

    // Another's live socket, put there in one step.
    let other = world.file("other.sock");
    let stranger = world.stranger(&[], &other)?;
    fs::rename(&other, &path)?;
    let row = world.wait_status("web", "failed", SOON)?;
    ensure!(row.text("health_reason")?.contains("replaced"), "{row}");
    let answers = ping_as(&path, nix::sys::socket::SockType::Stream)?;
    ensure!(answers == stranger.pid, "the stranger's socket is left alone, {answers} answers");
    drop(stranger);
    // Its end raises no event: the period finds a dead file, and exchanges it.
    wait_until(SOON, "the service answers", || {
        ping_as(&path, nix::sys::socket::SockType::Stream).is_ok_and(|answers| answers == pid)
    })
}
