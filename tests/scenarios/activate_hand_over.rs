//! Sockets of the mode `activate`: bound by the daemon, and handed to the service as sd_listen_fds(3) has it.

use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::{ask, ping, ping_as};
use scenarios::fault::Context;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("activate_hand_over::every_type", &[Need::Daemon], every_type),
        scenario("activate_hand_over::owner_and_mode", &[Need::Daemon, Need::Root], owner_and_mode),
        scenario("activate_hand_over::what_lies_there", &[Need::Daemon], what_lies_there),
        scenario("activate_hand_over::ends_at_once", &[Need::Daemon], ends_at_once),
        scenario("activate_hand_over::another_spec", &[Need::Daemon], another_spec),
        scenario("activate_hand_over::as_it_was_when_fresh", &[Need::Daemon], fresh),
    ]
}

fn every_type(world: &World) -> Result {
    world.start_daemon()?;
    let abstract_name = format!("@{}/a:b", world.folder().display());
    let typed = format!("stream:{abstract_name}");
    let sockets = ["rpc.sock", "dgram:log.sock", "seqpacket:q.sock", &typed];
    let pid = world.up(&specs::activated(world, "web", &sockets, &[]))?;
    let path = world.socket("web", "rpc.sock");
    let asked = |what: &str| ask(&path, SockType::Stream, what);
    ensure!(asked("env LISTEN_PID")? == pid.to_string() && asked("env LISTEN_FDS")? == "4", "its own");
    let names = asked("env LISTEN_FDNAMES")?;
    let expected = format!("rpc.sock:log.sock:q.sock:{}", abstract_name.replace(':', "_"));
    ensure!(names == expected, "{names}");
    for (path, kind) in [
        (path.clone(), SockType::Stream),
        (world.socket("web", "log.sock"), SockType::Datagram),
        (world.socket("web", "q.sock"), SockType::SeqPacket),
        (abstract_name.into(), SockType::Stream),
    ] {
        ensure!(ping_as(&path, kind)? == pid, "{} is served", path.display());
    }
    // The first four above the standard three are the listeners; the server opens more by itself.
    let rows = world.rpc("socket.check", json!({"names": ["web"]}))?;
    let fds = asked("fds")?;
    for (number, row) in (3..).zip(rows.rows()?) {
        ensure!(row.text("verdict")? == "ok" && row.pid("pid")? == pid, "{row}");
        let inode = row.int("inode")?;
        ensure!(fds.contains(&format!("{number}=socket:[{inode}]")), "{number}, {inode}: {fds}");
    }
    Ok(())
}

fn owner_and_mode(world: &World) -> Result {
    world.start_daemon()?;
    let fields = json!({"user": "nobody", "umask": "007", "sockets": [{"path": "rpc.sock", "mode": "activate", "backlog": 3}]});
    world.up(&specs::with(specs::activated(world, "web", &["rpc.sock"], &[]), fields))?;
    let path = world.socket("web", "rpc.sock");
    let nobody = nix::unistd::User::from_name("nobody")?.context("no user nobody")?;
    let found = path.symlink_metadata()?;
    ensure!(found.uid() == nobody.uid.as_raw() && found.permissions().mode() & 0o777 == 0o770, "{found:?}");
    let rows = world.rpc("socket.check", json!({"names": ["web"]}))?;
    ensure!(rows.only()?.int("backlog")? == 3, "{rows}");
    ensure!(ask(&path, SockType::Stream, "uid")? == nobody.uid.to_string(), "runs as that user");
    Ok(())
}

