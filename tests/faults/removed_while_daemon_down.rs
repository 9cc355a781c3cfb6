//! Nobody looked when the file went; the next daemon finds it missing.

use scenarios::fault_matrix::{SOON, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "removed_while_daemon_down",
    done: "`rm` of the file while the daemon is down",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve(world, &[])?;
    world.kill_daemon()?;
    world.hand("rm", &[&path])?;
    world.start_daemon()?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", SOON)?;
    ensure!(row.field("culprit").is_null(), "nobody saw who did it: {row}");
    ensure!(world.service("web")?.pid("pid")? == pid, "the instance was adopted, not started anew");
    world.cured_by_clean_restart("web", "rpc.sock")
}
