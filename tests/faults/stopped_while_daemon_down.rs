//! The service was stopped while nobody looked; the next daemon finds out who waits.

use nix::sys::signal::Signal;
use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{SOON, serve_with};
use scenarios::{Relink, Result, Row, World, processes};
use serde_json::json;

pub const ROW: Row = Row {
    name: "stopped_while_daemon_down",
    done: "SIGSTOP of the service while the daemon is down, and two clients wait",
    verdict: "wedged",
    reason: "stopped (SIGSTOP",
    clients: "a hang",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve_with(world, &[], json!({"wedged_after": "1sec"}))?;
    world.kill_daemon()?;
    processes::signal(pid, Signal::SIGSTOP);
    let _wait = wait_in_line(&path, 2)?;
    world.start_daemon()?;
    world.expect_fault(&ROW, "web", "rpc.sock", SOON)?;
    processes::signal(pid, Signal::SIGCONT);
    world.serves_again("web", "rpc.sock")
}
