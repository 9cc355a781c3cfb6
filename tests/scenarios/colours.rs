//! Colours on a terminal: the user's own before the plugin's; and none in data, nor where there is no terminal.

use libtest_mimic::Trial;
use scenarios::terminal::Terminal;
use scenarios::{Need, Result, World, ensure, scenario, specs};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const PLAIN: &str = "Default";
const RED: &str = "Idx(1)";
const GREEN: &str = "Idx(2)";
const BLUE: &str = "Idx(4)";
const PURPLE: &str = "Idx(5)";
const CYAN: &str = "Idx(6)";
/// What docs/config.md gives for tables.
const TABLES: &str = "$env.config.color_config.string = {|s| match $s { running | ok => 'cyan', \
    failed | dangling => 'red', _ => 'default' } }";

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![
        scenario("colours::of_events", &needs, events),
        scenario("colours::of_a_chart_and_of_top", &needs, chart),
        scenario("colours::of_tables_are_the_users", &needs, tables),
        scenario("colours::are_left_out", &needs, left_out),
    ]
}

/// A service that has lost its socket.
fn lost(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    world.wait_status("web", "failed", SOON)?;
    Ok(())
}

fn run(world: &World, script: &str) -> Result<Terminal> {
    let mut terminal = Terminal::nu(world, script, 24, 150)?;
    let ended = terminal.ended()?;
    ensure!(ended.success(), "{script}: {}", terminal.screen());
    Ok(terminal)
}

/// The colours of texts that a script shows.
fn shows(world: &World, script: &str, texts: &[(&str, &str)]) -> Result {
    let terminal = run(world, script)?;
    for (text, colour) in texts {
        terminal.wait(text, |screen| screen.contains(text))?;
        let found = terminal.colour_of(text)?;
        ensure!(found == *colour, "{script}: {text} is {found}, not {colour}:\n{}", terminal.screen());
    }
    Ok(())
}

const EVENTS: &str = "proc events web --raw";

fn events(world: &World) -> Result {
    lost(world)?;
    let own = [("running", GREEN), ("failed", RED), ("dangling", RED), ("20", PURPLE), ("web", PLAIN)];
    shows(world, EVENTS, &own)?;
    let styles = "$env.config.plugins.proc.colours = {failed: {fg: blue, attr: b}, running: '#ff0102'}";
    let users = [("failed", BLUE), ("running", "Rgb(255, 1, 2)"), ("dangling", RED)];
    shows(world, &format!("{styles}; {EVENTS}"), &users)?;
    // The closure that colours the cells of tables is asked, too; a style by the word goes before it.
    let both = [("running", CYAN), ("failed", BLUE), ("starting", "Idx(3)")];
    let one = "$env.config.plugins.proc.colours = {failed: blue}";
    shows(world, &format!("{TABLES}; {one}; {EVENTS}"), &both)?;
    let dates = "$env.config.color_config.datetime = 'green'; ";
    shows(world, &format!("{dates}{EVENTS}"), &[("20", GREEN)])?;
    let refused = "try { $env.config.plugins.proc.colours = {failed: rde}; proc events --raw } catch {|e| \
         print $e.details.code $e.msg }";
    let terminal = run(world, refused)?;
    let screen = terminal.wait("an error", |screen| screen.contains("colours.failed is no style"))?;
    ensure!(screen.contains("proc::bad_config"), "{screen}");
    Ok(())
}

fn chart(world: &World) -> Result {
    lost(world)?;
    shows(world, "proc history web --chart", &[("D", RED), ("rpc.sock", PLAIN)])?;
    let top = |config: &str, colour: &str| -> Result {
        let mut terminal = Terminal::nu(world, &format!("{config}proc top"), 24, 80)?;
        terminal.wait("it shows", |screen| screen.contains("1 failed"))?;
        let found = terminal.colour_of("dangling")?;
        ensure!(found == colour, "{config}: {found}");
        terminal.press("q")?;
        ensure!(terminal.ended()?.success(), "a clean end");
        Ok(())
    };
    top("", RED)?;
    top("$env.config.plugins.proc.colours = {dangling: blue}; ", BLUE)?;
    top("$env.NO_COLOR = '1'; ", PLAIN)
}

/// Nushell lets no plugin colour the cells of a table: a closure of the user's does.
fn tables(world: &World) -> Result {
    lost(world)?;
    shows(world, &format!("{TABLES}; proc list"), &[("failed", RED), ("web", PLAIN)])?;
    shows(world, &format!("{TABLES}; proc socket-check"), &[("dangling", RED)])?;
    shows(world, "proc list", &[("failed", PLAIN)])?;
    let names = format!("{TABLES}; print (proc list | where status == failed | get name | to json -r)");
    run(world, &names)?.wait("data", |screen| screen.contains("[\"web\"]"))?;
    Ok(())
}

fn left_out(world: &World) -> Result {
    lost(world)?;
    let none = [("running", PLAIN), ("failed", PLAIN), ("20", PLAIN)];
    for setting in [
        "$env.config.plugins.proc.colours = false",
        "$env.config.use_ansi_coloring = false",
        "$env.NO_COLOR = '1'",
        "$env.TERM = 'dumb'",
    ] {
        shows(world, &format!("{setting}; {EVENTS}"), &none)?;
    }
    shows(world, &format!("$env.NO_COLOR = '1'; $env.FORCE_COLOR = '1'; {EVENTS}"), &[("failed", RED)])?;
    // No terminal: whatever is set.
    for script in [EVENTS, "proc history web --chart", "proc list", "proc events web --raw | to json"] {
        let ran =
            world.nu(&format!("$env.config.use_ansi_coloring = true; {script} | to text"))?.success()?;
        ensure!(!ran.stdout.is_empty() && !ran.stdout.contains('\x1b'), "{ran}");
    }
    Ok(())
}
