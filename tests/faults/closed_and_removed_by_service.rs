//! A server that closes in an orderly way, and does not end: it hangs in what comes after.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, processes};

pub const ROW: Row = Row {
    name: "closed_and_removed_by_service",
    done: "the server closes its listener, removes its file, and lives on",
    verdict: "absent",
    reason: "closed and removed by the service",
    clients: "ENOENT",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve(world, &["--close-unlinks"])?;
    processes::signal(pid, Signal::SIGUSR2);
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(world.service("web")?.pid("pid")? == pid, "the process lives");
    world.cured_by_clean_restart("web", "rpc.sock")
}
