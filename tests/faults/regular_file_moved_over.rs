//! A file written aside and moved into place, as deployments do, over the path of a live socket.

use scenarios::fault_matrix::AT_ONCE;
use scenarios::{Json, Result, Row, World, ensure, specs};

pub const ROW: Row = Row {
    name: "regular_file_moved_over",
    done: "`mv` of a regular file over the socket's file",
    verdict: "replaced",
    reason: "a regular file lies at the path",
    clients: "ECONNREFUSED",
    needs: &[],
};

pub fn run(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let path = world.socket("web", "rpc.sock");
    let file = world.write("config", "not a socket")?;
    let mv = world.hand("mv", &[&file, &path])?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(row.text("reason")?.contains("renamed over"), "{row}");
    world.expect_culprit("web", "rpc.sock", &mv)?;
    // What is no socket is nobody's to remove but its owner's.
    world.hand("rm", &[&path])?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
