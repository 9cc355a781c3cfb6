//! `shimd wrap`: a path that is not free is not taken; a stale socket is no obstacle.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Need, Result, World, ensure, scenario, wait_until};
use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon];
    vec![
        scenario("wrap_foreign::live_listener_is_refused_with_its_pid", &needs, foreign),
        scenario("wrap_foreign::another_wrap_is_refused", &needs, another_wrap),
        scenario("wrap_foreign::stale_socket_is_removed", &needs, stale),
        scenario("wrap_foreign::file_is_left", &needs, file),
    ]
}

fn foreign(world: &World) -> Result {
    let path = world.file("a.sock");
    let text = path.display().to_string();
    let own = UnixListener::bind(&path)?;
    for command in [
        &["--socket", &text, "--", "/bin/touch", "ran"][..],
        &["--socket", &text, "--", "/bin/touch", "ran", "{socket}"],
    ] {
        let mut wrapped = world.wrap(command)?;
        wrapped.exits(SOON, 125)?;
        wrapped.says(SOON, &format!("shimd wrap: {text}: foreign: "))?;
        wrapped.says(SOON, &format!("pid {}", std::process::id()))?;
    }
    ensure!(!world.file("ran").exists() && path.exists(), "nothing was started, nothing was removed");
    drop(own);
    Ok(())
}

fn another_wrap(world: &World) -> Result {
    let path = world.file("a.sock");
    let text = path.display().to_string();
    let mut first = world.wrap(&["--socket", &text, "--", &world.unixd(), &text])?;
    let pid = wait_until(SOON, "it answers", || ping(&path).ok())?;
    let mut second = world.wrap(&["--socket", &text, "--", &world.unixd(), &text])?;
    second.exits(SOON, 125)?;
    second.says(SOON, &format!("pid {pid}"))?;
    ensure!(ping(&path)? == pid, "the first serves on");
    first.signal(Signal::SIGTERM)?;
    first.exits(SOON, 0)
}

fn stale(world: &World) -> Result {
    let path = world.file("a.sock");
    let text = path.display().to_string();
    drop(UnixListener::bind(&path)?);
    let wrapped = world.wrap(&["--socket", &text, "--", &world.unixd(), "--refuse-stale", &text])?;
    wait_until(SOON, "it answers", || ping(&path).is_ok())?;
    wrapped.says(SOON, &format!("{text}: removed a stale socket"))
}

fn file(world: &World) -> Result {
    let path = world.write("a.sock", "kept")?;
    let mut wrapped = world.wrap(&["--socket", &path.display().to_string(), "--", "/bin/true"])?;
    wrapped.exits(SOON, 125)?;
    wrapped.says(SOON, "a regular file lies here, not a socket, and is left alone")?;
    ensure!(fs::read(&path)? == b"kept", "it is");
    Ok(())
}
