//! Tab at the prompt: the names of services with how each is, sockets, spec files, what flags hold; and nothing, at once,
//! where no daemon answers.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::terminal::Terminal;
use scenarios::{Need, Result, World, ensure, processes, scenario, specs, wait_until};
use std::fs;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
/// What an answer that does not come may add to a Tab, on a busy machine: the daemon has 50 ms, and a command would wait for
/// seconds.
const ADDS: Duration = Duration::from_millis(500);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("completions::names_with_their_state", &needs, names),
        scenario("completions::spec_files", &needs, spec_files),
        scenario("completions::values_of_flags", &needs, flags),
        scenario("completions::none_without_an_answer", &needs, none),
    ]
}

/// A prompt that has evaluated something: from then on the plugin is known.
fn prompt(world: &World) -> Result<Terminal> {
    let mut terminal = Terminal::run(world, &world.nu_prompt()?, 24, 80)?;
    terminal.wait("a prompt", |screen| screen.contains('>'))?;
    terminal.press("'rea' + 'dy'\r")?;
    terminal.wait("an answer", |screen| screen.contains("ready"))?;
    Ok(terminal)
}

fn names(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web-one", &[]))?;
    world.up(&specs::unixd(world, "web-two", &[]))?;
    world.up(&specs::unixd(world, "database", &[]))?;
    fs::remove_file(world.socket("web-two", "rpc.sock"))?;
    world.wait_status("web-two", "failed", SOON)?;
    let mut terminal = prompt(world)?;
    terminal.press("proc status web-\t")?;
    let screen = terminal.wait("both", |screen| screen.contains("web-one") && screen.contains("web-two"))?;
    world.note(&screen);
    ensure!(screen.contains("running") && screen.contains("failed"), "with their states: {screen}");
    ensure!(!screen.contains("database"), "only what begins so: {screen}");
    // One alone is put into the line.
    let mut terminal = prompt(world)?;
    terminal.press("proc status dat\t")?;
    terminal.wait("its name", |screen| screen.contains("proc status database"))?;
    terminal.press("\r")?;
    terminal.wait("its status", |screen| screen.contains("health_reason"))?;
    // Of the home that the config names, where the environment names none.
    let mut terminal = prompt(world)?;
    let config = format!("$env.config.plugins.proc.home = '{}'; hide-env SHIMD_HOME", world.home().display());
    terminal.press(&format!("{config}; 'mo' + 'ved'\r"))?;
    terminal.wait("it is set", |screen| screen.contains("moved"))?;
    terminal.press("proc status dat\t")?;
    terminal.wait("its name", |screen| screen.contains("proc status database"))?;
    // Nobody means a service twice.
    let mut terminal = prompt(world)?;
    terminal.press("proc restart web-one web-\t")?;
    terminal.wait("the other", |screen| screen.contains("proc restart web-one web-two"))?;
    let mut terminal = prompt(world)?;
    terminal.press("proc restart web-one\t")?;
    terminal.press(" web-t\t")?;
    terminal.wait("the same, each with its own Tab", |screen| {
        screen.contains("web-one") && screen.contains("web-two")
    })?;
    let mut terminal = prompt(world)?;
    terminal.press("proc socket-check /\t")?;
    terminal.wait("paths of sockets", |screen| screen.contains("ok: database"))?;
    Ok(())
}

fn spec_files(world: &World) -> Result {
    for name in ["web.nuon", "web.json", "web.txt", "web one.nuon", ".web.nuon"] {
        fs::write(world.file(name), "{name: web, exec: [sleep 1000]}")?;
    }
    fs::create_dir(world.file("specs"))?;
    fs::write(world.file("specs/deep.nuon"), "{name: deep, exec: [sleep 1000]}")?;
    let mut terminal = prompt(world)?;
    terminal.press("proc register \t")?;
    let screen = terminal.wait("files and folders", |screen| screen.contains("web.nuon"))?;
    ensure!(["web.json", "specs/", "`web one.nuon`"].iter().all(|name| screen.contains(name)), "{screen}");
    ensure!(!screen.contains("web.txt") && !screen.contains(".web.nuon"), "specs only: {screen}");
    // A folder is gone on from, and its only file put into the line.
    let mut terminal = prompt(world)?;
    terminal.press("proc register sp\t")?;
    terminal.wait("the folder", |screen| screen.contains("proc register specs/"))?;
    terminal.press("\t")?;
    terminal.wait("the file", |screen| screen.contains("proc register specs/deep.nuon"))?;
    let mut terminal = prompt(world)?;
    terminal.press("proc register `web o\t")?;
    terminal.wait("a file with a space", |screen| screen.contains("`web one.nuon`"))?;
    terminal.press("\r")?;
    terminal.wait("it is registered", |screen| screen.contains("created"))?;
    Ok(())
}

fn flags(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    fs::write(world.file("a-file"), "")?;
    for (keys, one, other) in [
        ("proc history web --since \t", "1hr", "1day"),
        ("proc events --limit \t", "100", "1000"),
        ("proc logs web --lines \t", "100", "1000"),
    ] {
        let mut terminal = prompt(world)?;
        terminal.press(keys)?;
        let screen = terminal.wait(keys, |screen| screen.contains(one) && screen.contains(other))?;
        ensure!(!screen.contains("a-file"), "no files: {screen}");
    }
    for keys in ["proc history w\t", "proc list w\t", "proc heal w\t", "proc logs w\t"] {
        let mut terminal = prompt(world)?;
        terminal.press(keys)?;
        terminal.wait(keys, |screen| screen.contains(&keys.replace("w\t", "web")))?;
    }
    Ok(())
}

fn none(world: &World) -> Result {
    let asked = |what: &str, command: &str| -> Result<Duration> {
        let mut terminal = prompt(world)?;
        // The plugin's start is not in it.
        terminal.press("proc socket-check /nowhere | length | 'warm-' + ($in | into string)\r")?;
        terminal.wait("a plugin", |screen| screen.contains("warm-1"))?;
        let start = Instant::now();
        terminal.press(&format!("{command} we\t"))?;
        terminal.wait(what, |screen| screen.contains("NO RECORDS FOUND"))?;
        let took = start.elapsed();
        // And the line goes on.
        terminal.press("b-x")?;
        terminal.wait(what, |screen| screen.contains(&format!("{command} web-x")))?;
        world.note(format!("{what}: {took:?}"));
        Ok(took)
    };
    let floor = asked("files", "ls")?;
    let at_once = |what: &str, command: &str| -> Result {
        let took = asked(what, command)?;
        ensure!(took < floor + ADDS, "{what}: answered after {took:?}, files after {floor:?}");
        Ok(())
    };
    at_once("no daemon", "proc status")?;
    ensure!(!world.control_socket().exists(), "none was started for it");
    let daemon = world.start_daemon()?;
    world.up(&specs::unixd(world, "web-one", &[]))?;
    processes::signal(daemon, Signal::SIGSTOP);
    wait_until(SOON, "it is stopped", || processes::stopped(daemon))?;
    let hangs = at_once("a daemon that hangs", "proc status")
        .and_then(|()| at_once("a daemon that hangs, asked for more", "proc socket-check"));
    processes::signal(daemon, Signal::SIGCONT);
    hangs
}
