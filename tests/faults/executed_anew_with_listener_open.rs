//! An upgrade in place, or a wrapper: the process executes another program, and the listener stays open.

use nix::sys::signal::Signal;
use scenarios::client::ask;
use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, processes, wait_until};

pub const ROW: Row = Row {
    name: "executed_anew_with_listener_open",
    done: "the process executes another program, with the listener open",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve(world, &["--exec"])?;
    processes::signal(pid, Signal::SIGUSR2);
    wait_until(AT_ONCE, "the program has been executed", || {
        ask(&path, nix::sys::socket::SockType::Stream, "args").is_ok_and(|line| line.contains("__worker"))
    })?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(world.service("web")?.pid("pid")? == pid, "the same process");
    world.stayed_well("web", "rpc.sock")
}
