//! In the middle of a restart of many: another command, a stop, an unregister, a client that goes, a daemon that is killed.
//! Nothing hangs, every command is answered, and nothing is left half done.

use libtest_mimic::Trial;
use scenarios::{Fault, Json, Need, Result, World, ensure, fleet, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// A chain: each takes a moment to come up, so there is a middle.
const CHAIN: [(&str, &[&str], &[&str]); 5] = [
    ("a", &[], &["--listen-after", "300"]),
    ("b", &["a"], &["--listen-after", "300"]),
    ("c", &["b"], &["--listen-after", "300"]),
    ("d", &["c"], &["--listen-after", "300"]),
    ("e", &["d"], &["--listen-after", "300"]),
];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

pub fn trials() -> Vec<Trial> {
    let needs = &[Need::Daemon];
    vec![
        scenario("restart_many_disturbed::by_the_same_command", needs, again),
        scenario("restart_many_disturbed::by_a_stop", needs, stopped),
        scenario("restart_many_disturbed::by_an_unregister", needs, unregistered),
        scenario("restart_many_disturbed::by_a_start", needs, started),
        scenario("restart_many_disturbed::by_another_order", needs, reordered),
        scenario("restart_many_disturbed::by_a_client_that_goes", needs, client_goes),
        scenario("restart_many_disturbed::by_a_killed_daemon", needs, killed),
        scenario("restart_many_disturbed::by_a_shutdown", needs, shut_down),
        scenario("restart_many_disturbed::progress", needs, progress),
    ]
}

type Asking<'a> = ScopedJoinHandle<'a, Result<Value>>;

/// Asks for a restart of these beside the scenario.
fn restart<'a>(scope: &'a Scope<'a, '_>, world: &'a World, names: &'a [&'a str]) -> Asking<'a> {
    scope.spawn(move || world.rpc("service.restart", json!({"names": names, "clean": true})))
}

fn answered(asking: Asking<'_>) -> Result<Value> {
    asking.join().map_err(|_| Fault::new("the asking thread panicked"))?
}

/// Waits until the whole chain is down and its first service comes up.
fn middle(world: &World, mark: (usize, u64)) -> Result {
    wait_until(SOON, "a has begun to come up", || {
        fleet::since(world, mark).is_ok_and(|story| story.journal.iter().any(|line| line == "start a"))
    })
}

fn all_restarted(rows: &Value, names: &[&str]) -> Result {
    ensure!(rows.rows()?.len() == names.len(), "a row for each: {rows}");
    for name in names {
        ensure!(rows.row("name", name)?.text("outcome")? == "restarted", "{rows}");
    }
    Ok(())
}

fn again(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(world, &CHAIN)?;
    let mark = fleet::mark(world)?;
    std::thread::scope(|scope| {
        let first = restart(scope, world, &NAMES);
        middle(world, mark)?;
        // The new a is older than this command: it goes once more. The others are down and are started once.
        let second = restart(scope, world, &NAMES);
        all_restarted(&answered(first)?, &NAMES)?;
        all_restarted(&answered(second)?, &NAMES)
    })?;
    let story = fleet::since(world, mark)?;
    let starts = |name: &str| story.journal.iter().filter(|line| **line == format!("start {name}")).count();
    let all: Vec<usize> = NAMES.iter().map(|name| starts(name)).collect();
    ensure!(all == [2, 1, 1, 1, 1], "{all:?}");
    story.wrote("ready d", "start e")
}

fn stopped(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(world, &CHAIN)?;
    let mark = fleet::mark(world)?;
    let rows = std::thread::scope(|scope| {
        let asking = restart(scope, world, &NAMES);
        middle(world, mark)?;
        let rows = world.rpc("service.stop", json!({"name": "c"}))?;
        ensure!(rows.only()?.text("status")? == "inactive", "{rows}");
        answered(asking)
    })?;
    for name in ["a", "b"] {
        ensure!(rows.row("name", name)?.text("outcome")? == "restarted", "{rows}");
    }
    let reason = |name| rows.row("name", name)?.text("health_reason");
    ensure!(reason("c")?.contains("another command has stopped it"), "{rows}");
    ensure!(reason("d")?.contains("dependency c is inactive"), "{rows}");
    ensure!(reason("e")?.contains("dependency d is failed"), "{rows}");
    world.rpc("service.start", json!({"name": "c"}))?;
    world.wait_status("e", "running", SOON).map(drop)
}

fn unregistered(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(world, &CHAIN)?;
    let mark = fleet::mark(world)?;
    let rows = std::thread::scope(|scope| {
        let asking = restart(scope, world, &NAMES);
        middle(world, mark)?;
        for name in ["c", "a"] {
            let rows = world.rpc("service.delete", json!({"name": name}))?;
            ensure!(rows.only()?.text("change")? == "deleted", "{rows}");
        }
        answered(asking)
    })?;
    ensure!(rows.rows()?.len() == NAMES.len(), "a row for each: {rows}");
    let reason = |name| rows.row("name", name)?.text("health_reason");
    ensure!(reason("c")?.contains("unregistered"), "{rows}");
    // The restart may be answered between its stop and its end.
    let gone = reason("a")?;
    ensure!(gone.contains("unregistered") || gone.contains("has stopped it"), "{rows}");
    ensure!(reason("b")?.contains("dependency a is "), "{rows}");
    ensure!(reason("d")?.contains("dependency c is not registered"), "{rows}");
    Ok(())
}

fn started(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(world, &CHAIN)?;
    let mark = fleet::mark(world)?;
    std::thread::scope(|scope| {
        let asking = restart(scope, world, &NAMES);
        middle(world, mark)?;
        let rows = world.rpc("service.start", json!({"name": "e"}))?;
        ensure!(rows.only()?.text("status")? == "running", "answered when it is up: {rows}");
        all_restarted(&answered(asking)?, &NAMES)
    })
}

/// New specs in the middle, by which b no longer waits for a, but a for b.
fn reordered(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(world, &CHAIN)?;
    let mark = fleet::mark(world)?;
    std::thread::scope(|scope| {
        let asking = restart(scope, world, &NAMES);
        middle(world, mark)?;
        let on =
            |name: &str, on: &[&str]| specs::with(specs::unixd(world, name, &[]), json!({"depends_on": on}));
        world.rpc("service.set", json!({"specs": [on("b", &[]), on("a", &["b"])]}))?;
        all_restarted(&answered(asking)?, &NAMES)
    })
}

fn client_goes(world: &World) -> Result {
    world.start_daemon()?;
    let old = fleet::up(world, &CHAIN)?;
    let mark = fleet::mark(world)?;
    let mut client = UnixStream::connect(world.control_socket())?;
    let params = json!({"names": NAMES, "clean": true});
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": "service.restart", "params": params});
    writeln!(client, "{line}")?;
    middle(world, mark)?;
    drop(client);
    for (name, old) in NAMES.iter().zip(old) {
        let row = world.wait_status(name, "running", SOON)?;
        ensure!(row.pid("pid")? != old, "the work goes on: {row}");
    }
    Ok(())
}

/// What was begun is carried on in its order; what was still queued serves on.
fn killed(world: &World) -> Result {
    world.start_daemon()?;
    let names: Vec<String> = (0..60).map(|n| format!("one{n:02}")).collect();
    let mut all: Vec<(&str, &[&str], &[&str])> = CHAIN.to_vec();
    all.extend(names.iter().map(|name| (name.as_str(), &[][..], &["--listen-after", "300"][..])));
    let old = fleet::up(world, &all)?;
    let mark = fleet::mark(world)?;
    let wanted: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": "service.restart", "params": {"names": wanted, "clean": true}});
    let mut client = UnixStream::connect(world.control_socket())?;
    writeln!(client, "{line}")?;
    wait_until(SOON, "some have begun", || {
        fleet::since(world, mark)
            .is_ok_and(|story| story.journal.iter().any(|line| line.starts_with("ready ")))
    })?;
    world.kill_daemon()?;
    world.start_daemon()?;
    let mut kept = 0;
    for (name, old) in wanted.iter().zip(&old) {
        kept += usize::from(world.wait_status(name, "running", SOON)?.pid("pid")? == *old);
    }
    ensure!(kept > 0 && kept < wanted.len(), "{kept} of {} were not restarted", wanted.len());
    let story = fleet::since(world, mark)?;
    for line in story.journal.iter().filter_map(|line| line.strip_prefix("start ")) {
        let starts = story.journal.iter().filter(|l| l.strip_prefix("start ") == Some(line)).count();
        ensure!(starts == 1, "{line} was started {starts} times");
    }
    Ok(())
}

fn shut_down(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(world, &CHAIN)?;
    let mark = fleet::mark(world)?;
    let mut client = UnixStream::connect(world.control_socket())?;
    let params = json!({"names": NAMES, "clean": true});
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": "service.restart", "params": params});
    writeln!(client, "{line}")?;
    middle(world, mark)?;
    world.stop_daemon(true)?;
    wait_until(SOON, "no service lives", || world.processes().is_empty())?;
    world.start_daemon()?;
    world.wait_status("e", "running", SOON).map(drop)
}

/// Who is where, and for how long: about once a second.
fn progress(world: &World) -> Result {
    world.start_daemon()?;
    fleet::up(world, &CHAIN)?;
    let client = UnixStream::connect(world.control_socket())?;
    client.set_read_timeout(Some(SOON))?;
    let params = json!({"names": NAMES, "clean": true, "progress": true});
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": "service.restart", "params": params});
    writeln!(&client, "{line}")?;
    let mut told = Vec::new();
    for line in BufReader::new(&client).lines() {
        let message: Value = serde_json::from_str(&line?)?;
        if message.field("id") == 1 {
            all_restarted(message.field("result"), &NAMES)?;
            break;
        }
        told.push(message.field("params").clone());
    }
    let first = told.first().ok_or_else(|| Fault::new("no progress was told"))?;
    let rows = first.field("services");
    ensure!(rows.rows()?.len() == NAMES.len(), "{first}");
    // After a second a is up again, and e, that was stopped first, still waits.
    let (a, e) = (rows.row("name", "a")?, rows.row("name", "e")?);
    ensure!(a.field("settled") == true && a.int("took")? > 0, "{first}");
    ensure!(e.field("settled") == false && e.text("status")? == "starting", "{first}");
    ensure!(e.int("took")? > a.int("took")? && e.int("took")? <= first.int("elapsed")?, "{first}");
    Ok(())
}
