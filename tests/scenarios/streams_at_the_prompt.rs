//! A stream at the prompt: it shows what has come, Ctrl-C ends it at once and leaves the shell usable, the daemon's side ends
//! with its reader, and Nushell's collection of idle plugins leaves it alone while it is read.

use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::terminal::Terminal;
use scenarios::{Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const CTRL_C: &str = "\x03";
/// What Ctrl-C may take, in the middle of several tries.
const AT_ONCE: Duration = Duration::from_millis(100);
const TRIES: usize = 5;
/// How soon the daemon's side ends, on a busy machine: no event comes that would end it.
const SIDE: Duration = Duration::from_secs(1);
/// Nothing else on the screen reads so: what is typed has a plus in it.
const PROMPT: &str = "at-the-prompt";
/// What the line editor writes when a line is done: pasted text is no longer marked.
const EDITED: &str = "\x1b[?2004l";

/// What goes on until somebody ends it.
const ENDLESS: &[&str] = &[
    "proc logs web --follow",
    "proc logs web --follow --raw",
    "proc events --follow",
    "proc events --follow --raw",
    "proc socket-check --watch",
    "proc start slow",
    "proc restart slow",
    "proc top",
];

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("streams_at_the_prompt::ctrl_c_ends_each_at_once", &needs, ctrl_c),
        scenario("streams_at_the_prompt::end_with_their_reader", &needs, readers),
        scenario("streams_at_the_prompt::outlive_plugin_gc", &needs, gc),
        scenario("streams_at_the_prompt::show_what_has_come", &needs, shown),
    ]
}

fn served(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    ask(&world.socket("web", "rpc.sock"), SockType::Stream, "say hello")?;
    let slow = specs::unixd(world, "slow", &["--listen-after", "60000"]);
    world.register(&specs::with(slow, json!({"ready": {"timeout": "2min"}})))?;
    Ok(())
}

/// A prompt that can be told from all else.
fn prompt(world: &World) -> Result<Terminal> {
    let mut terminal = Terminal::run(world, &world.nu_prompt()?, 24, 80)?;
    terminal.wait("a prompt", |screen| screen.contains('>'))?;
    terminal.press("$env.PROMPT_COMMAND = {|| 'at-the-' + 'prompt'}\r")?;
    terminal.wait("its own prompt", |screen| screen.contains(PROMPT))?;
    Ok(terminal)
}

/// Whether it comes to have this written from now on; how long that took.
fn comes(terminal: &Terminal, from: usize, what: &str) -> Result<Duration> {
    let start = Instant::now();
    let written = || terminal.written().get(from..).is_some_and(|new| new.contains(what));
    match wait_until(SOON, what.to_owned(), written) {
        Ok(()) => Ok(start.elapsed()),
        Err(fault) => Err(scenarios::Fault(format!("{fault}; the screen:\n{}", terminal.screen()))),
    }
}

/// How many clients are connected to the daemon: what was accepted has the listener's path (and is of state 3).
fn clients(world: &World) -> Result<usize> {
    let path = world.control_socket().display().to_string();
    let sockets = fs::read_to_string("/proc/net/unix")?;
    let is_client = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(5) == Some(&"03") && fields.get(7) == Some(&path.as_str())
    };
    Ok(sockets.lines().filter(is_client).count())
}

fn ctrl_c(world: &World) -> Result {
    served(world)?;
    for command in ENDLESS {
        let mut terminal = prompt(world)?;
        let mut took = Vec::new();
        for _ in 0..TRIES {
            let from = terminal.written().len();
            terminal.press(&format!("{command}\r"))?;
            // Until here the line editor draws the prompt at each key.
            comes(&terminal, from, EDITED)?;
            if *command == "proc top" {
                // It asks anew each time, and has its own keys.
                terminal.wait("it shows", |screen| screen.contains("q leave") && screen.contains("web"))?;
            } else {
                wait_until(SOON, format!("{command}: the daemon is asked"), || {
                    clients(world).is_ok_and(|now| now > 0)
                })?;
            }
            let from = terminal.written().len();
            terminal.press(CTRL_C)?;
            took.push(comes(&terminal, from, PROMPT)?);
            wait_until(SOON, format!("{command}: the daemon's side ends"), || {
                clients(world).is_ok_and(|now| now == 0)
            })?;
        }
        took.sort();
        world.note(format!("{command}: {took:?}"));
        let middle = took.get(TRIES / 2).copied().unwrap_or_default();
        ensure!(middle < AT_ONCE, "{command}: Ctrl-C took {took:?}");
        terminal.press("'us' + 'able'\r")?;
        terminal.wait("the shell goes on", |screen| screen.contains("usable"))?;
    }
    Ok(())
}

