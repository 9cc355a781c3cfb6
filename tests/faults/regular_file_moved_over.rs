//! A file written aside and moved into place, as deployments do, over the path of a live socket.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "regular_file_moved_over",
    done: "`mv` of a regular file over the socket's file",
    verdict: "replaced",
    reason: "a regular file lies at the path",
    clients: "ECONNREFUSED",
    relink: Relink::Stays("what lies there is no dead socket, and may be wanted"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let file = world.write("config", "not a socket")?;
    let mv = world.hand("mv", &[&file, &path])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.wait_verdict("web", "rpc.sock", ROW.verdict, "renamed over", AT_ONCE)?;
    world.expect_culprit("web", "rpc.sock", &mv)?;
    // What is no socket is nobody's to remove but its owner's.
    world.hand("rm", &[&path])?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
