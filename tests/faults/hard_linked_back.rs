//! Somebody who kept a hard link puts the file back by hand: the same listener answers.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "hard_linked_back",
    done: "`rm` of the file, and `ln` of a hard link back",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve(world, &[])?;
    let kept = world.file("kept.sock");
    world.hand("ln", &[&path, &kept])?;
    world.hand("rm", &[&path])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.hand("ln", &[&kept, &path])?;
    world.serves_again("web", "rpc.sock")?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    Ok(())
}
