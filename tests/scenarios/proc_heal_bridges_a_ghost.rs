//! A server that nobody supervises has lost its file: as root `proc heal` bridges to it, without a restart, and the bridge
//! outlives the daemon and ends with the server. Without the right it says what it takes.

use libtest_mimic::Trial;
use scenarios::client::{ask, ping};
use scenarios::fault::Context;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, scenario_as, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Root, Need::Daemon, Need::Nushell];
    vec![
        scenario("proc_heal_bridges_a_ghost", &needs, bridges),
        scenario("bridge_outlives_daemon", &needs, outlives),
        scenario("bridge_makes_way_for_a_start", &needs, makes_way),
        scenario("bridge_to_a_service_that_only_reports", &needs, reports),
        scenario("proc_heal_of_what_cannot_be_bridged", &needs, other_types),
        scenario_as("nobody", "proc_heal_without_right", &needs, without_right),
    ]
}

/// A server that `shimd` did not start, and its path, from which the file is gone.
struct Ghost {
    process: Child,
    path: PathBuf,
}

impl Ghost {
    fn new(world: &World, kind: &str) -> Result<Ghost> {
        let path = world.file("ghost.sock");
        let process = world
            .command(world.unixd())
            .arg(format!("{kind}:{}", path.display()))
            .stdin(Stdio::null())
            .spawn()?;
        let ghost = Ghost { process, path };
        wait_until(SOON, "the server has bound", || fs::metadata(&ghost.path).is_ok())?;
        if kind == "stream" {
            wait_until(SOON, "the server listens", || ping(&ghost.path).is_ok())?;
        }
        fs::remove_file(&ghost.path)?;
        Ok(ghost)
    }

    fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.process.id())?)
    }

    /// Ends it, and holds that its bridge is gone, with its file.
    fn end(mut self) -> Result {
        self.process.kill()?;
        self.process.wait()?;
        wait_until(SOON, "the bridge is gone with its file", || {
            !self.path.exists() && bridge_of(&self.path).is_none()
        })
    }
}

impl Drop for Ghost {
    fn drop(&mut self) {
        // It may have ended by now.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The bridge that was told to stand at a path, by its command line.
fn bridge_of(path: &Path) -> Option<i32> {
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.starts_with("shimd\0__bridge\0") && line.contains(&format!("\0{}\0", path.display()))
    })
}

/// Heals the ghost by the pipeline of the manual, narrowed to this world: others on the machine may be lost too.
fn heal(world: &World, ghost: &Ghost) -> Result<Value> {
    let path = ghost.path.display();
    let rows = world.nu_json(&format!(
        "proc socket-check --system | where verdict == dangling | where path == '{path}' | proc heal"
    ))?;
    Ok(rows.only()?.clone())
}

fn bridged(world: &World) -> Result<Ghost> {
    let ghost = Ghost::new(world, "stream")?;
    let row = heal(world, &ghost)?;
    ensure!(row.text("outcome")? == "bridged", "{row}");
    ensure!(ping(&ghost.path)? == ghost.pid()?, "the server answers");
    Ok(ghost)
}

fn bridges(world: &World) -> Result {
    world.start_daemon()?;
    let ghost = Ghost::new(world, "stream")?;
    let row = heal(world, &ghost)?;
    ensure!(row.text("outcome")? == "bridged" && row.text("reason")?.starts_with("bridged: "), "{row}");
    for _ in 0..100 {
        ensure!(ping(&ghost.path)? == ghost.pid()?, "the server itself answers");
    }
    let mut client = UnixStream::connect(&ghost.path)?;
    client.write_all(b"ping\n")?;
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(SOON))?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    ensure!(answer.trim_end() == format!("pong {}", ghost.pid()?), "half closed, it is answered: {answer:?}");
    // It is reached, and said not to be in order, by everybody who looks.
    let path = ghost.path.display();
    for view in
        [format!("proc socket-check {path}"), format!("proc socket-check --system | where path == '{path}'")]
    {
        let rows = world.nu_json(&view)?;
        let row = rows.only()?;
        let reason = row.text("reason")?;
        ensure!(row.text("verdict")? == "replaced" && reason.starts_with("bridged: "), "{view}: {row}");
        ensure!(reason.contains(&format!("pid {}", ghost.pid()?)), "{view}: {row}");
    }
    let rows = world.rpc("socket.check", json!({"paths": [ghost.path]}))?;
    ensure!(rows.only()?.text("reason")?.starts_with("bridged: "), "{rows}");
    let again = world.nu_json(&format!("proc heal {path}"))?;
    ensure!(again.only()?.text("outcome")? == "bridged", "a second time it is as it was: {again}");

    let bridge = bridge_of(&ghost.path).context("no bridge")?;
    ensure!(
        nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(bridge)))?.as_raw() == bridge,
        "its own session"
    );
    ghost.end()
}

