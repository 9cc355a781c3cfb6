//! The path becomes a symbolic link to the same socket under another name: clients get through.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "symlink_to_the_socket",
    done: "a symbolic link to the same socket takes the place of its file",
    verdict: "ok",
    reason: "reached through a symbolic link",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let other = world.socket("web", "real.sock");
    let link = world.socket("web", "link");
    world.hand("ln", &[&path, &other])?;
    world.hand("ln", &["-s".as_ref(), other.as_os_str(), link.as_os_str()])?;
    // One rename: the name is never missing.
    world.hand("mv", &[&link, &path])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
