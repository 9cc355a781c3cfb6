//! The folder that holds the services' folders goes.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "parent_removed",
    done: "`rm -rf` of the folder above the socket's",
    verdict: "dangling",
    reason: "its folder was removed",
    clients: "ENOENT",
    relink: Relink::Restarted("its pin went too"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    serve(world, &[])?;
    world.too_late_for_relinking(|| world.hand("rm", &["-rf".as_ref(), world.sockets().as_os_str()]))?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
