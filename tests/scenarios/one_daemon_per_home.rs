//! One daemon a home: the second says who the first is, changes nothing, and the first goes on.

use libtest_mimic::Trial;
use scenarios::command::wait_child;
use scenarios::{Need, Result, World, ensure, scenario, specs};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("one_daemon_per_home::second_is_refused", &[Need::Daemon], second),
        scenario("one_daemon_per_home::even_when_its_socket_is_gone", &[Need::Daemon], socket_gone),
        scenario("one_daemon_per_home::after_a_killed_one", &[Need::Daemon], after_killed),
    ]
}

/// Starts another one, which must end by itself; gives what it said.
fn refused(world: &World) -> Result<String> {
    let log = world.folder().join("daemon.out");
    let before = fs::read_to_string(&log)?.len();
    let mut second = world.spawn_daemon()?;
    let code = wait_child(&mut second, SOON)?;
    if code.is_none() {
        second.kill()?;
        second.wait()?;
    }
    ensure!(matches!(code, Some(Some(1..))), "a second daemon ends with a status that says so: {code:?}");
    let said = fs::read_to_string(&log)?;
    Ok(said.get(before..).unwrap_or_default().to_owned())
}

fn second(world: &World) -> Result {
    let first = world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let said = refused(world)?;
    ensure!(said.contains(&first.to_string()), "it names the first, {first}: {said}");
    ensure!(world.daemon_pid()? == first, "the first answers");
    Ok(())
}

fn socket_gone(world: &World) -> Result {
    let first = world.start_daemon()?;
    let kept = world.file("kept");
    fs::hard_link(world.control_socket(), &kept)?;
    fs::remove_file(world.control_socket())?;
    refused(world)?;
    if !world.control_socket().exists() {
        fs::hard_link(&kept, world.control_socket())?;
    }
    ensure!(world.daemon_pid()? == first, "the lock holds, not the path");
    Ok(())
}

fn after_killed(world: &World) -> Result {
    let first = world.start_daemon()?;
    world.kill_daemon()?;
    ensure!(world.control_socket().exists(), "a killed one leaves its socket");
    ensure!(world.start_daemon()? != first, "a new one comes up over it");
    Ok(())
}
