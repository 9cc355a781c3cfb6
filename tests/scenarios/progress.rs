//! Long work on a terminal: a line that says who is where and for how long, gone at the end; and silence elsewhere.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use nix::fcntl::{Flock, FlockArg};
use scenarios::terminal::Terminal;
use scenarios::{Need, Result, World, ensure, scenario, specs};
use std::fs;
use std::time::{Duration, Instant};

const CTRL_C: &str = "\x03";
/// A start of these takes so long.
const SLOW: &[&str] = &["--listen-after", "3000"];
/// What Ctrl-C may take, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("progress::who_is_where", &needs, shown),
        scenario("progress::a_narrow_terminal", &needs, narrow),
        scenario("progress::quiet", &needs, quiet),
        scenario("progress::ctrl_c_clears_the_line", &needs, ctrl_c),
        scenario("progress::a_slow_daemon", &needs, slow_daemon),
    ]
}

fn registered(world: &World) -> Result {
    world.start_daemon()?;
    for name in ["one", "two", "three"] {
        let options = if name == "three" { &[][..] } else { SLOW };
        let spec = world.write("spec.json", &specs::unixd(world, name, options).to_string())?;
        world.nu_json(&format!("proc register {}", spec.display()))?;
    }
    Ok(())
}

fn shown(world: &World) -> Result {
    registered(world)?;
    for verb in ["start", "restart --clean"] {
        let script = format!("proc {verb} one two three | get name");
        let mut terminal = Terminal::nu(world, &script, 24, 80)?;
        let line = |screen: &str| screen.contains("1 of 3 done") && screen.contains("starting 2s");
        let screen = terminal.wait("who is where, and how long", line)?;
        world.note(&screen);
        ensure!(screen.contains("one") && screen.contains("two"), "{screen}");
        ensure!(terminal.ended()?.success(), "{}", terminal.screen());
        let screen = terminal.wait("the answer alone", |screen| !screen.contains("done"))?;
        ensure!(screen.contains("three"), "{screen}");
    }
    Ok(())
}

fn narrow(world: &World) -> Result {
    registered(world)?;
    let mut terminal = Terminal::nu(world, "proc start one two three | ignore", 5, 20)?;
    let screen = terminal.wait("its beginning", |screen| screen.contains("1 of 3 done"))?;
    ensure!(screen.trim_end().lines().count() == 1, "one line: {screen}");
    ensure!(screen.trim_end().ends_with("done"), "no half of a word: {screen}");
    ensure!(terminal.ended()?.success(), "{}", terminal.screen());
    terminal.wait("nothing", |screen| screen.trim().is_empty())?;
    Ok(())
}

fn quiet(world: &World) -> Result {
    registered(world)?;
    let says = |script: &str| -> Result<String> {
        let mut terminal = Terminal::nu(world, script, 24, 80)?;
        ensure!(terminal.ended()?.success(), "{script}: {}", terminal.screen());
        Ok(terminal.written())
    };
    let lib = |verb: &str| format!("use {} *; service {verb} | ignore", project("lib.nu"));
    for script in [
        "proc start one --quiet | ignore",
        "proc restart -q one | ignore",
        &lib("restart one -q"),
        &lib("down one -q"),
        &lib("up one -q"),
    ] {
        let written = says(script)?;
        ensure!(written.is_empty(), "{script}: {written:?}");
    }
    // Where a line could not be drawn anew.
    let inner = world.nu_command("proc restart one | ignore")?;
    let mut dumb = world.command("env");
    dumb.arg("TERM=dumb").arg(inner.get_program()).args(inner.get_args());
    let mut terminal = Terminal::run(world, &dumb, 24, 80)?;
    ensure!(terminal.ended()?.success() && terminal.written().is_empty(), "{:?}", terminal.written());
    let loud = says("proc restart one | ignore")?;
    ensure!(loud.contains("starting"), "{loud:?}");
    let loud = says(&lib("restart one"))?;
    ensure!(loud.contains("starting"), "{loud:?}");
    // Every command that acts takes it.
    let acting =
        "[start stop restart unregister register reset-failed heal 'shim start' 'shim stop' 'shim restart']";
    let lacking = format!(
        "{acting} | where {{|verb| scope commands | where name == $'proc ($verb)' | get 0.signatures | values | first \
         | where parameter_name == quiet | is-empty }}"
    );
    let lacking = world.nu_json(&lacking)?;
    ensure!(lacking.as_array().is_some_and(Vec::is_empty), "{lacking}");
    // A script's stderr is no terminal.
    let ran = world.nu("proc restart one | get 0.outcome")?.success()?;
    ensure!(ran.stderr.is_empty() && ran.stdout.trim() == "restarted", "{ran}");
    Ok(())
}

fn ctrl_c(world: &World) -> Result {
    registered(world)?;
    let mut terminal = Terminal::run(world, &world.nu_prompt()?, 24, 80)?;
    terminal.wait("a prompt", |screen| screen.contains('>'))?;
    terminal.press("proc start one two\r")?;
    terminal.wait("the line", |screen| screen.contains("of 2 done"))?;
    let start = Instant::now();
    terminal.press(CTRL_C)?;
    let screen = terminal.wait("an answer", |screen| screen.contains("proc::cancelled"))?;
    let took = start.elapsed();
    world.note(format!("answered {took:?} after Ctrl-C:\n{screen}"));
    ensure!(took < AT_ONCE, "it took {took:?}");
    ensure!(!screen.contains("of 2 done"), "the line is gone: {screen}");
    // The prompt is there, and what was begun goes on.
    terminal.press("proc start one two | get status | to json -r\r")?;
    terminal.wait("both run", |screen| screen.contains("[\"running\",\"running\"]"))?;
    Ok(())
}

/// Who has the home's lock is a daemon that comes up.
fn slow_daemon(world: &World) -> Result {
    fs::create_dir(world.home())?;
    let lock = fs::File::create(world.home().join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
    let mut terminal = Terminal::nu(world, "proc start web", 24, 80)?;
    terminal.wait("a line", |screen| screen.contains("1s  shimd comes up"))?;
    terminal.press(CTRL_C)?;
    let screen = terminal.wait("an answer", |screen| screen.contains("proc::cancelled"))?;
    ensure!(!screen.contains("comes up"), "the line is gone: {screen}");
    ensure!(!terminal.ended()?.success(), "an error");
    Ok(())
}
