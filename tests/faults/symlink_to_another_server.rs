//! A symbolic link over the socket's name leads to the live socket of another service.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, specs};

pub const ROW: Row = Row {
    name: "symlink_to_another_server",
    done: "`ln -sf` of a link to another service's socket over the file",
    verdict: "replaced",
    reason: "outside this service, listens at the path",
    clients: "the wrong server",
    relink: Relink::Stays("what lies there is no dead socket, and may be wanted"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let other = world.up(&specs::unixd(world, "other", &[]))?;
    world.hand("ln", &["-sf".as_ref(), world.socket("other", "rpc.sock").as_os_str(), path.as_os_str()])?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(row.text("reason")?.contains(&other.to_string()), "the reason names pid {other}: {row}");
    let row = world.service("other")?;
    ensure!(row.text("status")? == "running", "the other service has lost nothing: {row}");
    world.hand("rm", &[&path])?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
