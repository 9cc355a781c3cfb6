//! The folder goes with all that is in it.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "folder_removed",
    done: "`rm -rf` of the socket's folder",
    verdict: "dangling",
    reason: "its folder was removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    serve(world, &[])?;
    world.too_late_for_relinking(|| {
        world.hand("rm", &["-rf".as_ref(), world.sockets().join("web").as_os_str()])
    })?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
