//! What comes through a pipeline and is not what a command takes; readers that go; names given twice; a narrow terminal.

use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::terminal::Terminal;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Commands that take names or rows.
const TAKERS: &[&str] = &[
    "list",
    "status",
    "start",
    "stop",
    "restart --clean",
    "socket-check",
    "heal",
    "events",
    "history",
    "logs",
    "reset-failed",
    "unregister",
    "register",
];

/// What none of them takes.
const VALUES: &[&str] = &[
    "5",
    "1.5",
    "true",
    "0x[00 ff]",
    "1sec",
    "1kb",
    "(date now)",
    "{|| 1}",
    "1..3",
    "[5]",
    "[[web]] | append 5",
    "[[size]; [1]]",
    "[[name]; [5]]",
    "[[name]; [null]]",
    "[[name]; [[web]]]",
    "{size: 1}",
    "{}",
    "''",
    "[web '']",
];

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("bad_input_pipeline::wrong_types", &needs, wrong_types),
        scenario("bad_input_pipeline::empty_tables", &needs, empty),
        scenario("bad_input_pipeline::two_names_for_one", &needs, twice),
        scenario("bad_input_pipeline::closed_pipes", &needs, closed),
        scenario("bad_input_pipeline::bytes_that_are_no_text", &needs, bytes),
        scenario("bad_input_pipeline::the_daemon_ends_in_mid_stream", &needs, ends),
        scenario("bad_input_pipeline::inside_each", &needs, each),
        scenario("bad_input_pipeline::twenty_columns", &needs, narrow),
    ]
}

fn served(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    world.up(&specs::unixd(world, "db", &[]))?;
    Ok(())
}

/// All of them with all of these, in one Nushell.
fn wrong_types(world: &World) -> Result {
    served(world)?;
    let commands: Vec<String> =
        TAKERS.iter().map(|taker| format!("{{name: '{taker}', run: {{|| $in | proc {taker} }}}}")).collect();
    let values: Vec<String> =
        VALUES.iter().map(|value| format!("{{shown: \"{value}\", value: {{|| {value} }}}}")).collect();
    let script = format!(
        "let values = [{}]; [{}] | each {{|command| $values | each {{|given| \
           let value = do $given.value; \
           let error = try {{ $value | do $command.run | collect; null }} catch {{|e| $e.details? }}; \
           {{command: $command.name, value: $given.shown, code: $error.code?, help: $error.help?, \
             label: ($error.labels? | default [] | get 0?.text?)}} }} }} | flatten",
        values.join(" "),
        commands.join(" ")
    );
    let rows = world.nu_json(&script)?;
    let rows = rows.as_array().cloned().unwrap_or_default();
    ensure!(rows.len() == TAKERS.len() * VALUES.len(), "{}", rows.len());
    for row in rows {
        // A record is a spec, though a bad one.
        let code = row.field("code");
        let is_spec = row.field("command") == "register" && code == "proc::bad_spec";
        ensure!(code == "proc::bad_input" || is_spec, "{row}");
        ensure!(!row.text("help")?.is_empty() && !row.text("label")?.is_empty(), "{row}");
    }
    let statuses = world.nu_json("proc list | get status")?;
    ensure!(statuses == json!(["running", "running"]), "nothing was done: {statuses}");
    // What takes nothing is refused by Nushell itself, before it runs.
    let ran = world.nu("5 | proc doctor")?;
    ensure!(ran.stderr.contains("input_type_mismatch"), "{ran}");
    Ok(())
}

/// An empty table names no service: nothing is done, and the answer is empty. What shows one service says so.
fn empty(world: &World) -> Result {
    served(world)?;
    for taker in TAKERS {
        let script = format!("[] | proc {taker}");
        if ["status", "history", "logs"].contains(taker) {
            let refused = world.nu_refuses(&script, "proc::bad_input")?;
            ensure!(refused.labels == ["none is named"], "{refused}");
        } else {
            let rows = world.nu_json(&script)?;
            ensure!(rows == json!([]), "{script}: {rows}");
        }
    }
    let rows = world.nu_json("proc list | where status == backoff | proc restart --clean --fail")?;
    ensure!(rows == json!([]), "{rows}");
    let statuses = world.nu_json("proc list | get status")?;
    ensure!(statuses == json!(["running", "running"]), "nothing was done: {statuses}");
    Ok(())
}

fn twice(world: &World) -> Result {
    served(world)?;
    for script in [
        "proc restart web web",
        "proc restart web --clean web [web web]",
        "[web web] | proc restart",
        "proc list web | append (proc list web) | proc restart",
        "proc socket-check web web",
        "proc start web web",
        "proc list web web",
    ] {
        let rows = world.nu_json(script)?;
        ensure!(rows.as_array().is_some_and(|rows| rows.len() == 1), "{script}: {rows}");
    }
    // Of two specs of one name, which is meant?
    let spec = "{name: twin, exec: [sleep 1000]}";
    let refused = world.nu_refuses(&format!("[{spec} {spec}] | proc register"), "proc::bad_spec")?;
    ensure!(refused.mentions("two specs are called twin"), "{refused}");
    world.nu_refuses("proc status twin", "proc::unknown_service")?;
    Ok(())
}

