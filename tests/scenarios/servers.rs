//! Real servers through the whole story: each record is started, loses its dentry, is restarted clean, is killed and
//! started over its stale file, loses its dentry again and has it put back, once by the daemon that runs and once by the next
//! one, which adopts it, and is stopped; its real client must be answered at each stage.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::record::Prepared;
use scenarios::{
    Json, Need, Record, Result, World, ensure, processes, scenario, servers_table, specs, wait_until,
};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let records = match Record::all() {
        Ok(records) => records,
        Err(fault) => return vec![Trial::test("servers::records", move || Err(fault.into()))],
    };
    let trial = |record: Record| {
        let needs = [Need::Daemon, Need::Nushell, Need::Server(Box::new(record.clone()))];
        scenario(&format!("servers::{}", record.name), &needs, move |world| whole_story(world, &record))
    };
    let mut trials: Vec<Trial> = records.into_iter().map(trial).collect();
    trials.push(scenario("servers::the_table_in_the_docs", &[], documented));
    trials
}

fn whole_story(world: &World, record: &Record) -> Result {
    let name = record.name.as_str();
    let server = record.prepare(world)?;
    world.start_daemon()?;
    let file = world.write("spec.json", &server.spec.to_string())?;

    let changed = world.nu_json(&format!("proc register {}", file.display()))?;
    ensure!(changed.only()?.text("change")? == "created", "registered: {changed}");
    let started = world.nu_json(&format!("proc start {name}"))?;
    let first = running(started.only()?)?;
    server.answers(world)?;

    lose(world, &server)?;
    let row = world.wait_status(name, "failed", SOON)?;
    let reason = row.text("health_reason")?;
    ensure!(reason.starts_with("declared socket missing on disk: "), "the reason of a lost dentry: {reason}");
    ensure!(row.pid("pid")? == first, "the process is untouched: {row}");
    // A server that gives up for want of its file closes what it listens on.
    all_soon(world, name, if record.not_relinked.is_some() { "absent" } else { "dangling" })?;

    let restarted = world.nu_json(&format!("proc restart {name} --clean"))?;
    let row = restarted.only()?;
    ensure!(row.text("outcome")? == "restarted", "restart --clean: {row}");
    let second = row.pid("new_pid")?;
    ensure!(second != first && !processes::alive(first), "the old process {first} is gone: {row}");
    all(row.field("sockets"), "ok")?;
    server.answers(world)?;

    let killed = world.instance_pids(name)?;
    ensure!(killed.contains(&second), "the instance has its main process: {killed:?}");
    for pid in &killed {
        processes::signal(*pid, Signal::SIGKILL);
    }
    wait_until(SOON, "the killed instance is dead", || !killed.iter().any(|pid| processes::alive(*pid)))?;
    let row = wait_ended(world, name)?;
    world.note(format!("killed: {row}"));

    // From here on a lost file is put back, and what ends by a signal is started again.
    let spec = specs::with(
        server.spec.clone(),
        json!({"on_missing": "relink", "restart": {"policy": "on-failure", "delay": "100ms"}}),
    );
    world.write("spec.json", &spec.to_string())?;
    world.nu_json(&format!("proc register {}", file.display()))?;
    let started = world.nu_json(&format!("proc start {name}"))?;
    let third = running(started.only()?)?;
    all_soon(world, name, "ok")?;
    server.answers(world)?;
    if record.not_relinked.is_some() {
        ends_with_its_file(world, name, &server)?;
    } else {
        put_back(world, name, &server, third)?;
        by_the_next_daemon(world, record, &server, third)?;
    }

    let last = world.instance_pids(name)?;
    let stopped = world.nu_json(&format!("proc stop {name}"))?;
    ensure!(stopped.only()?.text("status")? == "inactive", "stopped: {stopped}");
    let left: Vec<&i32> = last.iter().filter(|pid| processes::alive(**pid)).collect();
    ensure!(left.is_empty(), "alive after the stop: {left:?}");
    let check = world.rpc("socket.check", json!({"name": name}))?;
    for row in check.rows()? {
        let verdict = row.text("verdict")?;
        ensure!(["absent", "stale"].contains(&verdict), "nobody listens after the stop: {row}");
    }
    Ok(())
}