fn readers(world: &World) -> Result {
    served(world)?;
    for stream in [
        "proc events --follow --since 1hr | first 3",
        "proc events --follow --since 1hr --raw | lines | first 3",
        "proc events --follow | first 0",
        "proc socket-check --watch | first",
        "proc socket-check --watch | first 0",
        "proc logs web --follow | first",
        "proc logs web --follow --raw | lines | first",
    ] {
        let mut terminal = prompt(world)?;
        terminal.press(&format!("{stream} | ignore; print ('it has ' + 'ended'); sleep 1min\r"))?;
        terminal.wait("the stream has ended", |screen| screen.contains("it has ended"))?;
        wait_until(SIDE, format!("{stream}: the daemon's side ends while the shell is busy"), || {
            clients(world).is_ok_and(|now| now == 0)
        })?;
        terminal.press(CTRL_C)?;
        terminal.press("'us' + 'able'\r")?;
        terminal.wait("the shell goes on", |screen| screen.contains("usable"))?;
    }
    Ok(())
}

fn gc(world: &World) -> Result {
    served(world)?;
    let plugin = world.bin("nu_plugin_proc").display().to_string();
    let is_there = || world.processes().iter().any(|process| process.command.starts_with(&plugin));
    for stream in ["proc logs web --follow --lines 0", "proc logs web --follow --lines 0 --raw | lines"] {
        let mut terminal = prompt(world)?;
        // A plugin that is idle for so long is ended.
        let config = "$env.config.plugin_gc.default.stop_after = 300ms; proc list | length";
        terminal.press(&format!("{config}\r"))?;
        wait_until(SOON, "an idle plugin is there", is_there)?;
        wait_until(SOON, "and is ended", || !is_there())?;
        terminal.press(&format!("{stream} | first | 'it ' + 'came'\r"))?;
        wait_until(SOON, "it follows", || clients(world).is_ok_and(|now| now > 0))?;
        // Several times longer than it takes to be ended.
        scenarios::wait::holds_for(Duration::from_millis(1500), "it is read still", || {
            Ok(clients(world)? > 0 && is_there())
        })?;
        ask(&world.socket("web", "rpc.sock"), SockType::Stream, "say more")?;
        terminal.wait("the line", |screen| screen.contains("it came"))?;
        wait_until(SOON, "then it is idle, and is ended", || !is_there())?;
    }
    Ok(())
}

/// What has come is seen, though nothing follows it: of the past, and of what happens.
fn shown(world: &World) -> Result {
    served(world)?;
    let socket = world.socket("web", "rpc.sock");
    let says = |words: &str| ask(&socket, SockType::Stream, &format!("say {words}"));
    let mut terminal = prompt(world)?;
    terminal.press("proc logs web --follow\r")?;
    terminal.wait("the past", |screen| screen.contains("hello"))?;
    for words in ["one-thing", "another", "the-third"] {
        says(words)?;
    }
    terminal.wait("all that came in one go", |screen| screen.contains("the-third"))?;
    let mut terminal = prompt(world)?;
    terminal.press("proc socket-check --watch | select service socket verdict\r")?;
    terminal.wait("how it is", |screen| screen.contains("web") && screen.contains("ok"))?;
    fs::remove_file(&socket)?;
    terminal.wait("what became of it", |screen| screen.contains("dangling"))?;
    let mut terminal = prompt(world)?;
    terminal.press("proc events --follow --limit 2 | get kind\r")?;
    terminal.wait("what happened", |screen| screen.contains("state"))?;
    Ok(())
}
