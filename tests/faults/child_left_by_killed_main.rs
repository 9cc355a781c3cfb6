//! The main process is killed, and a child that inherited the listener ignores SIGTERM: it is ended with the rest of the
//! instance, and nobody is told that the socket is well meanwhile.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Relink, Result, Row, World, ensure, processes, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "child_left_by_killed_main",
    done: "SIGKILL of the main process, whose child keeps the listener",
    verdict: "stale",
    reason: "exited without cleaning",
    clients: "ECONNREFUSED",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (main, _) = serve_with(world, &["--child-stays"], json!({"stop": {"timeout": "500ms"}}))?;
    let child = wait_until(AT_ONCE, "a child holds the listener", || {
        world.instance_pids("web").ok()?.into_iter().find(|pid| *pid != main)
    })?;
    processes::signal(main, Signal::SIGKILL);
    world.expect_fault_of_dead(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(!processes::alive(child), "the child {child} was ended");
    world.cured_by_clean_restart("web", "rpc.sock")
}
