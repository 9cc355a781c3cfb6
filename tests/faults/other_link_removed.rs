//! A socket with two names loses the one that nobody declared: clients of the other lose nothing.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "other_link_removed",
    done: "`rm` of another hard link to the same socket",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let other = world.socket("web", "other.sock");
    world.hand("ln", &[&path, &other])?;
    world.hand("rm", &[&other])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE).map(drop)
}
