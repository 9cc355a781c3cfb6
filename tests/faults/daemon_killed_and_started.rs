//! The daemon is killed and started again, twice: the service never notices, and nobody is told that anything was amiss.

use scenarios::fault_matrix::{SOON, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "daemon_killed_and_started",
    done: "SIGKILL of the daemon, and a new one started",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve(world, &[])?;
    for _ in 0..2 {
        world.kill_daemon()?;
        world.start_daemon()?;
        world.wait_status("web", "running", SOON)?;
    }
    world.expect_fault(&ROW, "web", "rpc.sock", SOON)?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    let verdicts = world.verdicts("web", "rpc.sock")?;
    let once_ok = verdicts.iter().skip_while(|verdict| *verdict != "ok").all(|verdict| verdict == "ok");
    ensure!(once_ok, "a false alarm: {verdicts:?}");
    Ok(())
}
