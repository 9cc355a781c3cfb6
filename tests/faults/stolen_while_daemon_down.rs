//! Somebody took the path while nobody looked.

use scenarios::fault_matrix::{SOON, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "stolen_while_daemon_down",
    done: "a second instance takes the path while the daemon is down",
    verdict: "replaced",
    reason: "outside this service, listens at the path",
    clients: "the wrong server",
    relink: Relink::Stays("what lies there is in use"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve(world, &[])?;
    world.kill_daemon()?;
    let mut second = world.stranger(&[], &path)?;
    world.start_daemon()?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", SOON)?;
    ensure!(row.text("reason")?.contains(&second.pid.to_string()), "it names pid {}: {row}", second.pid);
    ensure!(world.service("web")?.pid("pid")? == pid, "the instance was adopted, not started anew");
    world.cured_by_clean_restart("web", "rpc.sock")?;
    second.ended()
}
