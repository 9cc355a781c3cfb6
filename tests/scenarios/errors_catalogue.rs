//! Each code of docs/errors.md is provoked in the real Nushell, and no other is known: its label, its help, its page.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::fault::Context;
use scenarios::terminal::Terminal;
use scenarios::{
    Json, Need, NuFailure, Result, World, ensure, processes, scenario, scenario_as, specs, wait_until,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// As many clients as a daemon takes.
const CLIENTS: usize = 256;
/// Where the docs are.
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// How a code is provoked.
enum Way {
    /// By this script, with no daemon.
    Alone(&'static str),
    /// By this script, with a daemon that looks after `web`.
    Served(&'static str),
    /// With a daemon that is stopped.
    Hangs,
    /// With a daemon that has all the clients it takes.
    Crowded,
    /// With Ctrl-C, in a terminal.
    CtrlC,
    /// In a home of root's, as another user: a scenario of its own.
    AsNobody,
    /// By a stand-in for the daemon that says so: why not by a real one.
    Told(&'static str),
    /// By a stand-in that says it is another version.
    AnotherVersion,
}

const CODES: &[(&str, Way)] = &[
    ("no_daemon", Way::Alone("proc list")),
    ("bad_home", Way::Alone("$env.SHIMD_HOME = 'here'; proc list")),
    ("bad_config", Way::Alone("$env.config.plugins.proc.deadline = 5; proc list")),
    ("unknown_service", Way::Served("proc status nope")),
    ("bad_spec", Way::Served("proc register {name: 'a/b', exec: [sleep 1000]}")),
    ("bad_input", Way::Served("5 | proc start")),
    ("failed", Way::Served("proc register {name: off, exec: [false]}; proc start off --fail")),
    ("timeout", Way::Hangs),
    ("denied", Way::AsNobody),
    ("version", Way::AnotherVersion),
    ("not_gapless", Way::Served("proc restart --gapless web")),
    ("busy", Way::Crowded),
    (
        "too_large",
        Way::Served(
            "1..1100 | each {|n| {name: $'n($n)', exec: [sleep ('' | fill --width 1000 --character 1)]} } | proc register",
        ),
    ),
    ("store", Way::Told("a disk that fails takes mounts: disk_fails_under_the_home has one")),
    ("internal", Way::Told("a fault of the daemon that is known is mended")),
    ("cancelled", Way::CtrlC),
];

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("errors_catalogue::is_the_docs", &[], is_the_docs),
        scenario("errors_catalogue::each_is_provoked", &needs, each),
        scenario("errors_catalogue::with_a_stand_in", &needs, told),
        scenario("errors_catalogue::ctrl_c", &needs, ctrl_c),
        scenario_as("nobody", "errors_catalogue::as_nobody", &[Need::Daemon, Need::Nushell], as_nobody),
    ]
}

/// The rows of the docs' first table.
fn is_the_docs(_: &World) -> Result {
    let docs = fs::read_to_string(Path::new(SOURCE).join("docs/errors.md"))?;
    let documented: BTreeSet<&str> = docs
        .lines()
        .filter_map(|line| line.strip_prefix("| `proc::")?.split_once('`'))
        .map(|(code, _)| code)
        .collect();
    let provoked: BTreeSet<&str> = CODES.iter().map(|(code, _)| *code).collect();
    ensure!(
        documented == provoked,
        "only in docs/errors.md: {:?}; only provoked here: {:?}",
        documented.difference(&provoked),
        provoked.difference(&documented)
    );
    for (code, way) in CODES {
        let Way::Told(why) = way else { continue };
        ensure!(!why.is_empty(), "{code}: why not by a real daemon?");
    }
    Ok(())
}

/// What every error has.
fn whole(code: &str, error: &NuFailure) -> Result {
    ensure!(error.code == format!("proc::{code}"), "not proc::{code}: {error}");
    ensure!(!error.msg.is_empty() && !error.help.is_empty(), "{code}: {error}");
    ensure!(error.labels.first().is_some_and(|label| !label.is_empty()), "{code}: no label: {error}");
    let page = error.url.split_once("docs/").context(format!("{code}: no page: {}", error.url))?.1;
    ensure!(Path::new(SOURCE).join("docs").join(page).is_file(), "{code}: no such page: {}", error.url);
    // The very next thing to do: a command, or what to write instead.
    let doable = ["proc ", "$env.", "give ", "write ", "name ", "try again", "register fewer"];
    ensure!(
        doable.iter().any(|part| error.help.contains(part)),
        "{code}: what is to be done? {}",
        error.help
    );
    Ok(())
}

fn each(world: &World) -> Result {
    let refused = |code: &str, script: &str| whole(code, &world.nu_error(script)?);
    for (code, way) in CODES {
        if let Way::Alone(script) = way {
            refused(code, script)?;
        }
    }
    let daemon = world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    for (code, way) in CODES {
        match way {
            Way::Served(script) => refused(code, script)?,
            Way::Hangs => {
                processes::signal(daemon, Signal::SIGSTOP);
                wait_until(SOON, "it is stopped", || processes::stopped(daemon))?;
                let hangs = refused(code, "$env.config.plugins.proc.deadline = 300ms; proc list");
                processes::signal(daemon, Signal::SIGCONT);
                hangs?;
            }
            Way::Crowded => {
                let crowd: Vec<UnixStream> = (0..CLIENTS)
                    .map(|_| {
                        let mut client = UnixStream::connect(world.control_socket())?;
                        // Under way, so that no seat is taken from it.
                        client.write_all(b"{")?;
                        Ok(client)
                    })
                    .collect::<Result<_>>()?;
                refused(code, "proc list")?;
                drop(crowd);
            }
            Way::Alone(_) | Way::Told(_) | Way::AnotherVersion | Way::CtrlC | Way::AsNobody => {}
        }
    }
    Ok(())
}

/// A stand-in that knows itself, and answers all else with an error of this kind.
fn stand_in(world: &World, version: &str, kind: &str) -> Result<std::path::PathBuf> {
    let home = world.file(kind);
    fs::create_dir(&home)?;
    let listener = UnixListener::bind(home.join("rpc.sock"))?;
    let info = json!({"pid": 1, "version": version, "uptime": 1, "services": 0, "socket": "", "home": "", "socket_root": "",
        "troubles": []});
    let error =
        json!({"code": -32000, "message": "told so", "data": {"kind": kind, "help": "try again: proc list"}});
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(mut writer) = stream.try_clone() else { return };
            for line in BufReader::new(stream).lines().map_while(std::result::Result::ok) {
                let request: Value = serde_json::from_str(&line).unwrap_or_default();
                let knows = request.field("method") == "shim.info";
                let (part, answer) = if knows { ("result", &info) } else { ("error", &error) };
                if writeln!(writer, "{}", json!({"jsonrpc": "2.0", "id": request.field("id"), part: answer}))
                    .is_err()
                {
                    break;
                }
            }
        }
    });
    Ok(home)
}

