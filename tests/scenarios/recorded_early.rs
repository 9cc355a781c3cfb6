//! The next instance of a restart is recorded before the old one is told to stop. A daemon that is killed in between, or right
//! after it has let the new one go, leaves two records; and what was begun early and is not wanted any more leaves nothing.

use libtest_mimic::Trial;
use rusqlite::Connection;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("recorded_early::old_one_still_stops", &[Need::Daemon], still_stops),
        scenario("recorded_early::new_one_was_let_go", &[Need::Daemon], let_go),
        scenario("recorded_early::stopped_after_all", &[Need::Daemon], stopped_after_all),
        scenario("recorded_early::another_spec_meanwhile", &[Need::Daemon], another_spec),
        scenario("recorded_early::ghost_that_came_before", &[Need::Daemon], ghost),
    ]
}

/// Generations that the store names, and whether each was let go.
fn records(world: &World) -> Result<Vec<(i64, bool)>> {
    let db = Connection::open(world.home().join("state.db"))?;
    let mut query = db.prepare("SELECT generation, begun FROM instance ORDER BY generation")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

/// A service that says in the journal when it was told to stop, and takes its time.
fn slow(world: &World) -> serde_json::Value {
    let journal = world.file("journal").display().to_string();
    specs::unixd(world, "web", &["--journal", &journal, "--tag", "web", "--unlink-late", "1500"])
}

fn stops(world: &World) -> Result {
    wait_until(SOON, "it was told to stop", || {
        fs::read_to_string(world.file("journal")).is_ok_and(|journal| journal.contains("stop web"))
    })
}

fn still_stops(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&slow(world))?;
    std::thread::scope(|scope| {
        let restarting = scope.spawn(|| world.rpc("service.restart", json!({"name": "web", "clean": true})));
        stops(world)?;
        ensure!(records(world)? == [(1, true), (2, false)], "both are named: {:?}", records(world)?);
        world.kill_daemon()?;
        ensure!(restarting.join().is_ok_and(|answer| answer.is_err()), "nobody answers the cut request");
        Ok(())
    })?;
    ensure!(processes::alive(old), "the old one takes its time");
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    let pid = row.pid("pid")?;
    ensure!(pid != old && !processes::alive(old), "the restart is carried on: {row}");
    ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "and it serves");
    wait_until(SOON, "the store names the new one alone", || {
        records(world)
            .is_ok_and(|records| matches!(records.as_slice(), [(generation, true)] if *generation > 1))
    })
}

/// The daemon died when it had let the new one go, and before the store knew so, or that the old one had left.
fn let_go(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let restarted = world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    let new = restarted.only()?.pid("new_pid")?;
    world.kill_daemon()?;
    let db = Connection::open(world.home().join("state.db"))?;
    let restart = r#"{"clean": true, "attempt": 1, "leaving": true, "gapless": false}"#;
    db.execute("UPDATE service SET restart = ?1, current = 1", [restart])?;
    db.execute("UPDATE instance SET begun = 0 WHERE generation = 2", [])?;
    db.execute(
        r#"INSERT INTO instance SELECT service, 1, json_set(identity, '$.pid', 999999999), NULL, spec_json, started, 1
           FROM instance"#,
        [],
    )?;
    drop(db);
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == new, "it is the one that the restart has brought: {row}");
    let status = world.rpc("service.status", json!({"name": "web"}))?;
    ensure!(status.field("instance").field("generation") == 2, "{status}");
    wait_until(SOON, "the store names it alone", || records(world).is_ok_and(|found| found == [(2, true)]))
}

fn stopped_after_all(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&slow(world))?;
    std::thread::scope(|scope| {
        let restarting = scope.spawn(|| world.rpc("service.restart", json!({"name": "web", "clean": true})));
        stops(world)?;
        world.rpc("service.stop", json!({"name": "web"}))?;
        let row = restarting.join().map_err(|_| scenarios::Fault::new("the asking thread panicked"))??;
        ensure!(row.only()?.text("outcome")? == "failed", "another command came: {row}");
        Ok(())
    })?;
    let row = world.service("web")?;
    ensure!(row.text("status")? == "inactive" && !processes::alive(old), "{row}");
    wait_until(SOON, "the store names none", || records(world).is_ok_and(|found| found.is_empty()))
}

fn another_spec(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&slow(world))?;
    let marked = specs::with(specs::unixd(world, "web", &[]), json!({"env": {"WHICH": "second"}}));
    std::thread::scope(|scope| {
        let restarting = scope.spawn(|| world.rpc("service.restart", json!({"name": "web", "clean": true})));
        stops(world)?;
        world.rpc("service.set", json!({"spec": marked}))?;
        let row = restarting.join().map_err(|_| scenarios::Fault::new("the asking thread panicked"))??;
        ensure!(row.only()?.text("outcome")? == "restarted", "{row}");
        let environ = fs::read(format!("/proc/{}/environ", row.only()?.pid("new_pid")?))?;
        let environ = String::from_utf8_lossy(&environ).into_owned();
        ensure!(environ.contains("WHICH=second"), "it has the spec that was registered meanwhile");
        Ok(())
    })?;
    wait_until(SOON, "the store names it alone", || {
        records(world).is_ok_and(|records| matches!(records.as_slice(), [(_, true)]))
    })
}

/// Somebody has bound the path once, and lost it to the service: what is looked for before the stop is seen, and ended.
fn ghost(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("web", "rpc.sock");
    fs::create_dir_all(path.parent().unwrap_or(&path))?;
    let mut stranger = world.command(world.unixd()).arg(&path).stdin(Stdio::null()).spawn()?;
    let pid = i32::try_from(stranger.id())?;
    wait_until(SOON, "it listens", || ping(&path).is_ok())?;
    fs::remove_file(&path)?;
    let old = world.up(&specs::unixd(world, "web", &[]))?;
    ensure!(processes::alive(pid), "a plain start leaves it alone");
    let row = world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    let row = row.only()?;
    ensure!(row.text("outcome")? == "restarted" && row.pid("old_pid")? == old, "{row}");
    ensure!(*row.field("killed") == json!([pid]), "who has lost the path is ended: {row}");
    wait_until(SOON, "it is ended", || matches!(stranger.try_wait(), Ok(Some(_))))
}
