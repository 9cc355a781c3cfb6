//! The main process runs, and every worker that would accept is stopped.

use nix::sys::signal::Signal;
use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Relink, Result, Row, World, processes, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "workers_all_stopped",
    done: "SIGSTOP of all workers, while two clients wait; then SIGCONT",
    verdict: "wedged",
    reason: "connections wait",
    clients: "a hang",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (main, path) = serve_with(world, &["--fork-workers", "2"], json!({"wedged_after": "1sec"}))?;
    let workers = wait_until(AT_ONCE, "two workers run", || {
        let mut workers = world.instance_pids("web").ok()?;
        workers.retain(|pid| *pid != main);
        (workers.len() == 2).then_some(workers)
    })?;
    for worker in &workers {
        processes::signal(*worker, Signal::SIGSTOP);
    }
    let _wait = wait_in_line(&path, 2)?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    for worker in &workers {
        processes::signal(*worker, Signal::SIGCONT);
    }
    world.serves_again("web", "rpc.sock")
}
