//! A container's view of one socket file: the mount keeps the inode of an instance that is long gone over the new one's path.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "bind_mount_of_old_inode",
    done: "a bind mount of the old instance's file over the new one's",
    verdict: "replaced",
    reason: "a socket that nobody listens on lies at the path",
    clients: "ECONNREFUSED",
    relink: Relink::Stays("a mount lies there"),
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let old = world.file("old.sock");
    world.hand("ln", &[&path, &old])?;
    world.cured_by_clean_restart("web", "rpc.sock")?;
    world.hand("mount", &["--bind".as_ref(), old.as_os_str(), path.as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.hand("umount", &[&path])?;
    world.serves_again("web", "rpc.sock")
}
