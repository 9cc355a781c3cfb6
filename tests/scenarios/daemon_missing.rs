//! No daemon, a daemon of another version, something else at its socket: commands that only look say so at once.

use libtest_mimic::Trial;
use scenarios::command::run;
use scenarios::{Json, Need, Result, World, ensure, scenario};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(5);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("daemon_missing::no_daemon", &[Need::Daemon, Need::Nushell], no_daemon),
        scenario("daemon_missing::another_version", &[Need::Daemon, Need::Nushell], another_version),
        scenario("daemon_missing::silent", &[Need::Daemon, Need::Nushell], silent),
        scenario("daemon_missing::paths_need_none", &[Need::Daemon, Need::Nushell], paths),
    ]
}

fn no_daemon(world: &World) -> Result {
    for command in ["proc list", "proc status web", "proc socket-check"] {
        world.nu_refuses(command, "proc::no_daemon")?;
    }
    ensure!(world.processes().is_empty(), "looking starts nothing: {:?}", world.processes());
    Ok(())
}

/// A daemon from another time: it knows itself and not one of our methods.
fn another_version(world: &World) -> Result {
    fs::create_dir(world.home())?;
    let listener = UnixListener::bind(world.control_socket())?;
    let socket = world.control_socket().display().to_string();
    let home = world.home().display().to_string();
    let info = json!({"pid": std::process::id(), "version": "99.0.0", "uptime": 1, "services": 0, "socket": socket,
        "home": home, "socket_root": home, "troubles": []});
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(mut writer) = stream.try_clone() else { return };
            for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
                let request: Value = serde_json::from_str(&line).unwrap_or_default();
                let mut answer = json!({"jsonrpc": "2.0", "id": request.field("id")});
                answer[if request.field("method") == "shim.info" { "result" } else { "error" }] =
                    if request.field("method") == "shim.info" {
                        info.clone()
                    } else {
                        json!({"code": -32601, "message": "no such method"})
                    };
                if writeln!(writer, "{answer}").is_err() {
                    break;
                }
            }
        }
    });
    let refused = world.nu_refuses("proc list", "proc::version")?;
    ensure!(refused.mentions("99.0.0"), "it names both versions: {refused}");
    Ok(())
}

/// A listener that never answers: the request ends by itself.
fn silent(world: &World) -> Result {
    fs::create_dir(world.home())?;
    let _listener = UnixListener::bind(world.control_socket())?;
    let start = Instant::now();
    world.nu_refuses("proc list", "proc::timeout")?;
    ensure!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
    Ok(())
}

fn paths(world: &World) -> Result {
    let path = world.file("a.sock");
    let listener = UnixListener::bind(&path)?;
    let rows = world.nu_json(&format!("proc socket-check {}", path.display()))?;
    ensure!(rows.only()?.text("verdict")? == "ok", "{rows}");
    drop(listener);
    let rows = world.nu_json(&format!("proc socket-check {}", path.display()))?;
    ensure!(rows.only()?.text("verdict")? == "stale", "{rows}");
    let lost = world.file("lost.sock");
    let _lost = UnixListener::bind(&lost)?;
    fs::remove_file(&lost)?;
    let rows = world.nu_json("proc socket-check --system")?;
    let row = rows.row("path", &lost.display().to_string())?;
    ensure!(
        row.text("verdict")? == "dangling" && row.pid("pid")? == i32::try_from(std::process::id())?,
        "{row}"
    );

    for (arguments, code) in [(vec!["check"], 2), (vec!["check", "--no-such-flag"], 2)] {
        let mut command = world.command(world.bin("shimd"));
        let ran = run(
            {
                command.args(&arguments);
                command
            },
            SOON,
        )?;
        ensure!(ran.code == Some(code), "shimd {arguments:?}:\n{ran}");
    }
    Ok(())
}
