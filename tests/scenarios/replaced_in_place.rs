//! `shimd run --replace` and `proc shim restart`: a new daemon takes the place of the one that runs, and neither a service
//! nor a client of the control socket notices.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::{ask_and_wait, ping, pong};
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, scenario_as, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const TIMES: usize = 5;

pub fn trials() -> Vec<Trial> {
    let daemon = [Need::Daemon];
    let both = [Need::Daemon, Need::Nushell];
    vec![
        scenario("replaced_in_place::nobody_notices", &daemon, nobody_notices),
        scenario_as("nobody", "replaced_in_place::ordinary_user", &daemon, nobody_notices),
        scenario("replaced_in_place::by_the_plugin", &both, by_the_plugin),
        scenario("replaced_in_place::one_that_hangs", &both, one_that_hangs),
        scenario("replaced_in_place::listeners_without_an_instance", &daemon, without_an_instance),
        scenario("replaced_in_place::in_mid_restart", &daemon, in_mid_restart),
        scenario("replaced_in_place::several_at_once", &daemon, several_at_once),
        scenario("replaced_in_place::refused_and_the_old_one_goes_on", &both, refused),
    ]
}

fn replacing(world: &World) -> Command {
    let mut command = world.command(world.bin("shimd"));
    command.args(["run", "--replace"]).stdin(Stdio::null());
    command
}

fn spec(world: &World, name: &str, options: &[&str]) -> Value {
    let journal = world.file("journal").display().to_string();
    let mut all = vec!["--journal", &journal, "--tag", name];
    all.extend(options);
    specs::unixd(world, name, &all)
}

fn starts(world: &World, name: &str) -> usize {
    let journal = fs::read_to_string(world.file("journal")).unwrap_or_default();
    journal.lines().filter(|line| line.starts_with(&format!("start {name} "))).count()
}

/// The inode of a service's only socket, whose verdict is `ok`.
fn inode(world: &World, name: &str) -> Result<i64> {
    let rows = world.rpc("socket.check", json!({"names": [name]}))?;
    let row = rows.only()?;
    ensure!(row.text("verdict")? == "ok", "{row}");
    row.int("inode")
}

fn nobody_notices(world: &World) -> Result {
    let mut old = world.start_daemon()?;
    let activated = specs::activated(world, "activated", &["rpc.sock"], &[]);
    let bound = specs::with(spec(world, "bound", &[]), json!({"on_missing": "relink"}));
    let services = [bound, spec(world, "workers", &["--fork-workers", "2"]), activated];
    let pids = services.iter().map(|spec| world.up(spec)).collect::<Result<Vec<i32>>>()?;
    let names = ["bound", "workers", "activated"];
    let inodes = names.iter().map(|name| inode(world, name)).collect::<Result<Vec<i64>>>()?;
    world.up(&spec(world, "stopped", &[]))?;
    world.rpc("service.stop", json!({"name": "stopped"}))?;
    let (control, done) = (world.control_socket(), AtomicBool::new(false));
    let (tried, refused, answered) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                tried.fetch_add(1, SeqCst);
                match UnixStream::connect(&control) {
                    Err(_) => refused.fetch_add(1, SeqCst),
                    // One that the old daemon had not accepted when it ended is closed, and asks again.
                    Ok(client) => answered.fetch_add(usize::from(asked(client)), SeqCst),
                };
            }
        });
        let replaced = (0..TIMES).try_for_each(|_| {
            let new = world.start_daemon_by(replacing(world))?;
            ensure!(new != old && !processes::alive(old), "the old daemon is gone");
            old = new;
            for ((name, pid), inode_before) in names.iter().zip(&pids).zip(&inodes) {
                let row = world.wait_status(name, "running", SOON)?;
                ensure!(row.pid("pid")? == *pid, "the same process: {row}");
                ensure!(inode(world, name)? == *inode_before, "{name}: the same listener");
                ping(&world.socket(name, "rpc.sock"))?;
            }
            Ok(())
        });
        done.store(true, SeqCst);
        replaced
    })?;
    ensure!(starts(world, "bound") == 1 && starts(world, "stopped") == 1, "none is started twice");
    let row = world.service("stopped")?;
    ensure!(row.text("status")? == "inactive", "{row}");
    let (tried, refused) = (tried.into_inner(), refused.into_inner());
    ensure!(
        tried > TIMES && refused == 0,
        "{refused} of {tried} connects to the control socket were refused"
    );
    let left: Vec<_> = fs::read_dir(world.home())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(!left.iter().any(|name| name == "rpc.sock.next"), "nothing is left beside: {left:?}");
    let told = world.rpc("event.list", json!({"kinds": ["control"]}))?;
    ensure!(told.rows()?.is_empty(), "a successor is no loss of the control socket: {told}");
    // The new one's own socket is cared for like any daemon's.
    fs::remove_file(world.control_socket())?;
    wait_until(SOON, "the control socket is put back", || world.control_socket().exists())?;
    // What it took over it heals and stops.
    fs::remove_file(world.socket("bound", "rpc.sock"))?;
    wait_until(SOON, "the dentry is put back", || world.socket("bound", "rpc.sock").exists())?;
    world.rpc("service.stop", json!({"name": "workers"}))?;
    ensure!(!processes::alive(pids[1]), "what was taken over is stopped");
    Ok(())
}

