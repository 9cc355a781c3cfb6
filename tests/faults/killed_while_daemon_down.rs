//! The daemon was killed, and then the service: the next daemon knows what was there.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::{SOON, serve};
use scenarios::{Relink, Result, Row, World, processes, wait_until};

pub const ROW: Row = Row {
    name: "killed_while_daemon_down",
    done: "SIGKILL of the service while the daemon is down",
    verdict: "stale",
    reason: "exited without cleaning",
    clients: "ECONNREFUSED",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve(world, &[])?;
    world.kill_daemon()?;
    processes::signal(pid, Signal::SIGKILL);
    wait_until(SOON, format!("{pid} is dead"), || !processes::alive(pid))?;
    world.start_daemon()?;
    world.expect_fault_of_dead(&ROW, "web", "rpc.sock", SOON)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
