//! The daemon is killed and started again: services live on, are known again, and are not started twice.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("sigkill_daemon_adopts::same_processes", &[Need::Daemon, Need::Nushell], same),
        scenario("sigkill_daemon_adopts::ended_meanwhile", &[Need::Daemon], ended),
        scenario("sigkill_daemon_adopts::dentry_lost_meanwhile", &[Need::Daemon], dentry_lost),
        scenario("sigkill_daemon_adopts::recorded_and_never_begun", &[Need::Daemon], never_begun),
        scenario("sigkill_daemon_adopts::during_a_start", &[Need::Daemon], during_start),
        scenario("sigkill_daemon_adopts::during_a_clean_restart", &[Need::Daemon], during_restart),
        scenario("sigkill_daemon_adopts::shutdown_leaves_services", &[Need::Daemon], shutdown),
    ]
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

fn same(world: &World) -> Result {
    world.start_daemon()?;
    let plain = world.up(&spec(world, "plain", &[]))?;
    let workers = world.up(&spec(world, "workers", &["--fork-workers", "2"]))?;
    world.up(&spec(world, "stopped", &[]))?;
    world.rpc("service.stop", json!({"name": "stopped"}))?;

    for _ in 0..2 {
        world.kill_daemon()?;
        ensure!(ping(&world.socket("plain", "rpc.sock"))? == plain, "it serves without its daemon");
        world.start_daemon()?;
        for (name, pid) in [("plain", plain), ("workers", workers)] {
            let row = world.wait_status(name, "running", SOON)?;
            ensure!(row.pid("pid")? == pid && starts(world, name) == 1, "adopted, not started twice: {row}");
        }
        let row = world.service("stopped")?;
        ensure!(row.text("status")? == "inactive" && starts(world, "stopped") == 1, "{row}");
    }

    // What was adopted is cared for like what was spawned.
    fs::remove_file(world.socket("plain", "rpc.sock"))?;
    world.wait_status("plain", "failed", SOON)?;
    let restarted = world.nu_json("proc restart plain --clean")?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
    ensure!(!processes::alive(plain), "the adopted instance is gone");
    let stopped = world.nu_json("proc stop workers")?;
    ensure!(stopped.only()?.text("status")? == "inactive" && !processes::alive(workers), "{stopped}");
    Ok(())
}

fn ended(world: &World) -> Result {
    world.start_daemon()?;
    let restart = json!({"restart": {"policy": "on-failure", "delay": "30ms"}});
    let again = world.up(&specs::with(spec(world, "again", &[]), restart))?;
    let never = world.up(&spec(world, "never", &[]))?;
    world.kill_daemon()?;
    for pid in [again, never] {
        processes::signal(pid, Signal::SIGKILL);
    }
    wait_until(SOON, "both are dead", || !processes::alive(again) && !processes::alive(never))?;
    world.start_daemon()?;
    world.wait_status("again", "running", SOON)?;
    ensure!(starts(world, "again") == 2, "started again once: {}", starts(world, "again"));
    let row = world.service("never")?;
    ensure!(row.field("pid").is_null() && row.text("status")? != "running", "truthfully down: {row}");
    Ok(())
}

/// The daemon dies between the record of an instance and its exec: nothing has ended, and the start goes on.
fn never_begun(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world, "web", &[]))?;
    world.kill_daemon()?;
    processes::signal(old, Signal::SIGKILL);
    wait_until(SOON, "it is dead", || !processes::alive(old))?;
    let db = rusqlite::Connection::open(world.home().join("state.db"))?;
    let begun: i64 = db.query_row("SELECT begun FROM instance", [], |row| row.get(0))?;
    ensure!(begun == 1, "it was let go");
    db.execute("UPDATE instance SET begun = 0", [])?;
    drop(db);
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? != old && ping(&world.socket("web", "rpc.sock"))? == row.pid("pid")?, "{row}");
    Ok(())
}

fn dentry_lost(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&spec(world, "lost", &[]))?;
    world.kill_daemon()?;
    fs::remove_file(world.socket("lost", "rpc.sock"))?;
    world.start_daemon()?;
    let row = world.wait_status("lost", "failed", SOON)?;
    ensure!(row.text("health_reason")?.starts_with("declared socket missing on disk: rpc.sock"), "{row}");
    ensure!(row.pid("pid")? == pid && processes::alive(pid), "{row}");
    Ok(())
}

/// Killed while the service has not listened yet: it comes up once, or is started once more, never twice at a time.
fn during_start(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&spec(world, "slow", &["--listen-after", "1200"]))?;
    std::thread::scope(|scope| {
        // Its connection is cut by the kill.
        let starting = scope.spawn(|| world.rpc("service.start", json!({"name": "slow"})));
        wait_until(SOON, "it is spawned", || starts(world, "slow") == 1)?;
        world.kill_daemon()?;
        ensure!(starting.join().is_ok_and(|answer| answer.is_err()), "nobody answers the cut request");
        Ok(())
    })?;
    world.start_daemon()?;
    settled(world, "slow")
}

fn during_restart(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&spec(world, "slow", &["--unlink-late", "800", "--listen-after", "400"]))?;
    std::thread::scope(|scope| {
        let restarting = scope.spawn(|| world.rpc("service.restart", json!({"name": "slow", "clean": true})));
        wait_until(SOON, "the stop has begun", || {
            fs::read_to_string(world.file("journal")).is_ok_and(|journal| journal.contains("stop slow"))
        })?;
        world.kill_daemon()?;
        ensure!(restarting.join().is_ok_and(|answer| answer.is_err()), "nobody answers the cut request");
        Ok(())
    })?;
    world.start_daemon()?;
    world.wait_status("slow", "running", SOON)?;
    ensure!(!processes::alive(old), "the restart is carried on: the old instance is gone");
    settled(world, "slow")
}

/// It runs, and exactly one process listens: the one that the daemon names.
fn settled(world: &World, name: &str) -> Result {
    let row = world.wait_status(name, "running", SOON)?;
    ensure!(ping(&world.socket(name, "rpc.sock"))? == row.pid("pid")?, "{row}");
    let tag = format!("--tag {name}");
    let living = world.processes().into_iter().filter(|process| process.command.contains(&tag));
    let living: Vec<_> = living.collect();
    ensure!(living.len() == 1, "one instance lives: {living:?}");
    Ok(())
}

fn shutdown(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&spec(world, "stays", &[]))?;
    world.stop_daemon(false)?;
    ensure!(!world.control_socket().exists(), "an orderly end takes the control socket with it");
    ensure!(ping(&world.socket("stays", "rpc.sock"))? == pid, "services live on");
    world.start_daemon()?;
    let row = world.wait_status("stays", "running", SOON)?;
    ensure!(row.pid("pid")? == pid, "{row}");
    world.stop_daemon(true)?;
    ensure!(!processes::alive(pid), "stop_services stops them");
    Ok(())
}
