//! A queue without room: whoever comes next hangs in `connect`, or gets EAGAIN if it does not wait. That is so at once,
//! however long a connection may wait.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use scenarios::client::{connect_now, wait_in_line};
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Json, Relink, Result, Row, World, ensure, processes};
use serde_json::json;

pub const ROW: Row = Row {
    name: "backlog_full",
    done: "nobody accepts, and the queue is full",
    verdict: "wedged",
    reason: "the queue is full",
    clients: "a hang",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let options = ["--stop-accepting", "--backlog", "2"];
    let (pid, path) = serve_with(world, &options, json!({"wedged_after": "1min"}))?;
    processes::signal_taken(pid, Signal::SIGUSR1)?;
    // The kernel takes one more than the backlog.
    let _wait = wait_in_line(&path, 3)?;
    let next = connect_now(&path)?.map(drop);
    ensure!(next == Err(Errno::EAGAIN), "there is no room for a further client: {next:?}");
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(row.int("pending")? == 3 && row.int("backlog")? == 2, "{row}");
    world.cured_by_clean_restart("web", "rpc.sock")
}
