//! `shimd wrap`: its own death, however it comes, takes the service along, with all that got away from it.

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scenarios::client::ping;
use scenarios::{Need, Result, World, Wrapped, ensure, processes, scenario, wait_until};
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon];
    let root = [Need::Daemon, Need::Root, Need::User("nobody")];
    vec![
        scenario("wrap_killed::takes_the_whole_tree", &needs, |world| killed(world, &[])),
        scenario("wrap_killed::takes_one_that_became_another_user", &root, |world| {
            killed(world, &["--drop-user", "nobody"])
        }),
        scenario("wrap_killed::keeper_killed", &needs, keeper_killed),
        scenario("wrap_killed::both_killed", &needs, both_killed),
        scenario("wrap_killed::next_ends_what_both_left", &needs, next_ends_leftovers),
        scenario("wrap_killed::keeper_ignores_what_is_not_meant_for_it", &needs, keeper_ignores),
    ]
}

/// A server whose child has a session of its own and nothing of its environment, and ignores SIGTERM.
fn tree(world: &World, habits: &[&str]) -> Result<(Wrapped, PathBuf)> {
    let path = world.file("a.sock");
    let text = path.display().to_string();
    let unixd = world.unixd();
    let arguments = [&["--socket", &text, "--", &unixd, "--child-escapes"], habits, &[&text]].concat();
    let wrapped = world.wrap(&arguments)?;
    wait_until(SOON, "it answers", || ping(&path).is_ok())?;
    wait_until(SOON, "four processes", || world.processes().len() == 4)?;
    Ok((wrapped, path))
}

fn nothing_left(world: &World) -> Result {
    wait_until(SOON, "nothing is left", || world.processes().is_empty())
}

fn killed(world: &World, habits: &[&str]) -> Result {
    let (mut wrapped, _) = tree(world, habits)?;
    wrapped.signal(Signal::SIGKILL)?;
    wrapped.dies_of(SOON, Signal::SIGKILL)?;
    nothing_left(world)
}

fn keeper_killed(world: &World) -> Result {
    let (mut wrapped, _) = tree(world, &[])?;
    kill(Pid::from_raw(wrapped.keeper()?), Signal::SIGKILL)?;
    wrapped.exits(SOON, 125)?;
    ensure!(world.processes().is_empty(), "left: {:?}", world.processes());
    wrapped.says(SOON, "ending the service")
}

fn both_killed(world: &World) -> Result {
    let path = world.file("a.sock");
    let text = path.display().to_string();
    let mut wrapped = world.wrap(&["--socket", &text, "--", &world.unixd(), &text])?;
    wait_until(SOON, "it answers", || ping(&path).is_ok())?;
    let keeper = Pid::from_raw(wrapped.keeper()?);
    // The keeper cannot see wrap's death before its own.
    kill(keeper, Signal::SIGSTOP)?;
    wrapped.signal(Signal::SIGKILL)?;
    kill(keeper, Signal::SIGKILL)?;
    wrapped.dies_of(SOON, Signal::SIGKILL)?;
    nothing_left(world)
}

fn next_ends_leftovers(world: &World) -> Result {
    let path = world.file("a.sock");
    let text = path.display().to_string();
    // A worker serves on: it is not the keeper's child.
    let mut wrapped = world.wrap(&["--socket", &text, "--", &world.unixd(), "--fork-workers", "1", &text])?;
    let worker = wait_until(SOON, "its worker answers", || ping(&path).ok())?;
    let keeper = Pid::from_raw(wrapped.keeper()?);
    kill(keeper, Signal::SIGSTOP)?;
    wrapped.signal(Signal::SIGKILL)?;
    kill(keeper, Signal::SIGKILL)?;
    wrapped.ends(SOON)?;
    ensure!(processes::alive(worker), "this is what is not covered: {:?}", world.processes());
    let next = world.wrap(&["--socket", &text, "--", &world.unixd(), &text])?;
    wait_until(SOON, "the next answers", || ping(&path).is_ok_and(|pid| pid != worker))?;
    ensure!(!processes::alive(worker), "the worker is gone: {}", next.errors());
    Ok(())
}

fn keeper_ignores(world: &World) -> Result {
    let (wrapped, path) = tree(world, &[])?;
    let keeper = wrapped.keeper()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGUSR1] {
        processes::signal_taken(keeper, signal)?;
    }
    ping(&path).map(drop)
}
