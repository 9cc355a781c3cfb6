//! `$env.config.plugins.proc`: what it says is done, what wins over it, and what is said of a mistake in it.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("config::home", &needs, home),
        scenario("config::deadline", &needs, deadline),
        scenario("config::autostart", &needs, autostart),
        scenario("config::of_a_closure", &needs, closure),
        scenario("config::mistakes_are_named", &needs, mistakes),
    ]
}

/// A script that first sets the record.
fn with(config: &str, script: &str) -> String {
    format!("$env.config.plugins.proc = {config}; {script}")
}

fn home(world: &World) -> Result {
    let other = world.file("home").display().to_string();
    let config = format!("{{home: '{other}'}}");
    // The environment wins.
    let info = world.nu_json(&with(&config, "proc shim start"))?;
    ensure!(info.text("home")? == world.home().display().to_string(), "{info}");
    let unset = |script: &str| with(&config, &format!("hide-env SHIMD_HOME; {script}"));
    world.nu_refuses(&unset("proc list"), "proc::no_daemon")?;
    let info = world.nu_json(&unset("proc shim start"))?;
    ensure!(info.text("home")? == other, "the daemon is started there: {info}");
    ensure!(world.nu_json(&unset("proc shim status"))?.text("home")? == other, "and found there");
    ensure!(world.nu_json("proc shim status")?.text("home")? != other, "it is another one");
    // An empty variable counts as unset, and ~ is the user's.
    let near = with("{home: '~/../w/home'}", "$env.SHIMD_HOME = ''; proc shim stop");
    ensure!(world.nu_json(&near)?.text("home")? == other, "the same");
    Ok(())
}

fn deadline(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    processes::signal(daemon, Signal::SIGSTOP);
    wait_until(SOON, "it is stopped", || processes::stopped(daemon))?;
    let refused = world.nu_refuses(&with("{deadline: 300ms}", "proc list"), "proc::timeout");
    processes::signal(daemon, Signal::SIGCONT);
    let refused = refused?;
    ensure!(refused.mentions("within 300ms"), "{refused}");
    // Long work gives signs of life, a second apart: it may take longer than a deadline above that.
    let slow = specs::unixd(world, "slow", &["--listen-after", "4000"]);
    let path = world.write("slow.json", &slow.to_string())?;
    let script = format!("proc register {}; proc start slow", path.display());
    let started = world.nu_json(&with("{deadline: 3sec}", &script))?;
    ensure!(started.only()?.text("status")? == "running", "{started}");
    Ok(())
}

fn autostart(world: &World) -> Result {
    let never = |script: &str| with("{autostart: false}", script);
    for command in ["proc start web", "proc restart web --clean", "proc register {name: web, exec: [web]}"] {
        let refused = world.nu_refuses(&never(command), "proc::no_daemon")?;
        ensure!(refused.mentions("autostart is false") && refused.help == "proc shim start", "{refused}");
    }
    // What can be told without a daemon is told all the same, and that none comes by itself.
    let rows = world.nu_json(&never("proc doctor"))?;
    let row = rows.row("check", "daemon")?;
    ensure!(row.field("ok") == false && row.text("help")?.contains("proc shim start"), "{row}");
    let row = rows.row("check", "shimd")?;
    ensure!(row.text("detail")?.starts_with("proc shim start, and nothing else, starts /"), "{row}");
    for check in ["home", "sock_diag"] {
        let row = rows.row("check", check)?;
        ensure!(row.field("ok") == true, "{row}");
    }
    let row = world.nu_json("proc doctor")?.row("check", "shimd")?.clone();
    ensure!(row.text("detail")?.starts_with("a command that acts starts /"), "{row}");
    ensure!(world.processes().is_empty(), "none was started: {:?}", world.processes());
    world.nu_json(&never("proc shim start"))?;
    let spec = world.write("web.json", &specs::unixd(world, "web", &[]).to_string())?;
    world.nu_json(&never(&format!("proc register {}", spec.display())))?;
    let started = world.nu_json(&never("proc start web"))?;
    ensure!(started.only()?.text("status")? == "running", "{started}");
    Ok(())
}

fn closure(world: &World) -> Result {
    let script = with("{|| {autostart: ($env.MAY? | default false)}}", "proc shim start; proc list");
    ensure!(world.nu_json(&script)?.as_array().is_some_and(Vec::is_empty), "it is evaluated");
    let refused = world.nu_refuses(&with("{|| error make {msg: oh}}", "proc list"), "proc::bad_config")?;
    ensure!(refused.mentions("cannot be evaluated"), "{refused}");
    Ok(())
}

fn mistakes(world: &World) -> Result {
    for (config, field, fix) in [
        ("5", "plugins.proc is a record", "for example"),
        ("{home: 5}", "plugins.proc.home is a path", "this is an int"),
        ("{home: here}", "plugins.proc.home is a relative path (here)", "absolute"),
        ("{deadline: 10}", "plugins.proc.deadline is a duration", "deadline = 10sec"),
        ("{deadline: -1sec}", "plugins.proc.deadline is not longer than nothing", "10sec"),
        ("{autostart: 'no'}", "plugins.proc.autostart is a bool", "autostart = false"),
        ("{autstart: true}", "plugins.proc has no autstart", "did you mean autostart?"),
        ("{colors: false}", "plugins.proc has no colors", "did you mean colours?"),
        ("{colours: red}", "plugins.proc.colours is a bool or a record", "{failed: red_bold}"),
        ("{colours: {faild: red}}", "plugins.proc.colours has no faild", "did you mean failed?"),
        ("{colours: {failed: 5}}", "plugins.proc.colours.failed is a colour", "red_bold"),
    ] {
        let refused = world.nu_refuses(&with(config, "proc list"), "proc::bad_config")?;
        ensure!(refused.mentions(field) && refused.mentions(fix), "{config}: {refused}");
        ensure!(refused.labels.iter().any(|label| label == "asks for it"), "{config}: {refused}");
    }
    // What asks no daemon asks for no settings.
    world.nu_json(&with("5", "proc socket-check /nowhere.sock"))?;
    Ok(())
}
