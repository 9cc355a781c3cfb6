//! A service with mounts of its own, as a sandboxed unit has: its folder is the same as ours.

use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Need, Relink, Result, Row, World};
use serde_json::json;

pub const ROW: Row = Row {
    name: "in_own_mount_namespace",
    done: "the service has a mount namespace of its own",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[Need::Root, Need::Program("unshare")],
};

pub fn run(world: &World) -> Result {
    let exec = ["unshare".to_owned(), "--mount".to_owned(), world.unixd(), "{socket:rpc.sock}".to_owned()];
    serve_with(world, &[], json!({"exec": exec}))?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
