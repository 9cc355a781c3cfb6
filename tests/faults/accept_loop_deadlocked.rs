//! A server that lives, and never calls `accept` again: a lock, an endless loop, a thread that died.

use nix::sys::signal::Signal;
use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Relink, Result, Row, World, processes};
use serde_json::json;

pub const ROW: Row = Row {
    name: "accept_loop_deadlocked",
    done: "the accept loop is deadlocked, and two clients wait",
    verdict: "wedged",
    reason: "connections wait",
    clients: "a hang",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve_with(world, &["--stop-accepting"], json!({"wedged_after": "1sec"}))?;
    processes::signal_taken(pid, Signal::SIGUSR1)?;
    let _wait = wait_in_line(&path, 2)?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