fn what_lies_there(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("web", "rpc.sock");
    fs::create_dir_all(path.parent().context("no folder")?)?;
    drop(UnixListener::bind(&path)?);
    let spec = specs::activated(world, "web", &["rpc.sock"], &[]);
    world.up(&spec)?;
    world.rpc("service.stop", json!({"name": "web"}))?;

    // A stranger listens: it is named, and left alone.
    let mut child = world.command(world.unixd()).arg(&path).stdin(Stdio::null()).spawn()?;
    let stranger = i32::try_from(child.id())?;
    wait_until(SOON, "the stranger listens", || ping(&path).is_ok())?;
    let row = world.rpc("service.start", json!({"name": "web"}))?;
    let reason = row.only()?.text("health_reason")?;
    ensure!(reason.contains("foreign") && reason.contains(&format!("pid {}", stranger)), "{reason}");
    ensure!(ping(&path)? == stranger, "the stranger goes on");
    let restarted = world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted" && ping(&path)? == row.pid("new_pid")?, "{restarted}");
    wait_until(SOON, "the stranger is ended", || matches!(child.try_wait(), Ok(Some(_))))?;

    // A file is never removed.
    world.rpc("service.stop", json!({"name": "web"}))?;
    fs::write(&path, "precious")?;
    let row = world.rpc("service.start", json!({"name": "web"}))?;
    ensure!(row.only()?.text("health_reason")?.contains("regular file"), "{row}");
    ensure!(fs::read(&path)? == b"precious", "it is left alone");
    Ok(())
}

/// The socket is ok before the service is: one that ends at once is not said to run.
fn ends_at_once(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&specs::activated(
        world,
        "web",
        &["rpc.sock"],
        &["--fail-first", "9", "--journal", &world.file("j").display().to_string()],
    ))?;
    let row = world.rpc("service.start", json!({"name": "web"}))?;
    ensure!(row.only()?.text("status")? == "failed", "{row}");
    ensure!(world.socket("web", "rpc.sock").exists(), "clients may wait for the next start");
    Ok(())
}

fn another_spec(world: &World) -> Result {
    world.start_daemon()?;
    let spec = |path: &str, fields| {
        let socket = specs::with(json!({"path": path, "mode": "activate"}), fields);
        specs::with(specs::activated(world, "web", &[path], &["--tag", path]), json!({"sockets": [socket]}))
    };
    let look = || -> Result<(i64, i64)> {
        let rows = world.rpc("socket.check", json!({"names": ["web"]}))?;
        let row = rows.only()?;
        ensure!(row.text("verdict")? == "ok", "{row}");
        Ok((row.int("inode")?, row.int("backlog")?))
    };
    let restart = |spec: serde_json::Value| -> Result {
        world.register(&spec)?;
        let restarted = world.rpc("service.restart", json!({"name": "web"}))?;
        ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
        Ok(())
    };
    world.up(&spec("a.sock", json!({})))?;
    let (inode, _) = look()?;
    restart(spec("a.sock", json!({"backlog": 5})))?;
    ensure!(look()? == (inode, 5), "the same listener with another backlog: {:?}", look()?);
    restart(spec("b.sock", json!({"backlog": 5})))?;
    ensure!(look()?.0 != inode, "another path is another listener");
    ensure!(!world.socket("web", "a.sock").exists(), "the old path is no longer there");
    ping(&world.socket("web", "b.sock"))?;
    // From now on the service binds by itself.
    restart(specs::unixd_on(world, "web", &["b.sock"], &[]))?;
    let pid = ping(&world.socket("web", "b.sock"))?;
    ensure!(world.service("web")?.pid("pid")? == pid, "it answers by itself");
    Ok(())
}

/// The server makes its listener non-blocking, as one with an event loop does: the next instance finds it blocking.
fn fresh(world: &World) -> Result {
    world.start_daemon()?;
    let seen = world.file("flags").display().to_string();
    let run = format!("grep flags: /proc/$$/fdinfo/3 >>{seen}; exec \"$0\" --activated x");
    let exec = json!({"exec": ["/bin/sh", "-c", run, world.unixd()]});
    world.up(&specs::with(specs::activated(world, "web", &["rpc.sock"], &[]), exec))?;
    let restarted = world.rpc("service.restart", json!({"name": "web"}))?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
    let flags = fs::read_to_string(&seen)?;
    let flags: Vec<&str> = flags.lines().collect();
    ensure!(flags == ["flags:\t02", "flags:\t02"], "O_RDWR alone: {flags:?}");
    Ok(())
}
