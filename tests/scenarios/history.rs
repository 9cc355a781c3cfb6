//! What happened and who did it: told at once to those who follow, kept for those who ask later, also over the daemon's
//! death, and there for SQL.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, scenario_as, specs, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("history::followed_in_a_terminal", &needs, followed),
        scenario("history::watched_and_ended_by_its_reader", &needs, watched),
        scenario("history::told_once_over_a_daemons_death", &needs, over_a_death),
        scenario("history::in_sql", &needs, in_sql),
        scenario("history::of_names_and_times", &needs, narrowed),
        scenario("history::of_sockets_no_longer_declared", &needs, undeclared),
        scenario_as("nobody", "history::without_a_culprit_and_why", &needs, without_culprit),
    ]
}

/// A Nushell whose output comes line by line.
fn following(world: &World, script: &str) -> Result<(Child, Receiver<String>)> {
    let mut command = world.nu_command(script)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (sender, lines) = channel();
    let output = child.stdout.take();
    std::thread::spawn(move || {
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(|l| l.ok())
        {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok((child, lines))
}

fn next(lines: &Receiver<String>, part: &str) -> Result<String> {
    let until = Instant::now() + SOON;
    loop {
        let line = lines.recv_timeout(until.saturating_duration_since(Instant::now()))?;
        if line.contains(part) {
            return Ok(line);
        }
    }
}

fn followed(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let (mut nu, lines) = following(world, "proc events web --follow --since 1min --raw")?;
    next(&lines, "starting -> running")?;
    let rm = world.hand("rm", &[world.socket("web", "rpc.sock")])?;
    let told = next(&lines, "-> dangling")?;
    ensure!(told.contains("rpc.sock ok -> dangling") && told.contains("removed"), "{told}");
    ensure!(!world.names_culprits() || told.contains(&rm.to_string()), "by {rm}: {told}");
    next(&lines, "running -> failed")?;
    nu.kill()?;
    nu.wait()?;
    Ok(())
}

fn watched(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let script = "proc socket-check web --watch | first 2 | each {|row| print $'($row.verdict) ($row.service)'}; print done";
    let (mut nu, lines) = following(world, script)?;
    next(&lines, "ok web")?;
    world.hand("rm", &[world.socket("web", "rpc.sock")])?;
    next(&lines, "dangling web")?;
    next(&lines, "done")?;
    wait_until(SOON, "Nushell ends by itself", || nu.try_wait().is_ok_and(|ended| ended.is_some()))
}

/// What is not declared any more has no verdict that lasts: neither of a service that is registered anew, nor by another spec.
fn undeclared(world: &World) -> Result {
    world.start_daemon()?;
    let spec = |socket: &str| {
        let exec = [world.unixd(), format!("{{socket:{socket}}}")];
        json!({"name": "web", "exec": exec, "sockets": [socket]})
    };
    let spells = || -> Result<Vec<(String, i64)>> {
        let rows = world.nu_json("proc history web | where verdict == ok | select socket lasted")?;
        let row =
            |row: &Value| Ok((row.text("socket")?.to_owned(), row.field("lasted").as_i64().unwrap_or(-1)));
        rows.rows()?.iter().map(row).collect()
    };
    world.up(&spec("a.sock"))?;
    world.register(&spec("b.sock"))?;
    world.nu_json("proc restart --clean web")?;
    world.nu_json("proc stop web")?;
    world.nu_json("proc unregister web")?;
    world.up(&spec("c.sock"))?;
    let (before, after) = (spells()?, spells()?);
    let lasts: Vec<bool> = before.iter().zip(&after).map(|(before, after)| before.1 < after.1).collect();
    let sockets: Vec<&str> = after.iter().map(|(socket, _)| socket.as_str()).collect();
    ensure!(
        sockets == ["a.sock", "b.sock", "c.sock"] && lasts == [false, false, true],
        "{before:?}, {after:?}"
    );
    let told = world
        .nu_json("proc events web | where kind == verdict and detail.reason? == 'no longer declared'")?;
    ensure!(told.rows()?.len() == 2, "{told}");
    Ok(())
}

fn verdicts(world: &World) -> Result<Vec<String>> {
    let events = world.rpc("event.list", json!({"name": "web", "kinds": ["verdict"]}))?;
    events.rows()?.iter().map(|row| Ok(row.field("detail").text("verdict")?.to_owned())).collect()
}

fn over_a_death(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    world.hand("rm", &[world.socket("web", "rpc.sock")])?;
    world.wait_status("web", "failed", SOON)?;
    let row = |world: &World| -> Result<Value> {
        Ok(world.rpc("socket.check", json!({"name": "web"}))?.only()?.clone())
    };
    let before = row(world)?;
    // Written in the background: the daemon is killed once it is in the store.
    wait_until(SOON, "the event is kept", || {
        verdicts(world).is_ok_and(|all| all.ends_with(&["dangling".into()]))
    })?;
    let kept = verdicts(world)?;
    world.kill_daemon()?;
    world.start_daemon()?;
    world.wait_status("web", "failed", SOON)?;
    let after = row(world)?;
    ensure!(verdicts(world)? == kept, "nothing changed, nothing is told: {:?}, {kept:?}", verdicts(world)?);
    for field in ["verdict", "since", "culprit"] {
        ensure!(after.field(field) == before.field(field), "{field}: {before}, {after}");
    }
    let ids = world.rpc("event.list", json!({}))?;
    let ids: Vec<i64> = ids.rows()?.iter().map(|row| row.int("id")).collect::<Result<_>>()?;
    ensure!(ids.is_sorted_by(|a, b| a < b), "each id once, in order: {ids:?}");
    Ok(())
}

fn in_sql(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    world.hand("rm", &[world.socket("web", "rpc.sock")])?;
    world.wait_status("web", "failed", SOON)?;
    let database = world.home().join("state.db").display().to_string();
    let query =
        "select service, verdict, reason, culprit_name, lasted_ms from history where verdict = 'dangling'";
    let found = wait_until(SOON, "the spell is in the view", || {
        let rows = world.nu_json(&format!("open {database} | query db \"{query}\"")).ok()?;
        rows.only().ok().cloned()
    })?;
    ensure!(found.text("service")? == "web" && found.text("reason")?.contains("removed"), "{found}");
    ensure!(!world.names_culprits() || found.text("culprit_name")? == "rm", "{found}");
    ensure!(found.field("lasted_ms").is_null(), "it lasts: {found}");
    Ok(())
}

fn narrowed(world: &World) -> Result {
    world.start_daemon()?;
    for name in ["one", "two"] {
        world.up(&specs::unixd(world, name, &[]))?;
    }
    let services = world.nu_json("proc events one | get service | uniq")?;
    ensure!(services == json!(["one"]), "{services}");
    let none = world.nu_json("sleep 20ms; proc events --since 1ms")?;
    ensure!(none == json!([]), "nothing in the last millisecond: {none}");
    let last = world.nu_json("proc events --limit 1")?;
    ensure!(last.rows()?.len() == 1, "{last}");
    let typed = world
        .nu_json("proc events | first | {time: ($in.time | describe), detail: ($in.detail | describe)}")?;
    ensure!(typed.text("time")? == "datetime" && typed.text("detail")?.starts_with("record"), "{typed}");
    Ok(())
}

fn without_culprit(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    world.hand("rm", &[world.socket("web", "rpc.sock")])?;
    world.wait_status("web", "failed", SOON)?;
    let checked = world.nu_json("proc socket-check web")?;
    let row = checked.only()?;
    ensure!(row.field("culprit").is_null() && row.text("reason")?.starts_with("removed: "), "{row}");
    let doctor = world.nu_json("proc doctor")?;
    let why = doctor.row("check", "fanotify")?;
    ensure!(why.field("ok") == false && why.text("help")?.contains("CAP_SYS_ADMIN"), "{why}");
    ensure!(why.text("detail")?.contains("culprit"), "{why}");
    Ok(())
}
