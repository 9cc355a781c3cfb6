//! `restart --gapless` of published sockets: the new instance is up before the old one goes, and no client notices.

use crate::publish::{names, spec};
use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::{ask, ping};
use scenarios::{Fault, Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("publish_gapless::no_client_notices", &[Need::Daemon], no_client_notices),
        scenario("publish_gapless::connections_are_drained", &[Need::Daemon], drained),
        scenario("publish_gapless::new_one_fails_old_keeps_serving", &[Need::Daemon], new_one_fails),
        scenario("publish_gapless::daemon_killed", &[Need::Daemon], daemon_killed),
        scenario("publish_gapless::commands_cross", &[Need::Daemon], commands_cross),
        scenario("publish_gapless::activate_too", &[Need::Daemon], activate_too),
        scenario("publish_gapless::refused_for_bind", &[Need::Daemon, Need::Nushell], refused),
    ]
}

pub fn restart(world: &World, name: &str) -> Result<Value> {
    Ok(world.rpc("service.restart", json!({"name": name, "gapless": true}))?.only()?.clone())
}

/// The history tells that the new instance has taken over: the state is the same as before, and the process is not.
fn took_over(world: &World, row: &Value) -> Result {
    let (old, new) = (row.pid("old_pid")?, row.pid("new_pid")?);
    let told = world.rpc("event.list", json!({"name": "web", "kinds": ["state"]}))?;
    let detail = told.rows()?.last().map(|event| event.field("detail").clone()).unwrap_or_default();
    let words = format!("took over from process {old} without a gap");
    let as_told = detail["status"] == "running" && detail["was"] == "running" && detail["pid"] == new;
    ensure!(as_told && detail["reason"] == words, "{detail}");
    Ok(())
}

/// Runs `work` while clients connect, ask and close without a pause; gives how often they did. No failure is allowed.
pub fn beside_clients(socket: &Path, clients: usize, work: impl FnOnce() -> Result) -> Result<usize> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = || -> Result<usize> {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                ask(socket, SockType::Stream, "ping")
                    .map_err(|fault| Fault(format!("after {asked} answers: {fault}")))?;
                asked += 1;
            }
            Ok(asked)
        };
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let mut asked = 0;
        for client in clients {
            asked += client.join().map_err(|_| Fault("a client ended".into()))??;
        }
        worked?;
        Ok(asked)
    })
}

/// One instance lives, and answers: the one that the daemon names.
fn alone(world: &World, name: &str) -> Result<i32> {
    world.wait_status(name, "running", SOON)?;
    let tag = format!("--tag {name} ");
    let living = || world.processes().into_iter().filter(|p| p.command.contains(&tag)).count();
    wait_until(SOON, "one instance lives", || living() == 1)?;
    let row = world.wait_status(name, "running", SOON)?;
    let pid = ping(&world.socket(name, "rpc.sock"))?;
    ensure!(row.pid("pid")? == pid, "{row}, and {pid} answers");
    Ok(pid)
}

fn no_client_notices(world: &World) -> Result {
    world.start_daemon()?;
    let mut pid = world.up(&spec(world, "web", &["--tag", "web", "--unlink-at-exit"]))?;
    let public = world.socket("web", "rpc.sock");
    let asked = beside_clients(&public, 3, || {
        for _ in 0..20 {
            let row = restart(world, "web")?;
            ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == pid, "{row}");
            ensure!(row.pid("new_pid")? != pid && !processes::alive(pid), "{row}");
            ensure!(row.field("health_reason").is_null() && row.int("ready_in")? > 0, "{row}");
            pid = row.pid("new_pid")?;
            took_over(world, &row)?;
        }
        Ok(())
    })?;
    ensure!(asked > 1000, "only {asked} answers");
    ensure!(alone(world, "web")? == pid, "the last new one serves");
    wait_until(SOON, "dead generations have left nothing", || {
        names(world, "web").is_ok_and(|names| names == [".rpc.sock.21", "rpc.sock"])
    })?;
    // To clients nothing happened.
    let rows = world.rpc("event.list", json!({"name": "web", "kinds": ["verdict"]}))?;
    let verdicts: Vec<_> =
        rows.rows()?.iter().map(|row| row.field("detail").text("verdict").unwrap_or("?")).collect();
    let after = verdicts.iter().skip_while(|verdict| **verdict != "ok").skip(1).count();
    ensure!(after == 0, "{verdicts:?}");
    Ok(())
}

