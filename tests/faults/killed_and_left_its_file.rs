//! `kill -9` of a server that nothing starts again: its file stays, and refuses everybody.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World, processes};

pub const ROW: Row = Row {
    name: "killed_and_left_its_file",
    done: "SIGKILL of the only process",
    verdict: "stale",
    reason: "exited without cleaning",
    clients: "ECONNREFUSED",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve(world, &[])?;
    processes::signal(pid, Signal::SIGKILL);
    world.expect_fault_of_dead(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
