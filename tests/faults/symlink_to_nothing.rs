//! A symbolic link that leads nowhere, over the socket's name.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "symlink_to_nothing",
    done: "`ln -sf` of a link to nothing over the file",
    verdict: "replaced",
    reason: "a symbolic link",
    clients: "ENOENT",
    relink: Relink::Stays("what lies there is no dead socket, and may be wanted"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    world.hand("sh", &["-c".as_ref(), "ln -sf nothing $1".as_ref(), "sh".as_ref(), path.as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.hand("rm", &[path.as_os_str()])?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
