//! A worker has inherited the exit handler that removes the file, and is recycled: the server lives on without its name.

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use scenarios::client::ping;
use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::hand::Hand;
use scenarios::{Json, Relink, Result, Row, World, ensure, processes};

pub const ROW: Row = Row {
    name: "worker_exit_unlinks",
    done: "the exit of one worker of several",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (main, path) = serve(world, &["--fork-workers", "2", "--workers-unlink"])?;
    let worker = ping(&path)?;
    ensure!(worker != main, "the workers serve, and {main} only holds them");
    processes::signal(worker, Signal::SIGTERM);
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(processes::alive(main) && row.pid("pid")? != worker, "the server itself lives: {row}");
    let uid = world.user().map_or(geteuid(), |user| user.uid).as_raw();
    world.expect_culprit("web", "rpc.sock", &Hand { pid: worker, name: "unixd".into(), uid })?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
