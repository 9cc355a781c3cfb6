//! A slow server whose queue is hardly ever empty, and always moves: nobody waits for longer than may be.

use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::wait::holds_for;
use scenarios::{Json, Relink, Result, Row, World, ensure};
use serde_json::json;
use std::time::Duration;

pub const ROW: Row = Row {
    name: "slow_server_keeps_up",
    done: "a slow server accepts one client in 200 ms, and two always wait",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve_with(world, &["--accept-every", "200"], json!({"wedged_after": "1sec"}))?;
    let mut clients = Vec::new();
    let mut waited = false;
    holds_for(Duration::from_secs(2), "it is ok while clients wait and are accepted", || {
        let row = world.socket_row("web", "rpc.sock")?;
        let waiting = row.int("pending").unwrap_or_default();
        waited |= waiting > 0;
        if waiting < 2 {
            clients.extend(wait_in_line(&path, 1)?);
        }
        Ok(row.text("verdict")? == "ok")
    })?;
    ensure!(waited && clients.len() > 5, "{} clients were accepted one by one", clients.len());
    drop(clients);
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
