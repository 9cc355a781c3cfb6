//! A server that changes into the folder and binds a bare name: the kernel's list has that, and no folder.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "bound_by_relative_name",
    done: "the server binds a relative name",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    serve(world, &["--relative"])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
