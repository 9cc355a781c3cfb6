//! The file is moved to another name: the listener goes with it, and clients that know the old name are lost until it is back.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "renamed_away_and_back",
    done: "`mv` of the file to another name, and back",
    verdict: "dangling",
    reason: "renamed to ",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve(world, &[])?;
    let aside = world.socket("web", "rpc.sock.bak");
    let mv = world.hand("mv", &[&path, &aside])?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let place = format!("renamed to {}", aside.display());
    ensure!(row.text("reason")?.contains(&place), "the reason says where it is: {row}");
    world.expect_culprit("web", "rpc.sock", &mv)?;
    world.hand("mv", &[&aside, &path])?;
    world.serves_again("web", "rpc.sock")?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    Ok(())
}
