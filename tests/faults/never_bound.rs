//! A server whose configuration says another path than its spec.

use scenarios::fault_matrix::AT_ONCE;
use scenarios::{Json, Relink, Result, Row, World, ensure, specs};
use serde_json::json;

pub const ROW: Row = Row {
    name: "never_bound",
    done: "the server binds another path than it declares",
    verdict: "absent",
    reason: "never bound",
    clients: "ENOENT",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    world.start_daemon()?;
    let elsewhere = world.file("other.sock");
    let fields = json!({"exec": [world.unixd(), elsewhere], "ready": {"timeout": "1sec"}});
    world.register(&specs::with(specs::unixd(world, "web", &[]), fields))?;
    let started = world.rpc("service.start", json!({"name": "web"}))?;
    ensure!(started.only()?.text("status")? == "failed", "it does not come up: {started}");
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE).map(drop)
}
