//! A server that binds a temporary name and renames it: the name in the kernel's list is not the path.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "renamed_into_place",
    done: "the server binds a temporary name, and renames it into place",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    serve(world, &["--bind-temp-rename"])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE).map(drop)
}
