//! Most run folders are a tmpfs.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "on_tmpfs",
    done: "a socket on a tmpfs",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let sockets = world.sockets();
    world.hand("mount", &["-t".as_ref(), "tmpfs".as_ref(), "tmpfs".as_ref(), sockets.as_os_str()])?;
    let (_, path) = serve(world, &[])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")?;
    // And what is a fault is seen there too.
    world.hand("rm", &[&path])?;
    world.wait_verdict("web", "rpc.sock", "dangling", "removed", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