/// Whether a request is answered.
fn asked(mut client: UnixStream) -> bool {
    let request = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"shim.info\"}\n";
    let mut line = String::new();
    let limited = client.set_read_timeout(Some(SOON)).is_ok();
    limited
        && client.write_all(request).is_ok()
        && BufReader::new(client).read_line(&mut line).is_ok_and(|length| length > 0)
}

fn by_the_plugin(world: &World) -> Result {
    let first = world.nu_json("proc shim restart")?.pid("pid")?;
    ensure!(world.daemon_pid()? == first, "where none runs, one is started");
    let pid = world.up(&spec(world, "web", &[]))?;
    // Another shell, in which sockets are elsewhere: the daemon's place counts, as long as it runs.
    let elsewhere = world.file("elsewhere");
    let there = format!("with-env {{HERO_SOCKET_DIR: '{}'}} {{ proc shim restart }}", elsewhere.display());
    for restart in ["proc shim restart", &there] {
        let old = world.daemon_pid()?;
        let info = world.nu_json(restart)?;
        let new = info.pid("pid")?;
        ensure!(new != old && world.daemon_pid()? == new && !processes::alive(old), "{info}");
        ensure!(info.int("services")? == 1, "{info}");
        let row = world.wait_status("web", "running", SOON)?;
        ensure!(row.pid("pid")? == pid && starts(world, "web") == 1, "{row}");
        inode(world, "web")?;
    }
    ensure!(!elsewhere.exists(), "nothing is made in the other place");
    Ok(())
}

fn one_that_hangs(world: &World) -> Result {
    let old = world.start_daemon()?;
    let pid = world.up(&spec(world, "web", &[]))?;
    processes::signal(old, Signal::SIGSTOP);
    wait_until(SOON, "it is stopped", || processes::stopped(old))?;
    let info = world.nu_json("proc shim restart")?;
    ensure!(info.pid("pid")? != old && !processes::alive(old), "{info}");
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == pid && starts(world, "web") == 1, "{row}");
    Ok(())
}

fn without_an_instance(world: &World) -> Result {
    world.start_daemon()?;
    let activated = specs::activated(world, "web", &["rpc.sock"], &[]);
    let pid = world.up(&specs::with(activated, json!({"restart": {"policy": "never"}})))?;
    let before = inode(world, "web")?;
    processes::signal(pid, Signal::SIGKILL);
    wait_until(SOON, "the service is dead", || !processes::alive(pid))?;
    world.wait_status("web", "failed", SOON)?;
    // Only the daemon has the listener now.
    let waiting = ask_and_wait(&world.socket("web", "rpc.sock"), 3)?;
    world.start_daemon_by(replacing(world))?;
    world.rpc("service.start", json!({"name": "web"}))?;
    for client in waiting {
        pong(client)?;
    }
    ensure!(inode(world, "web")? == before, "the same listener");
    Ok(())
}

