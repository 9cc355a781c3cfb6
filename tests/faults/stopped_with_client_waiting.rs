//! A server that was stopped (Ctrl-Z, a debugger, a freezer): its clients connect, and wait for ever.

use nix::sys::signal::Signal;
use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Json, Relink, Result, Row, World, ensure, processes};
use serde_json::json;

pub const ROW: Row = Row {
    name: "stopped_with_client_waiting",
    done: "SIGSTOP, while a client waits; then SIGCONT",
    verdict: "wedged",
    reason: "stopped (SIGSTOP",
    clients: "a hang",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve_with(world, &[], json!({"wedged_after": "1sec"}))?;
    processes::signal(pid, Signal::SIGSTOP);
    let _waits = wait_in_line(&path, 1)?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(row.int("pending")? > 0 && row.pid("pid")? == pid, "it says how many wait, and for whom: {row}");
    processes::signal(pid, Signal::SIGCONT);
    world.serves_again("web", "rpc.sock")?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    Ok(())
}
