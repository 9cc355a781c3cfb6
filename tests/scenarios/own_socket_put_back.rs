//! The daemon's own control socket is lost and comes back; what lies in its place is not touched.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("own_socket_put_back::from_its_pin", &[Need::Daemon, Need::Nushell], from_pin),
        scenario("own_socket_put_back::bound_anew", &[Need::Daemon], bound_anew),
        scenario("own_socket_put_back::not_over_a_file", &[Need::Daemon], not_over_a_file),
        scenario("own_socket_put_back::again_and_again", &[Need::Daemon], again_and_again),
    ]
}

/// Waits until the daemon answers at its path again.
fn answers(world: &World) -> Result {
    wait_until(SOON, "the daemon answers", || world.rpc("shim.info", json!({})).is_ok())
}

fn from_pin(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let inode = fs::metadata(world.control_socket())?.ino();
    let mut open = UnixStream::connect(world.control_socket())?;
    let rm = world.hand("rm", &[world.control_socket()])?;
    answers(world)?;
    ensure!(fs::metadata(world.control_socket())?.ino() == inode, "the same socket");
    open.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"shim.info\"}\n")?;
    let mut line = String::new();
    BufReader::new(&open).read_line(&mut line)?;
    ensure!(line.contains("result"), "a connection that was open goes on: {line}");
    let event = wait_until(SOON, "the event is kept", || {
        let events = world.nu_json("proc events | where kind == control").ok()?;
        events.only().ok().cloned()
    })?;
    let detail = event.field("detail");
    ensure!(detail.text("reason")?.contains("linked back"), "{event}");
    ensure!(
        !world.names_culprits() || detail.field("culprit").int("pid")? == i64::from(rm.pid),
        "{rm}: {event}"
    );
    ensure!(world.service("web")?.text("status")? == "running", "its services have not noticed");
    Ok(())
}

fn bound_anew(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    let inode = fs::metadata(world.control_socket())?.ino();
    let mut open = UnixStream::connect(world.control_socket())?;
    fs::remove_dir_all(world.home().join(".shimd"))?;
    fs::remove_file(world.control_socket())?;
    answers(world)?;
    ensure!(world.daemon_pid()? == daemon, "the same daemon");
    ensure!(fs::metadata(world.control_socket())?.ino() != inode, "another socket");
    open.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"shim.info\"}\n")?;
    let mut line = String::new();
    BufReader::new(&open).read_line(&mut line)?;
    ensure!(line.contains("result"), "a connection that was open goes on: {line}");
    // The new one has a pin too.
    fs::remove_file(world.control_socket())?;
    answers(world)
}

fn not_over_a_file(world: &World) -> Result {
    world.start_daemon()?;
    let mut open = UnixStream::connect(world.control_socket())?;
    let other = world.write("other", "not a socket")?;
    fs::rename(&other, world.control_socket())?;
    let mut ask = |method: &str| -> Result<String> {
        open.write_all(format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\"}}\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(&open).read_line(&mut line)?;
        Ok(line)
    };
    wait_until(SOON, "doctor tells of it", || {
        ask("shim.doctor").is_ok_and(|rows| rows.contains("\"check\":\"control\",\"ok\":false"))
    })?;
    ensure!(fs::read(world.control_socket())? == b"not a socket", "the file is as it was");
    fs::remove_file(world.control_socket())?;
    answers(world)
}

/// Something that removes it without end: the repairs become rarer, and the daemon stays what it is.
fn again_and_again(world: &World) -> Result {
    world.start_daemon()?;
    let open = UnixStream::connect(world.control_socket())?;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        // Gone, or not back yet.
        let _ = fs::remove_file(world.control_socket());
        std::thread::yield_now();
    }
    let mut asked = &open;
    asked.write_all(
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"event.list\",\"params\":{\"kinds\":[\"control\"]}}\n",
    )?;
    let mut line = String::new();
    BufReader::new(&open).read_line(&mut line)?;
    let repairs = line.matches("\"kind\":\"control\"").count();
    ensure!((2..12).contains(&repairs), "{repairs} repairs in three seconds: {line}");
    answers(world)
}
