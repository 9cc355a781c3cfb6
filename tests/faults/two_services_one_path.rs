//! Two specs with one path: the second is refused, and the first is not touched.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World, ensure, specs};
use serde_json::json;

pub const ROW: Row = Row {
    name: "two_services_one_path",
    done: "a second service that declares the same path is registered: it is refused",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let second = specs::unixd_on(world, "second", &[&path.display().to_string()], &[]);
    let refused = world.rpc_error("service.set", json!({"spec": second}))?;
    ensure!(refused.kind == "bad_spec" && refused.message.contains("web"), "it says whose it is: {refused}");
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
