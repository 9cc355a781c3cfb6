//! The file is mounted over itself, as sandboxes do to make it read-only: the same inode, and the same server.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "bind_mount_of_same_file",
    done: "a bind mount of the socket's file over itself",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    world.hand("mount", &["--bind", &path.display().to_string(), &path.display().to_string()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.hand("umount", &[&path])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE).map(drop)
}
