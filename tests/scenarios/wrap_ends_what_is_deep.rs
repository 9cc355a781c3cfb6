//! `shimd wrap` ends a service whose server is a grandchild in order: who loses its parent by the stop is told to stop next.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Need, Result, World, ensure, scenario, wait_until};
use std::fs;
use std::time::Duration;

/// Less than `--stop-timeout`, after which what is left would be killed.
const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("wrap_ends_what_is_deep", &[Need::Daemon], run)]
}

fn run(world: &World) -> Result {
    let (path, journal) = (world.file("deep.sock"), world.file("journal"));
    let path_text = path.display().to_string();
    let line = format!("{} --journal {} stream:{path_text}; true", world.unixd(), journal.display());
    // Each shell waits for the next, and ends at SIGTERM without a word to it.
    let nested = format!("sh -c \"sh -c '{line}'; true\"; true");
    let mut wrapped =
        world.wrap(&["--socket", &path_text, "--stop-timeout", "60s", "--", "/bin/sh", "-c", &nested])?;
    wait_until(SOON, "it serves", || ping(&path).is_ok())?;
    wrapped.signal(Signal::SIGTERM)?;
    wrapped.dies_of(SOON, Signal::SIGTERM)?;
    let said = fs::read_to_string(&journal)?;
    ensure!(said.lines().any(|line| line.starts_with("stop ")), "the server ended in order: {said}");
    Ok(())
}
