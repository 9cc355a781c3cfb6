//! A server closes its listener and lives on, its clients still connected. Their connections bear the name of the file:
//! they are no listeners.

use nix::sys::signal::Signal;
use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{SOON, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, processes};

pub const ROW: Row = Row {
    name: "closed_and_not_removed",
    done: "the server closes its listener, and its connections and its file stay",
    verdict: "stale",
    reason: "closed and not removed",
    clients: "ECONNREFUSED",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve(world, &["--close"])?;
    let _clients = wait_in_line(&path, 3)?;
    processes::signal(pid, Signal::SIGUSR2);
    // The end of a listener raises no event: the period finds it.
    world.expect_fault(&ROW, "web", "rpc.sock", SOON)?;
    ensure!(world.service("web")?.pid("pid")? == pid, "the process lives");
    world.cured_by_clean_restart("web", "rpc.sock")
}