/// Another process removes the files: all are back, with nothing restarted.
fn put_back(world: &World, name: &str, server: &Prepared, pid: i32) -> Result {
    lose(world, server)?;
    wait_until(SOON, "each socket is put back", || {
        let rows = world.rpc("socket.check", json!({"name": name})).ok()?;
        let back = |row: &Value| {
            row.int("relinked").is_ok_and(|times| times > 0) && row.text("verdict").is_ok_and(|v| v == "ok")
        };
        rows.rows().ok()?.iter().all(back).then_some(())
    })?;
    server.answers(world)?;
    ensure!(world.service(name)?.pid("pid")? == pid, "nothing was restarted");
    Ok(())
}

/// The files go while no daemon runs: the next one adopts the instance, and puts them back. A server that has ended with the
/// daemon is started again.
fn by_the_next_daemon(world: &World, record: &Record, server: &Prepared, pid: i32) -> Result {
    let name = record.name.as_str();
    world.kill_daemon()?;
    if record.not_adopted.is_some() {
        wait_until(SOON, format!("{name} ends with the daemon"), || !processes::alive(pid))?;
    }
    lose(world, server)?;
    world.start_daemon()?;
    all_soon(world, name, "ok")?;
    server.answers(world)?;
    let row = world.wait_status(name, "running", SOON)?;
    ensure!((row.pid("pid")? == pid) == record.not_adopted.is_none(), "adopted, or started again: {row}");
    Ok(())
}

/// Another process removes the files. One server removes the rest itself once it misses the first.
fn lose(world: &World, server: &Prepared) -> Result {
    let mut arguments = vec![Path::new("-f")];
    arguments.extend(server.sockets.iter().map(PathBuf::as_path));
    world.hand("rm", &arguments)?;
    Ok(())
}

/// The server closes its listeners when their files go: the service is said to have failed, and a restart is what helps.
fn ends_with_its_file(world: &World, name: &str, server: &Prepared) -> Result {
    lose(world, server)?;
    all_soon(world, name, "absent")?;
    world.wait_status(name, "failed", SOON)?;
    let restarted = world.nu_json(&format!("proc restart {name} --clean"))?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "restart --clean: {restarted}");
    server.answers(world)
}

/// The docs' table is what the records say.
fn documented(_: &World) -> Result {
    let text = fs::read_to_string(servers_table::page())?;
    let renewed = servers_table::renewed(&text, &Record::all()?)?;
    ensure!(text == renewed, "docs/healing.md is not what the records say: run `cargo xtask servers-table`");
    Ok(())
}

fn running(row: &Value) -> Result<i32> {
    ensure!(row.text("status")? == "running", "it did not come up: {row}");
    row.pid("pid")
}

fn all(rows: &Value, verdict: &str) -> Result {
    for row in rows.rows()? {
        ensure!(row.text("verdict")? == verdict, "a socket is not {verdict}: {row}");
    }
    Ok(())
}

/// Some servers bind twice at their start: a socket can be lost and back a moment after it was `ok`.
fn all_soon(world: &World, name: &str, verdict: &str) -> Result {
    wait_until(SOON, format!("each socket is {verdict}"), || {
        let rows = world.nu_json(&format!("proc socket-check {name}"));
        rows.is_ok_and(|rows| all(&rows, verdict).is_ok())
    })
}

/// Waits until the daemon knows that the instance has ended.
fn wait_ended(world: &World, name: &str) -> Result<Value> {
    scenarios::wait::wait_for(SOON, "the daemon notices the end", || {
        let row = world.service(name)?;
        Ok(row.field("pid").is_null().then_some(row))
    })
}
