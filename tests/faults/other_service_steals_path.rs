//! One service binds the path that another one declares: a copied configuration. Both are `shimd`'s own.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, specs};

pub const ROW: Row = Row {
    name: "other_service_steals_path",
    done: "a process of another service unlinks and binds the path",
    verdict: "replaced",
    reason: "it is of the service other",
    clients: "the wrong server",
    // Put back at once, it may be there before the other binds, whose start then fails: a race, with no end to be held to.
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let place = path.display().to_string();
    world.up(&specs::unixd(world, "other", &[&place]))?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let other = world.service("other")?;
    ensure!(other.text("status")? == "running", "the other's own socket is well: {other}");
    world.rpc("service.stop", serde_json::json!({"name": "other"}))?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
