//! Health checks that connect and close at once, hundreds of them: the queue holds clients that are gone already.

use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::wait::holds_for;
use scenarios::{Json, Relink, Result, Row, World};
use serde_json::json;
use std::time::Duration;

pub const ROW: Row = Row {
    name: "clients_that_give_up",
    done: "hundreds of clients connect, and close at once",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve_with(world, &[], json!({"wedged_after": "500ms"}))?;
    holds_for(Duration::from_secs(1), "it is ok all the while", || {
        for _ in 0..10 {
            match wait_in_line(&path, 1) {
                // On a busy machine it may find the queue full of those before it: it gives up as well.
                Err(fault) if fault.to_string().contains("EAGAIN") => {}
                waited => drop(waited?),
            }
        }
        Ok(world.socket_row("web", "rpc.sock")?.text("verdict")? == "ok")
    })?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