fn closed(world: &World) -> Result {
    served(world)?;
    for (script, expected) in [
        ("proc events --follow --since 1hr | first 1 | length", json!(1)),
        ("proc events --follow --since 1hr --raw | lines | first 2 | length", json!(2)),
        ("proc socket-check --watch | first | get verdict", json!("ok")),
        ("proc list | ignore", Value::Null),
        ("proc restart web | ignore", Value::Null),
        ("proc list | first 0", json!([])),
    ] {
        let answer = world.nu_json(script)?;
        ensure!(answer == expected, "{script}: {answer}");
    }
    // A program that stops reading.
    let ran = world.nu("proc events --since 1hr --raw | ^head -n 1")?;
    ensure!(ran.stdout.lines().count() == 1 && !ran.stderr.contains("panicked"), "{ran}");
    let ran = world.nu("proc events --follow --since 1hr --raw | ^head -n 1")?;
    ensure!(ran.stdout.lines().count() == 1 && !ran.stderr.contains("panicked"), "{ran}");
    Ok(())
}

fn bytes(world: &World) -> Result {
    world.start_daemon()?;
    let script = "printf 'caf\\351 \\377\\n'; printf '\\033[2J\\n'; exec \"$0\" \"$1\"";
    let mut spec = specs::unixd(world, "web", &[]);
    let exec: Vec<Value> = spec.get("exec").and_then(Value::as_array).cloned().unwrap_or_default();
    spec["exec"] = json!(["/bin/sh", "-c", script, exec.first(), exec.get(1)]);
    world.up(&spec)?;
    let lines = world.nu_json("proc logs web | get line")?;
    ensure!(lines == json!(["caf\u{fffd} \u{fffd}", "\u{1b}[2J"]), "replaced in a row: {lines}");
    let raw = world.nu_json("proc logs web --raw | into binary | take 7 | encode hex")?;
    ensure!(raw == "636166E920FF0A", "as they were written: {raw}");
    Ok(())
}

fn ends(world: &World) -> Result {
    for stream in ["proc events --follow", "proc logs web --follow", "proc socket-check --watch"] {
        served(world)?;
        let done = world.file("begun");
        let _ = fs::remove_file(&done);
        // The row that it ends in is an error with a code, and those before it are there.
        let script = format!(
            "try {{ let rows = ({stream} | each {{|row| touch '{}'; $row }}); $rows }} catch {{|e| \
             print $e.details.code $e.details.help }}",
            done.display()
        );
        let mut terminal = Terminal::nu(world, &script, 24, 120)?;
        // Something to tell.
        wait_until(SOON, "a row", || {
            let _ = ask(&world.socket("web", "rpc.sock"), SockType::Stream, "say x");
            let _ = world.nu("proc restart db");
            done.exists()
        })?;
        world.kill_daemon()?;
        let screen = terminal.wait(stream, |screen| screen.contains("proc::no_daemon"))?;
        ensure!(screen.contains("proc shim start"), "{screen}");
        ensure!(terminal.ended()?.success(), "{}", terminal.screen());
    }
    // The services live on: somebody has to end them.
    world.start_daemon()?;
    Ok(())
}

fn each(world: &World) -> Result {
    served(world)?;
    for (script, expected) in [
        ("proc list | each {|row| proc status $row.name | get status }", json!(["running", "running"])),
        ("[web db] | each {|name| proc restart $name | get 0.outcome }", json!(["restarted", "restarted"])),
        ("proc list | each { proc list | get 0.name }", json!(["db", "web"])),
        ("1..2 | each { null | proc list | length }", json!([2, 2])),
        ("1..2 | each {|n| proc list web | length }", json!([1, 1])),
        ("1..2 | each { proc shim status | get services }", json!([2, 2])),
        ("1..20 | par-each {|n| proc socket-check web | get 0.verdict } | uniq", json!(["ok"])),
        ("[web db] | par-each {|name| proc restart $name | get 0.outcome } | uniq", json!(["restarted"])),
        (
            "[web db] | par-each { proc events --since 1hr | get service | uniq | first } | sort",
            json!(["db", "web"]),
        ),
    ] {
        let answer = world.nu_json(script)?;
        ensure!(answer == expected, "{script}: {answer}");
    }
    // Nothing tells it from the end of a pipe: so it says what to do.
    let ran = world.nu("1..2 | each { proc list }")?;
    ensure!(ran.stderr.contains("inside each") && ran.stderr.contains("null |"), "{ran}");
    Ok(())
}

fn narrow(world: &World) -> Result {
    served(world)?;
    for command in [
        "proc list",
        "proc socket-check",
        "proc status web",
        "proc restart web",
        "proc events",
        "proc events --raw",
        "proc history web --chart",
        "proc doctor",
        "proc shim status",
        "proc",
        "help proc restart",
    ] {
        let mut terminal = Terminal::nu(world, command, 24, 20)?;
        let ended = terminal.ended()?;
        terminal.wait(command, |screen| !screen.trim().is_empty())?;
        let screen = terminal.screen();
        ensure!(ended.success() && !screen.contains("panicked"), "{command}: {screen}");
    }
    // An error is told in full.
    let mut terminal = Terminal::nu(world, "proc status nope", 24, 20)?;
    terminal.wait("its code", |screen| screen.contains("unknown_service"))?;
    ensure!(!terminal.ended()?.success(), "an error");
    Ok(())
}
