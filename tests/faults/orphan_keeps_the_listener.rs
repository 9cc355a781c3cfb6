//! A child that holds the listener has left the service's cgroup (a session, a container took it over). The main process
//! is killed, and its listener is a stranger's now: the next start would end it first.

use nix::sys::signal::Signal;
use scenarios::cgroups;
use scenarios::fault_matrix::{SOON, serve_with};
use scenarios::{Need, Relink, Result, Row, World, ensure, processes, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "orphan_keeps_the_listener",
    done: "a child that left the cgroup keeps the listener, and the main process is killed",
    verdict: "foreign",
    reason: "an orphan of generation 1 of this service",
    clients: "a hang",
    relink: Relink::Untried,
    needs: &[Need::Root, Need::Cgroup],
};

pub fn run(world: &World) -> Result {
    let (main, _) = serve_with(world, &["--child-stays"], json!({"stop": {"timeout": "500ms"}}))?;
    let child = wait_until(SOON, "a child holds the listener", || {
        world.instance_pids("web").ok()?.into_iter().find(|pid| *pid != main)
    })?;
    cgroups::take_out(child)?;
    processes::signal(main, Signal::SIGKILL);
    world.expect_fault_of_dead(&ROW, "web", "rpc.sock", SOON)?;
    ensure!(processes::alive(child), "the orphan {child} holds it");
    world.cured_by_clean_restart("web", "rpc.sock")?;
    ensure!(!processes::alive(child), "the orphan {child} is ended");
    Ok(())
}
