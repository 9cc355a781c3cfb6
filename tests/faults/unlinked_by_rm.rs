//! The plain case: somebody removes the file of a socket in use.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "unlinked_by_rm",
    done: "`rm` of the socket's file",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let rm = world.hand("rm", &[&path])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let row = world.expect_culprit("web", "rpc.sock", &rm)?;
    let named = row.text("reason")?.contains(&format!("removed by {rm}"));
    ensure!(named == world.names_culprits(), "the reason names {rm} if it is known: {row}");
    world.cured_by_clean_restart("web", "rpc.sock")
}