fn outlives(world: &World) -> Result {
    world.start_daemon()?;
    let ghost = bridged(world)?;
    let bridge = bridge_of(&ghost.path).context("no bridge")?;
    world.kill_daemon()?;
    ensure!(ping(&ghost.path)? == ghost.pid()?, "the server answers without a daemon");
    world.start_daemon()?;
    ensure!(
        ping(&ghost.path)? == ghost.pid()? && bridge_of(&ghost.path) == Some(bridge),
        "and with the next"
    );
    world.stop_daemon(true)?;
    ensure!(ping(&ghost.path)? == ghost.pid()?, "the server answers when it was stopped");
    ghost.end()
}

fn makes_way(world: &World) -> Result {
    world.start_daemon()?;
    let ghost = bridged(world)?;
    let own = json!({"name": "web", "exec": [world.unixd(), "{socket:ghost.sock}"],
        "sockets": [ghost.path], "cwd": world.folder()});
    let pid = world.up(&own)?;
    ensure!(ping(&ghost.path)? == pid, "the service answers");
    ensure!(processes::alive(ghost.pid()?), "who was bridged to is left alone");
    wait_until(SOON, "the bridge is gone", || bridge_of(&ghost.path).is_none())?;
    let rows = world.nu_json("proc socket-check web")?;
    ensure!(rows.only()?.text("verdict")? == "ok", "{rows}");
    world.rpc("service.stop", json!({"name": "web"}))?;
    Ok(())
}

fn reports(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::with(specs::unixd(world, "web", &[]), json!({"on_missing": "report"}));
    let pid = world.up(&spec)?;
    let path = world.socket("web", "rpc.sock");
    let like = fs::metadata(&path)?;
    fs::remove_file(&path)?;
    world.wait_status("web", "failed", SOON)?;
    let rows = world.nu_json("proc socket-check web | proc heal")?;
    let row = rows.only()?;
    ensure!(row.text("outcome")? == "bridged", "{row}");
    let found = fs::metadata(&path)?;
    ensure!((found.mode(), found.uid()) == (like.mode(), like.uid()), "for the same clients: {found:?}");
    ensure!(ping(&path)? == pid, "the service answers, and was not restarted");
    let mut row = Value::Null;
    wait_until(SOON, "its row says so", || {
        row = world.service("web").unwrap_or_default();
        row.text("health_reason").is_ok_and(|reason| reason.contains("bridged: "))
    })?;
    ensure!(row.text("status")? == "failed", "it is not in order: {row}");
    let restarted = world.nu_json("proc restart web")?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted", "without --clean: {row}");
    ensure!(
        ping(&path)? == row.pid("new_pid")? && row.pid("new_pid")? != pid,
        "the new one answers itself: {row}"
    );
    wait_until(SOON, "the bridge is gone", || bridge_of(&path).is_none())?;
    let rows = world.nu_json("proc socket-check web | proc heal")?;
    let row = rows.only()?;
    ensure!(row.text("outcome")? == "not_possible" && row.text("reason")?.contains("ok"), "{row}");
    Ok(())
}

fn other_types(world: &World) -> Result {
    world.start_daemon()?;
    for kind in ["seqpacket", "dgram"] {
        let ghost = Ghost::new(world, kind)?;
        let rows = world.nu_json(&format!("proc heal {}", ghost.path.display()))?;
        let row = rows.only()?;
        ensure!(row.text("outcome")? == "not_possible" && row.text("reason")?.contains(kind), "{row}");
        ensure!(!ghost.path.exists(), "nothing is left");
    }
    let none = world.file("none.sock");
    let failed = world.nu_refuses(&format!("proc heal {} --fail", none.display()), "proc::failed")?;
    ensure!(failed.mentions("absent"), "{failed}");
    Ok(())
}

fn without_right(world: &World) -> Result {
    world.start_daemon()?;
    let ghost = Ghost::new(world, "stream")?;
    let row = heal(world, &ghost)?;
    let reason = row.text("reason")?;
    ensure!(row.text("outcome")? == "not_possible", "{row}");
    ensure!(
        reason.contains("root") && reason.contains("restart the service"),
        "it says what it takes: {row}"
    );
    ensure!(!ghost.path.exists() && bridge_of(&ghost.path).is_none(), "nothing is left");
    ensure!(
        ask(&world.control_socket(), nix::sys::socket::SockType::Stream, "{}").is_ok(),
        "the daemon goes on"
    );
    ghost.end()
}
