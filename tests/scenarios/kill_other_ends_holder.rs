//! `kill_other.socket`: before a spawn, whoever still listens there is ended; whoever listens elsewhere is not.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("kill_other_ends_holder::own_socket", &[Need::Daemon], own_socket),
        scenario("kill_other_ends_holder::another_path", &[Need::Daemon], another_path),
        scenario("kill_other_ends_holder::one_that_ignores_sigterm", &[Need::Daemon], stubborn),
    ]
}

/// A server that nobody supervises.
fn stranger(world: &World, path: &Path, options: &[&str]) -> Result<Child> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut command = world.command(world.unixd());
    let child = command.args(options).arg(path).stdin(Stdio::null()).spawn()?;
    wait_until(SOON, "the stranger listens", || ping(path).is_ok())?;
    Ok(child)
}

/// The stranger is this test's own child: it is dead once it can be reaped.
fn ended(child: &mut Child) -> Result {
    wait_until(SOON, "the stranger is ended", || matches!(child.try_wait(), Ok(Some(_))))
}

fn own_socket(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock");
    let mut other = stranger(world, &path, &[])?;
    let spec = specs::with(specs::unixd(world, "mine", &[]), json!({"kill_other": {"socket": ["rpc.sock"]}}));
    let pid = world.up(&spec)?;
    ended(&mut other)?;
    ensure!(ping(&path)? == pid, "the service answers");
    Ok(())
}

fn another_path(world: &World) -> Result {
    world.start_daemon()?;
    let (wanted, unrelated) = (world.file("old.sock"), world.file("else.sock"));
    let mut other = stranger(world, &wanted, &[])?;
    let mut innocent = stranger(world, &unrelated, &[])?;
    let spec = specs::with(specs::unixd(world, "mine", &[]), json!({"kill_other": {"socket": [wanted]}}));
    world.up(&spec)?;
    ended(&mut other)?;
    ensure!(processes::alive(i32::try_from(innocent.id())?), "whoever listens elsewhere lives on");
    ping(&unrelated)?;
    innocent.kill()?;
    innocent.wait()?;
    Ok(())
}

fn stubborn(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock");
    let mut other = stranger(world, &path, &["--ignore-term"])?;
    let more = json!({"kill_other": {"socket": ["rpc.sock"]}, "stop": {"timeout": "500ms"}});
    world.up(&specs::with(specs::unixd(world, "mine", &[]), more))?;
    ended(&mut other)?;
    ensure!(world.service("mine")?.text("status")? == "running", "it runs");
    Ok(())
}
