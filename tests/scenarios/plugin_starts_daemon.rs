//! A command that has to act starts a daemon when none runs, detached from the Nushell that ran it.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("plugin_starts_daemon::detached", &needs, detached),
        scenario("plugin_starts_daemon::over_a_dead_ones_leftovers", &needs, leftovers),
        scenario("plugin_starts_daemon::shim_start_stop_status", &needs, shim),
    ]
}

fn detached(world: &World) -> Result {
    let spec = world.write("web.json", &specs::unixd(world, "web", &[]).to_string())?;
    // The harness fails here if the daemon keeps the output of this Nushell open.
    let registered = world.nu_json(&format!("proc register {}", spec.display()))?;
    ensure!(registered.only()?.text("change")? == "created", "{registered}");
    let daemon = world.daemon_pid()?;
    let stat = fs::read_to_string(format!("/proc/{daemon}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap_or_default().1.split_whitespace().collect();
    ensure!(fields.get(3) == Some(&daemon.to_string().as_str()), "it leads a session of its own: {stat}");
    for number in 0..3 {
        let target = fs::read_link(format!("/proc/{daemon}/fd/{number}"))?;
        let own = target.starts_with(world.home());
        ensure!(own || target.as_os_str() == "/dev/null", "its descriptor {number} is {}", target.display());
    }
    for entry in fs::read_dir(format!("/proc/{daemon}/fd"))?.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let pipe = target.to_string_lossy().starts_with("pipe:") && entry.file_name().len() == 1;
        ensure!(!pipe, "an inherited pipe: {:?} is {}", entry.file_name(), target.display());
    }
    let cwd = fs::read_link(format!("/proc/{daemon}/cwd"))?;
    ensure!(cwd.as_os_str() == "/" || cwd.starts_with(world.home()), "it sits in {}", cwd.display());
    let started = world.nu_json("proc start web")?;
    ensure!(started.only()?.text("status")? == "running", "{started}");
    ensure!(world.daemon_pid()? == daemon, "the next command finds the same daemon");
    Ok(())
}

fn leftovers(world: &World) -> Result {
    let spec = world.write("web.json", &specs::unixd(world, "web", &[]).to_string())?;
    world.nu_json(&format!("proc register {}", spec.display()))?;
    let started = world.nu_json("proc start web")?;
    let pid = started.only()?.pid("pid")?;
    let dead = world.kill_daemon()?;
    ensure!(world.control_socket().exists(), "the dead one's socket file is left");
    let refused = world.nu_refuses("proc list", "proc::no_daemon")?;
    world.note(&refused.msg);
    let started = world.nu_json("proc start web")?;
    ensure!(started.only()?.pid("pid")? == pid, "it is adopted, not started twice: {started}");
    ensure!(world.daemon_pid()? != dead, "a new daemon");
    Ok(())
}

fn shim(world: &World) -> Result {
    world.nu_refuses("proc shim status", "proc::no_daemon")?;
    let started = world.nu_json("proc shim start")?;
    let pid = started.pid("pid")?;
    ensure!(started.text("home")? == world.home().display().to_string(), "{started}");
    let again = world.nu_json("proc shim start")?;
    ensure!(again.pid("pid")? == pid, "it runs already: {again}");
    let status = world.nu_json("proc shim status")?;
    ensure!(status.pid("pid")? == pid && status.int("services")? == 0, "{status}");
    world.nu_json("proc shim stop")?;
    wait_until(SOON, "it ends", || !processes::alive(pid))
}
