//! A child that holds the listener has left the service's cgroup (a session, a container took it over). The main process
//! is killed, and the next generation finds a live server at its path.

use nix::sys::signal::Signal;
use scenarios::cgroups;
use scenarios::fault_matrix::{SOON, serve_with};
use scenarios::{Need, Result, Row, World, ensure, processes, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "orphan_keeps_next_from_binding",
    done: "a child that left the cgroup keeps the listener, the main process is killed, and the next one cannot bind",
    verdict: "foreign",
    reason: "an orphan of generation 1 of this service",
    clients: "a hang",
    needs: &[Need::Root, Need::Cgroup],
};

pub fn run(world: &World) -> Result {
    let options = ["--child-stays", "--refuse-stale", "--run-on"];
    let fields = json!({
        "restart": {"policy": "always", "delay": "20ms", "limit": 2},
        "ready": {"timeout": "1sec"},
        "stop": {"timeout": "500ms"},
    });
    let (main, _) = serve_with(world, &options, fields)?;
    let child = wait_until(SOON, "a child holds the listener", || {
        world.instance_pids("web").ok()?.into_iter().find(|pid| *pid != main)
    })?;
    cgroups::take_out(child)?;
    processes::signal(main, Signal::SIGKILL);
    world.expect_fault(&ROW, "web", "rpc.sock", SOON)?;
    ensure!(processes::alive(child), "the orphan {child} holds it");
    world.cured_by_clean_restart("web", "rpc.sock")?;
    ensure!(!processes::alive(child), "the orphan {child} is ended");
    Ok(())
}
