//! The folder is moved aside, socket and all, and moved back.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "folder_renamed_and_back",
    done: "`mv` of the socket's folder, and back",
    verdict: "dangling",
    reason: "its folder was moved to ",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve(world, &[])?;
    let (folder, aside) = (world.sockets().join("web"), world.sockets().join("web.old"));
    world.hand("mv", &[&folder, &aside])?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let place = format!("moved to {}", aside.display());
    ensure!(row.text("reason")?.contains(&place), "the reason says where it is: {row}");
    world.hand("mv", &[&aside, &folder])?;
    world.serves_again("web", "rpc.sock")?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    Ok(())
}