fn told(world: &World) -> Result {
    let version = world.nu_json("plugin list | where name == proc | get 0.version")?;
    let version = version.as_str().context("no version")?;
    for (code, way) in CODES {
        let version = match way {
            Way::Told(_) => version,
            Way::AnotherVersion => "99.0.0",
            _ => continue,
        };
        let home = stand_in(world, version, code)?;
        let script = format!("$env.SHIMD_HOME = '{}'; proc list", home.display());
        whole(code, &world.nu_error(&script)?)?;
    }
    Ok(())
}

fn ctrl_c(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &["--ignore-term"]))?;
    let mut terminal = Terminal::nu(world, "proc stop web", 24, 80)?;
    terminal.wait("it waits", |screen| screen.contains("web stopping"))?;
    terminal.press("\x03")?;
    let screen = terminal.wait("an answer", |screen| screen.contains("proc::cancelled"))?;
    ensure!(screen.contains("stopped waiting here") && screen.contains("proc list"), "{screen}");
    ensure!(!terminal.ended()?.success() && processes::alive(daemon), "an error");
    Ok(())
}

fn as_nobody(world: &World) -> Result {
    // Root's own folder lets nobody in.
    whole("denied", &world.nu_error("$env.SHIMD_HOME = '/root/nowhere'; proc list")?)
}
