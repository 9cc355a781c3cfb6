//! The file system that holds the folder is unmounted lazily: the server keeps its socket, and nobody else gets there.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "lazily_unmounted",
    done: "`umount -l` of the file system that holds the socket's folder",
    verdict: "dangling",
    reason: "unmounted",
    clients: "ENOENT",
    relink: Relink::Restarted("its pin went with the mount"),
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let folder = world.sockets().join("web");
    world.hand("mkdir", &[&folder])?;
    world.hand("mount", &["-t".as_ref(), "tmpfs".as_ref(), "tmpfs".as_ref(), folder.as_os_str()])?;
    serve(world, &[])?;
    world.hand("umount", &["-l".as_ref(), folder.as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
