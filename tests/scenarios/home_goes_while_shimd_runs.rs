//! The home is removed or moved away, in whole or in part, while the daemon runs: services can be restarted, nobody else takes
//! the home, and the next daemon finds all of them.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::command::wait_child;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// What is done to it.
type Deed = fn(&World) -> Result;

pub fn trials() -> Vec<Trial> {
    // The daemon may be quicker than whoever removes it.
    let removed: Deed = |world| match fs::remove_dir_all(world.home()) {
        Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => Ok(done?),
    };
    let moved: Deed = |world| Ok(fs::rename(world.home(), world.file("moved"))?);
    let logs: Deed = |world| {
        fs::remove_dir_all(world.home().join("logs"))?;
        // Before a second daemon could make the folder.
        restarts(world, "other").map(drop)
    };
    let lock: Deed = |world| Ok(fs::remove_file(world.home().join("lock"))?);
    let store: Deed = |world| Ok(fs::remove_file(world.home().join("state.db"))?);
    let log_of_store: Deed = |world| Ok(fs::remove_file(world.home().join("state.db-wal"))?);
    let trial = |name: &str, deed: Deed| {
        scenario(&format!("home_goes_while_shimd_runs::{name}"), &[Need::Daemon], move |world| {
            run(world, deed)
        })
    };
    vec![
        trial("removed", removed),
        scenario("home_goes_while_shimd_runs::removed_while_it_hangs", &[Need::Daemon], hangs),
        trial("moved_away", moved),
        trial("logs_removed", logs),
        trial("lock_removed", lock),
        trial("store_removed", store),
        trial("log_of_store_removed", log_of_store),
    ]
}

/// The first daemon cannot make its home whole in time: the kernel knows that it listens all the same.
fn hangs(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    let web = world.up(&specs::unixd(world, "web", &[]))?;
    processes::signal(daemon, Signal::SIGSTOP);
    fs::remove_dir_all(world.home())?;
    let mut second = world.spawn_daemon()?;
    let code = wait_child(&mut second, SOON)?;
    processes::signal(daemon, Signal::SIGCONT);
    if code.is_none() {
        second.kill()?;
        second.wait()?;
    }
    ensure!(code == Some(Some(3)), "another one runs, and the second says so: {code:?}");
    wait_until(SOON, "the first one answers", || world.daemon_pid().is_ok_and(|pid| pid == daemon))?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == web, "nobody's service was touched");
    ensure!(restarts(world, "web")? != web, "and it is restarted as ever");
    Ok(())
}

/// The pid after a clean restart.
fn restarts(world: &World, name: &str) -> Result<i32> {
    let restarted = world.rpc("service.restart", json!({"name": name, "clean": true}))?;
    let restarted = restarted.only()?;
    ensure!(restarted.text("outcome")? == "restarted", "{restarted}");
    restarted.pid("new_pid")
}

fn run(world: &World, deed: Deed) -> Result {
    let daemon = world.start_daemon()?;
    let web = world.up(&specs::unixd(world, "web", &[]))?;
    world.up(&specs::unixd(world, "other", &[]))?;
    deed(world)?;

    // A second daemon, at once: it may find the lock free, and must not take what the first one serves.
    let mut second = world.spawn_daemon()?;
    let code = wait_child(&mut second, SOON)?;
    if code.is_none() {
        second.kill()?;
        second.wait()?;
    }
    ensure!(code == Some(Some(3)), "another one runs, and the second says so: {code:?}");
    let parts = ["lock", "state.db", "state.db-wal", "logs", "rpc.sock"];
    wait_until(SOON, "the home is whole", || parts.iter().all(|part| world.home().join(part).exists()))?;
    wait_until(SOON, "the first one answers", || world.daemon_pid().is_ok_and(|pid| pid == daemon))?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == web, "nobody's service was touched");

    let other = restarts(world, "other")?;
    ensure!(world.home().join("logs/other.out").exists(), "its output is kept");
    let troubles = world.rpc("shim.info", json!({}))?;
    let store =
        troubles.field("troubles").rows()?.iter().any(|trouble| trouble.to_string().contains("state.db"));
    ensure!(!store, "{troubles}");

    world.kill_daemon()?;
    world.start_daemon()?;
    for (name, pid) in [("web", web), ("other", other)] {
        let row = world.wait_status(name, "running", SOON)?;
        ensure!(row.pid("pid")? == pid, "{name} is found again: {row}");
    }
    let known = world.rpc("event.list", json!({"name": "web"}))?;
    ensure!(!known.rows()?.is_empty(), "the history is kept too");
    Ok(())
}