fn in_mid_restart(world: &World) -> Result {
    world.start_daemon()?;
    let slow = specs::with(spec(world, "web", &["--ignore-term"]), json!({"stop": {"timeout": "700ms"}}));
    let pid = world.up(&slow)?;
    std::thread::scope(|scope| {
        // Its connection ends with the daemon that it asked; the restart goes on.
        let asked = scope.spawn(|| world.request("service.restart", json!({"name": "web", "clean": true})));
        world.wait_status("web", "stopping", SOON)?;
        world.start_daemon_by(replacing(world))?;
        let _ = asked.join();
        let row = world.wait_status("web", "running", SOON)?;
        ensure!(row.pid("pid")? != pid && starts(world, "web") == 2, "carried on, once: {row}");
        ensure!(!processes::alive(pid), "the old instance is gone");
        inode(world, "web").map(drop)
    })
}

fn several_at_once(world: &World) -> Result {
    let old = world.start_daemon()?;
    let pid = world.up(&spec(world, "web", &[]))?;
    let mut children = Vec::new();
    for _ in 0..4 {
        children.push(replacing(world).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    }
    wait_until(SOON, "one of them serves", || {
        let ids: Vec<i32> = children.iter().map(|child| child.id().cast_signed()).collect();
        world.daemon_pid().is_ok_and(|pid| ids.contains(&pid))
    })?;
    ensure!(!processes::alive(old), "the old one is gone");
    wait_until(SOON, "the others have ended", || {
        children.iter_mut().filter_map(|child| child.try_wait().ok().flatten()).count() == 3
    })?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == pid && starts(world, "web") == 1, "{row}");
    world.stop_daemon(true)?;
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

fn refused(world: &World) -> Result {
    let old = world.start_daemon()?;
    let pid = world.up(&spec(world, "web", &[]))?;
    let goes_on = |why: &str| {
        let row = world.wait_status("web", "running", SOON)?;
        ensure!(world.daemon_pid()? == old && row.pid("pid")? == pid, "{why}: {row}");
        ensure!(!world.home().join("rpc.sock.next").exists(), "{why}: nothing is left beside");
        Ok(())
    };
    let said = |command: &mut Command| {
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{} {said}", output.status);
        Ok(said)
    };
    let elsewhere = world.file("elsewhere");
    let words = said(replacing(world).env("HERO_SOCKET_DIR", &elsewhere))?;
    ensure!(words.contains("HERO_SOCKET_DIR") && words.contains(&*elsewhere.to_string_lossy()), "{words}");
    goes_on("another root")?;
    let version = |to: &str| -> Result {
        let db = rusqlite::Connection::open(world.home().join("state.db"))?;
        db.busy_timeout(SOON)?;
        db.execute("UPDATE meta SET value = ?1 WHERE key = 'schema'", [to])?;
        Ok(())
    };
    version("99")?;
    let words = said(&mut replacing(world))?;
    ensure!(words.contains("goes on") && words.contains("99"), "{words}");
    goes_on("a newer store")?;
    let failure = world.nu_refuses("proc shim restart", "proc::failed")?;
    ensure!(failure.mentions("schema 99"), "{failure:?}");
    goes_on("by the plugin")?;
    version("4")?;
    // Somebody else's lock is no daemon to be ended.
    let held = fs::read_to_string(world.home().join("lock"))?;
    fs::write(world.home().join("lock"), format!("{}\n", std::process::id()))?;
    let words = said(&mut replacing(world))?;
    ensure!(words.contains("by hand"), "{words}");
    fs::write(world.home().join("lock"), held)?;
    goes_on("a lock that names another")?;
    world.start_daemon_by(replacing(world))?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == pid, "and then it is: {row}");
    Ok(())
}
