//! What each command gives is of the types that one would expect, and what matters of it is seen in 80 columns.

use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::terminal::Terminal;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

const SOCKET: &str = "service: string, socket: string, path: string, verdict: string, reason: string, pid: int, \
    inode: int, pending: int, backlog: int, since: datetime";
const SPEC: &str = "settle: duration, log: record<max_size: filesize, keep: int>";

/// A command, and what its type holds.
const TYPES: &[(&str, &[&str])] = &[
    ("proc register {name: more, exec: [sleep 1000]}", &["table<name: string, change: string>"]),
    (
        "proc list web",
        &[
            "table<name: string, status: string, health_reason: string, pid: int, uptime: duration, restarts: int, \
           sockets_ok: int, sockets: int>",
        ],
    ),
    (
        "proc status web",
        &[
            "record<name: string, status: string, health_reason: string, pid: int, uptime: duration",
            SOCKET,
            SPEC,
            "instance: record<generation: int, pid: int, started: datetime, boot_id: string",
            "pids: list<int>>",
        ],
    ),
    ("proc socket-check web", &["table<", SOCKET, "relinked: int>"]),
    ("proc events", &["table<time: datetime, service: string, kind: string, detail: record"]),
    ("proc events web | where detail.lasted? != null | get 0.detail.lasted", &["duration"]),
    (
        "proc events web | where kind == verdict | get 0.detail",
        &["record<socket: string, path: string, verdict: string"],
    ),
    (
        "proc history web",
        &["table<socket: string, verdict: string, from: datetime, lasted: duration, reason: "],
    ),
    ("proc history web --chart", &["string"]),
    ("proc logs web | collect", &["table<time: datetime, stream: string, line: string>"]),
    ("proc doctor", &["table<check: string, ok: bool, detail: string, help: "]),
    (
        "proc shim status",
        &["record<pid: int, version: string, uptime: duration, services: int, socket: string, home: string"],
    ),
    ("proc heal web", &["table<path: string, outcome: string, reason: "]),
    (
        "proc restart web --clean",
        &[
            "table<name: string, outcome: string, health_reason: nothing, old_pid: int, new_pid: int, stopped_in: \
             duration, ready_in: duration, took: duration, cleaned: list<",
            "sockets: table<service: string, socket: string, path: string, verdict: string",
        ],
    ),
    (
        "proc start web",
        &["table<name: string, status: string, health_reason: nothing, pid: int, took: duration>"],
    ),
    (
        "proc stop web",
        &["table<name: string, status: string, health_reason: nothing, pid: nothing, took: duration>"],
    ),
    ("proc reset-failed web", &["table<name: string, status: string>"]),
    ("proc unregister more", &["table<name: string, change: string>"]),
    ("proc shim stop", &["record<pid: int, version: string, uptime: duration, services: int"]),
    ("proc shim start", &["record<pid: int"]),
    ("proc shim restart", &["record<pid: int"]),
];

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("values::types", &needs, types),
        scenario("values::keys_in_80_columns", &needs, columns),
        scenario("values::reads_as_it_works", &needs, reads),
    ]
}

/// A service that writes a line and has lost its socket.
fn lost(world: &World) -> Result {
    world.start_daemon()?;
    let fields = json!({ "settle": 200_000_000, "log": { "max_size": 1_000_000, "keep": 2 } });
    world.up(&specs::with(specs::unixd(world, "web", &[]), fields))?;
    ask(&world.socket("web", "rpc.sock"), SockType::Stream, "say hello")?;
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    world.wait_status("web", "failed", SOON)?;
    Ok(())
}

fn types(world: &World) -> Result {
    lost(world)?;
    for (command, parts) in TYPES {
        let ran = world.nu(&format!("{command} | describe"))?.success()?;
        for part in *parts {
            ensure!(ran.stdout.contains(part), "{command} is not {part}, but {}", ran.stdout);
        }
    }
    // One service, one socket, one folder: what counts them reads well.
    let odd = world
        .nu_json("proc doctor | get detail | where $it =~ '\\b1 (sockets|folders|services|events)\\b'")?;
    ensure!(odd == json!([]), "{odd}");
    Ok(())
}

fn columns(world: &World) -> Result {
    lost(world)?;
    for (command, seen) in [
        ("proc list", &["name", "status", "health_reason", "web", "failed", "declared socket missing"][..]),
        ("proc socket-check", &["service", "socket", "verdict", "web", "rpc.sock", "dangling"]),
        ("proc events --limit 4", &["time", "service", "kind", "detail", "web", "verdict"]),
        ("proc history web | first", &["socket", "verdict", "from", "lasted", "rpc.sock", "absent"]),
        ("proc logs web", &["time", "stream", "line", "hello"]),
        ("proc doctor | first 4", &["check", "ok", "detail", "true"]),
        ("proc restart web --clean", &["name", "outcome", "health_reason", "web", "restarted"]),
        ("proc start web", &["name", "status", "pid", "took", "web", "running"]),
    ] {
        let mut terminal = Terminal::nu(world, command, 24, 80)?;
        ensure!(terminal.ended()?.success(), "{command}: {}", terminal.screen());
        for part in seen {
            terminal.wait(&format!("{command}: {part}"), |screen| screen.contains(part))?;
        }
        world.note(format!("{command}\n{}", terminal.screen()));
    }
    Ok(())
}

fn reads(world: &World) -> Result {
    lost(world)?;
    world.up(&specs::unixd(world, "db", &[]))?;
    let rows = world.nu_json("proc list | where status == failed | proc restart --clean")?;
    let row = rows.only()?;
    ensure!(row.text("name")? == "web" && row.text("outcome")? == "restarted", "{rows}");
    let rows = world.nu_json("proc list | where status == failed | proc restart --clean")?;
    ensure!(rows == json!([]), "none is left: {rows}");
    let longest = "proc list | where $it.uptime < 1hr and $it.sockets_ok == $it.sockets | sort-by uptime | get name | length";
    ensure!(world.nu_json(longest)? == 2, "durations compare");
    let late = "proc events | where time > (date now) - 1hr | is-not-empty";
    ensure!(world.nu_json(late)? == true, "times compare");
    Ok(())
}
