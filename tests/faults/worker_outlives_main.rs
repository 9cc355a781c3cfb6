//! Workers that inherited the listener go on with it when the main process is killed: they are an instance without a head.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World, ensure, processes};

pub const ROW: Row = Row {
    name: "worker_outlives_main",
    done: "SIGKILL of the main process, whose workers go on",
    verdict: "stale",
    reason: "exited without cleaning",
    clients: "ECONNREFUSED",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (main, _) = serve(world, &["--fork-workers", "2"])?;
    let workers = world.instance_pids("web")?;
    processes::signal(main, Signal::SIGKILL);
    world.expect_fault_of_dead(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let left: Vec<_> = workers.into_iter().filter(|pid| processes::alive(*pid)).collect();
    ensure!(left.is_empty(), "the workers were ended, and {left:?} live");
    world.cured_by_clean_restart("web", "rpc.sock")
}
