//! A server that accepts, but slower than its clients come: they wait for longer than they may, and then it catches up.

use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, SOON, serve_with};
use scenarios::{Json, Relink, Result, Row, World, ensure};
use serde_json::json;

pub const ROW: Row = Row {
    name: "slow_server_falls_behind",
    done: "a slow server accepts one client in 2 s, and falls behind",
    verdict: "wedged",
    reason: "connections wait",
    clients: "a hang",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve_with(world, &["--accept-every", "2000"], json!({"wedged_after": "1sec"}))?;
    // The first one is taken at once.
    let _wait = wait_in_line(&path, 4)?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    // A client of its own would be the next to wait.
    world.wait_verdict("web", "rpc.sock", "ok", "", SOON)?;
    world.wait_status("web", "running", SOON)?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    Ok(())
}
