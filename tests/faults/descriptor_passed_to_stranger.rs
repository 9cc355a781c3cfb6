//! A server hands its listener to another program (SCM_RIGHTS), and dies: the other one serves on at its path.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, processes, wait_until};
use std::fs;

pub const ROW: Row = Row {
    name: "descriptor_passed_to_stranger",
    done: "the listener is passed to a stranger (SCM_RIGHTS), and the service killed",
    verdict: "foreign",
    reason: "outside this service, listens at the path",
    clients: "the wrong server",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let hands = world.file("hands.sock");
    let place = hands.display().to_string();
    let mut stranger = world.stranger(&["--take", &place], &world.file("other.sock"))?;
    let (pid, _) = serve(world, &["--give", &place])?;
    let inode = world.socket_row("web", "rpc.sock")?.int("inode")?;
    processes::signal(pid, Signal::SIGUSR2);
    wait_until(AT_ONCE, format!("the stranger {} holds the listener", stranger.pid), || {
        let held = fs::read_dir(format!("/proc/{}/fd", stranger.pid)).into_iter().flatten().flatten();
        let links = held.filter_map(|entry| fs::read_link(entry.path()).ok());
        links.into_iter().any(|link| link.as_os_str() == format!("socket:[{inode}]").as_str())
    })?;
    world.wait_verdict("web", "rpc.sock", "ok", "", AT_ONCE)?;
    processes::signal(pid, Signal::SIGKILL);
    let row = world.expect_fault_of_dead(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(row.text("reason")?.contains(&stranger.pid.to_string()), "it names pid {}: {row}", stranger.pid);
    world.cured_by_clean_restart("web", "rpc.sock")?;
    stranger.ended()
}