/// Who is connected is served by the old one, until it closes or the stop's time is up.
fn drained(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world, "web", &["--tag", "web"]))?;
    let public = world.socket("web", "rpc.sock");
    let talk = UnixStream::connect(&public)?;
    let ask_on = || -> Result<String> {
        (&talk).write_all(b"ping\n")?;
        let mut line = String::new();
        BufReader::new(&talk).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    ensure!(ask_on()? == format!("pong {old}"), "connected to the old one");
    let row = std::thread::scope(|scope| {
        let restarting = scope.spawn(|| restart(world, "web"));
        wait_until(SOON, "the new one answers", || ping(&public).is_ok_and(|pid| pid != old))?;
        for _ in 0..50 {
            ensure!(ask_on()? == format!("pong {old}"), "the connection is the old one's");
        }
        ensure!(processes::alive(old) && !restarting.is_finished(), "it stays while it is needed");
        talk.shutdown(std::net::Shutdown::Both)?;
        restarting.join().map_err(|_| Fault("the client ended".into()))?
    })?;
    ensure!(row.text("outcome")? == "restarted" && !processes::alive(old), "{row}");

    // A connection that is never closed holds it for no longer than the stop's time.
    world.register(&specs::with(
        spec(world, "web", &["--tag", "web"]),
        json!({"stop": {"timeout": "300ms"}}),
    ))?;
    restart(world, "web")?;
    let _idle = UnixStream::connect(&public)?;
    let pid = ping(&public)?;
    let row = restart(world, "web")?;
    ensure!(row.text("outcome")? == "restarted" && !processes::alive(pid), "{row}");
    alone(world, "web").map(drop)
}

fn new_one_fails(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world, "web", &["--tag", "web"]))?;
    let public = world.socket("web", "rpc.sock");
    let ready = json!({"ready": {"timeout": "400ms"}});
    for (options, clean, why) in [
        // It ends before it has bound; twice, for --clean tries once more.
        (vec!["--tag", "web", "--exit-after", "0", "--exit-code", "3"], true, "exited with status 3"),
        // It never listens in time.
        (vec!["--tag", "web", "--listen-after", "5000"], false, "not ready within 400ms"),
        // It binds, and then removes its own name.
        (vec!["--tag", "web", "--ready-after", "5000", "--notify"], false, "READY=1"),
    ] {
        let bad = specs::with(spec(world, "web", &options), ready.clone());
        let notify = options.contains(&"--notify");
        world.register(&specs::with(bad, json!({"ready": {"notify": notify}})))?;
        let asked = beside_clients(&public, 2, || {
            let params = json!({"name": "web", "gapless": true, "clean": clean});
            let row = world.rpc("service.restart", params)?.only()?.clone();
            ensure!(row.text("outcome")? == "failed", "{row}");
            let reason = row.text("health_reason")?;
            ensure!(reason.contains(why) && reason.contains("serves on"), "{why:?} is not in {reason:?}");
            ensure!(row.pid("new_pid")? == old, "{row}");
            Ok(())
        })?;
        ensure!(asked > 0, "clients were served");
        ensure!(alone(world, "web")? == old, "the old one serves on");
        let row = world.service("web")?;
        ensure!(row.field("health_reason").is_null(), "the service is well: {row}");
    }
    // And the next good one takes over.
    world.register(&spec(world, "web", &["--tag", "web"]))?;
    let row = restart(world, "web")?;
    ensure!(row.text("outcome")? == "restarted" && row.pid("new_pid")? != old, "{row}");
    alone(world, "web").map(drop)
}

/// Killed at any moment of a gapless restart: clients are served all the time, and in the end one instance lives.
fn daemon_killed(world: &World) -> Result {
    world.start_daemon()?;
    let mut pid =
        world.up(&spec(world, "web", &["--tag", "web", "--listen-after", "60", "--unlink-at-exit"]))?;
    let public = world.socket("web", "rpc.sock");
    let mut carried_on = 0;
    beside_clients(&public, 2, || {
        for round in 0..14u64 {
            std::thread::scope(|scope| {
                let asked =
                    scope.spawn(|| world.rpc("service.restart", json!({"name": "web", "gapless": true})));
                // From before the spawn until after the old one has gone.
                std::thread::sleep(Duration::from_millis(3 + round * 17));
                world.kill_daemon()?;
                // Its connection is cut, or it was answered just before.
                let _ = asked.join();
                Ok::<(), Fault>(())
            })?;
            world.start_daemon()?;
            // It runs already: this waits until nothing is under way any more.
            world.rpc("service.start", json!({"name": "web"}))?;
            let now = alone(world, "web")?;
            carried_on += usize::from(now != pid);
            pid = now;
        }
        Ok(())
    })?;
    // The first kill may come before the command.
    ensure!(carried_on >= 13, "only {carried_on} of 14 restarts were carried on");
    let folder = names(world, "web")?;
    ensure!(folder.contains(&"rpc.sock".to_owned()) && folder.len() <= 3, "{folder:?}");
    Ok(())
}

