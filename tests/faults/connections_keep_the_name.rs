//! Accepted connections bear their listener's name and inode in the kernel's list, those of a listener before the last
//! reload too.

use nix::sys::signal::Signal;
use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Json, Relink, Result, Row, World, processes, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "connections_keep_the_name",
    done: "a hundred accepted connections, half of them of a listener before a reload",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve_with(world, &["--reload"], json!({"settle": "1sec"}))?;
    let inode = || world.socket_row("web", "rpc.sock")?.int("inode");
    let accepted = || Ok::<_, scenarios::Fault>(world.socket_row("web", "rpc.sock")?.int("pending")? == 0);
    let mut clients = wait_in_line(&path, 50)?;
    wait_until(AT_ONCE, "all are accepted", || accepted().unwrap_or(false))?;
    let before = inode()?;
    processes::signal(pid, Signal::SIGHUP);
    wait_until(AT_ONCE, "the new listener is known", || inode().is_ok_and(|inode| inode != before))?;
    world.wait_verdict("web", "rpc.sock", "ok", "", AT_ONCE)?;
    clients.extend(wait_in_line(&path, 50)?);
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
