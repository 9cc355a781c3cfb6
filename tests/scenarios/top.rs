//! `proc top` in a terminal: what it shows, what its keys do, and how it leaves.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::terminal::Terminal;
use scenarios::{Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const CTRL_C: &str = "\x03";
/// What leaving may take, on a busy machine: less than a daemon's deadline.
const LEAVES: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("top::shows_and_does", &needs, shows),
        scenario("top::leaves_at_ctrl_c", &needs, leaves),
        scenario("top::beneath_another_shell", &[&needs[..], &[Need::Program("bash")]].concat(), beneath),
        scenario("top::any_size", &needs, sizes),
        scenario("top::resized_while_it_shows", &needs, resized),
        scenario("top::outlives_the_daemon", &needs, outlives),
        scenario("top::leaves_a_daemon_that_hangs", &needs, hangs),
        scenario("top::needs_a_terminal_and_a_daemon", &needs, refused),
    ]
}

fn open(world: &World, rows: u16, columns: u16) -> Result<Terminal> {
    Terminal::nu(world, "proc top", rows, columns)
}

fn shows(world: &World) -> Result {
    world.start_daemon()?;
    let web = world.up(&specs::unixd(world, "web", &[]))?;
    world.up(&specs::unixd(world, "db", &[]))?;
    let mut terminal = open(world, 24, 80)?;
    let screen = terminal.wait("both run", |screen| screen.contains("2 running"))?;
    world.note(&screen);
    ensure!(
        screen.lines().count() <= 24 && screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
    ensure!(screen.contains("▄") && screen.contains("q leave"), "{screen}");

    // What is lost is seen, with its reason, and restarted by a key.
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    terminal.wait("one is lost", |screen| screen.contains("1 failed") && screen.contains('█'))?;
    terminal.press("j")?;
    let screen = terminal.wait("its reason", |screen| screen.contains("declared socket missing on disk"))?;
    ensure!(screen.contains("dangling"), "{screen}");
    terminal.press("r")?;
    terminal.wait("a question", |screen| screen.contains("restart --clean web? y/n"))?;
    terminal.press("n")?;
    terminal.wait("no", |screen| !screen.contains("y/n"))?;
    ensure!(processes::alive(web), "nothing was done");
    terminal.press("ry")?;
    terminal.wait("an answer", |screen| screen.contains("restart --clean web: restarted"))?;
    terminal.wait("both run again", |screen| screen.contains("2 running"))?;
    ensure!(!processes::alive(web), "it was restarted");
    terminal.press("xy")?;
    terminal.wait("stopped", |screen| {
        screen.contains("1 running  1 other") && screen.contains("rpc.sock stale")
    })?;
    let colour = terminal.colour_of("stale")?;
    ensure!(colour != "Idx(1)", "what is left of a service that nobody wants up is not red: {colour}");
    terminal.press("q")?;
    ensure!(terminal.ended()?.success() && terminal.is_clean()?, "a clean end");
    Ok(())
}

fn leaves(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let mut terminal = open(world, 24, 80)?;
    terminal.wait("it shows", |screen| screen.contains("1 running"))?;
    let start = Instant::now();
    terminal.press(CTRL_C)?;
    terminal.ended()?;
    let took = start.elapsed();
    ensure!(terminal.is_clean()?, "the terminal is as it was");
    world.note(format!("ended {took:?} after Ctrl-C"));
    wait_until(SOON, "no plugin is left", || {
        !world.processes().iter().any(|process| process.command.contains("nu_plugin_proc"))
    })
}

/// A shell with jobs that runs `nu -c 'proc top'` has it end, not stop: Nushell takes the terminal back.
fn beneath(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let inner = world.nu_command("proc top")?;
    for key in ["q", CTRL_C] {
        let mut shell = world.command("bash");
        shell.args(["-mc", "\"$@\"; echo it gave $?", "bash"]);
        shell.arg(inner.get_program()).args(inner.get_args());
        let mut terminal = Terminal::run(world, &shell, 24, 80)?;
        terminal.wait("it shows", |screen| screen.contains("1 running"))?;
        terminal.press(key)?;
        terminal.wait("its end", |screen| screen.contains("it gave 0"))?;
        ensure!(terminal.is_clean()?, "the terminal is as it was");
        ensure!(!terminal.written().contains("ERROR"), "{}", terminal.screen());
    }
    Ok(())
}

fn sizes(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    for (rows, columns) in [(24, 20), (5, 80), (2, 10), (60, 200)] {
        let mut terminal = open(world, rows, columns)?;
        terminal.wait("it shows", |screen| screen.contains("proc top"))?;
        terminal.press("q")?;
        ensure!(terminal.ended()?.success() && terminal.is_clean()?, "{rows} by {columns}");
    }
    Ok(())
}

fn resized(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let mut terminal = open(world, 24, 80)?;
    terminal.wait("it shows", |screen| screen.contains("sockets uptime") && screen.contains("x stop"))?;
    for (rows, columns) in [(24, 20), (4, 40), (10, 120), (24, 80)] {
        terminal.resize(world, rows, columns)?;
        let wide = columns >= 80;
        terminal.wait(&format!("{rows} by {columns}"), |screen| {
            let lines: Vec<&str> = screen.lines().collect();
            let all = screen.contains("proc top") && screen.contains("web") && screen.contains("running");
            // The keys are in the last line of the new size, the columns those that have room.
            lines.len() == usize::from(rows)
                && lines.last().is_some_and(|last| last.contains("q leave"))
                && all
                && screen.contains("uptime") == wide
        })?;
    }
    terminal.press("q")?;
    ensure!(terminal.ended()?.success() && terminal.is_clean()?, "a clean end");
    Ok(())
}

fn hangs(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    for key in ["q", "\x1b", CTRL_C] {
        let mut terminal = open(world, 24, 80)?;
        terminal.wait("it shows", |screen| screen.contains("1 running"))?;
        processes::signal(daemon, Signal::SIGSTOP);
        let left = wait_until(SOON, "it is stopped", || processes::stopped(daemon))
            .and_then(|()| {
                terminal.press("ry")?;
                terminal.wait("a command under way", |screen| screen.contains("restart --clean web …"))
            })
            .and_then(|_| {
                let start = Instant::now();
                terminal.press(key)?;
                terminal.ended()?;
                Ok(start.elapsed())
            });
        processes::signal(daemon, Signal::SIGCONT);
        let left = left?;
        world.note(format!("left {left:?} after {key:?}"));
        ensure!(left < LEAVES && terminal.is_clean()?, "{key:?}: it took {left:?}");
        world.wait_status("web", "running", SOON)?;
    }
    Ok(())
}

fn outlives(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let mut terminal = open(world, 24, 80)?;
    terminal.wait("it shows", |screen| screen.contains("1 running"))?;
    world.kill_daemon()?;
    terminal.wait("it says so", |screen| screen.contains("no shimd"))?;
    let daemon = world.start_daemon()?;
    terminal.wait("it goes on", |screen| screen.contains(&format!("(pid {daemon})")))?;
    terminal.press("\x1b")?;
    ensure!(terminal.ended()?.success() && terminal.is_clean()?, "a clean end");
    // And while there is none.
    let mut terminal = open(world, 24, 80)?;
    terminal.wait("it shows", |screen| screen.contains("1 running"))?;
    world.kill_daemon()?;
    terminal.wait("it says so", |screen| screen.contains("no shimd"))?;
    terminal.press(CTRL_C)?;
    terminal.ended()?;
    ensure!(terminal.is_clean()?, "the terminal is as it was");
    // The service lives on: somebody has to end it.
    world.start_daemon()?;
    Ok(())
}

fn refused(world: &World) -> Result {
    let no_terminal = world.nu_refuses("proc top", "proc::bad_input")?;
    ensure!(no_terminal.mentions("terminal"), "{no_terminal}");
    let mut terminal = open(world, 24, 80)?;
    let screen = terminal.wait("an error", |screen| screen.contains("proc::no_daemon"))?;
    ensure!(screen.contains("proc shim start"), "{screen}");
    ensure!(!terminal.ended()?.success() && terminal.is_clean()?, "an error");
    world.rpc("shim.info", json!({})).map_or(Ok(()), |_| Err(scenarios::Fault::new("a daemon was started")))
}