/// Stops, restarts and gapless restarts at once: the last command counts, and nobody is left over.
fn commands_cross(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&spec(world, "web", &["--tag", "web", "--listen-after", "40"]))?;
    for round in 0..6u64 {
        std::thread::scope(|scope| {
            let pause = || std::thread::sleep(Duration::from_millis(5 + round * 13));
            let first = scope.spawn(|| world.rpc("service.restart", json!({"name": "web", "gapless": true})));
            pause();
            let second = scope
                .spawn(|| world.rpc("service.restart", json!({"name": "web", "gapless": round % 2 == 0})));
            pause();
            world.rpc("service.stop", json!({"name": "web"}))?;
            for answer in [first, second] {
                answer.join().map_err(|_| Fault("a client ended".into()))??;
            }
            Ok::<(), Fault>(())
        })?;
        // On a busy machine a restart may have come last.
        world.rpc("service.stop", json!({"name": "web"}))?;
        let row = world.service("web")?;
        ensure!(row.text("status")? == "inactive", "{row}");
        let left = world.processes().into_iter().filter(|p| p.command.contains("--tag web ")).count();
        ensure!(left == 0, "{left} processes are left");
        wait_until(SOON, "no name is left", || names(world, "web").is_ok_and(|names| names.is_empty()))?;
        world.rpc("service.start", json!({"name": "web"}))?;
        alone(world, "web")?;
    }
    Ok(())
}

/// Sockets of the mode `activate` are both instances' for a while.
fn activate_too(world: &World) -> Result {
    world.start_daemon()?;
    let mut pid = world.up(&specs::activated(world, "web", &["rpc.sock"], &["--finish", "--tag", "web"]))?;
    let public = world.socket("web", "rpc.sock");
    let asked = beside_clients(&public, 3, || {
        for _ in 0..10 {
            let row = restart(world, "web")?;
            ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == pid, "{row}");
            ensure!(row.pid("new_pid")? != pid && !processes::alive(pid), "{row}");
            pid = row.pid("new_pid")?;
            took_over(world, &row)?;
        }
        Ok(())
    })?;
    ensure!(asked > 500, "only {asked} answers");
    ensure!(alone(world, "web")? == pid, "the last new one serves");
    let row = world.rpc("socket.check", json!({"name": "web"}))?.only()?.clone();
    ensure!(row.text("verdict")? == "ok" && row.pid("pid")? == pid, "{row}");

    let bad = specs::activated(
        world,
        "web",
        &["rpc.sock"],
        &["--tag", "web", "--exit-after", "0", "--exit-code", "3"],
    );
    world.register(&bad)?;
    let row = restart(world, "web")?;
    ensure!(row.text("outcome")? == "failed" && alone(world, "web")? == pid, "{row}");
    Ok(())
}

fn refused(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "plain", &[]))?;
    world.up(&spec(world, "web", &["--tag", "web"]))?;
    let error = world.rpc_error("service.restart", json!({"names": ["web", "plain"], "gapless": true}))?;
    ensure!(error.kind == "not_gapless" && error.message.contains("plain"), "{error}");
    world.nu_refuses("proc restart --gapless plain", "proc::not_gapless")?;
    let rows = world.nu_json("proc restart --gapless web")?;
    ensure!(rows.only()?.text("outcome")? == "restarted", "{rows}");

    // A spec that changes the mode counts for both sides.
    world.register(&specs::with(specs::unixd(world, "web", &[]), json!({"sockets": ["rpc.sock"]})))?;
    let error = world.rpc_error("service.restart", json!({"name": "web", "gapless": true}))?;
    ensure!(error.kind == "not_gapless", "{error}");
    let _ = fs::metadata(world.socket("web", "rpc.sock"))?;
    Ok(())
}
