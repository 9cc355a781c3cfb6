//! A reload: the server removes its own file, and binds anew a moment later, within its `settle`.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Json, Need, Relink, Result, Row, World, ensure, processes, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "reload_within_settle",
    done: "the server reloads: unlinks its file, and binds anew 50 ms later",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    // An ordinary user's daemon cannot know who did it, and tells whoever asks.
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve_with(world, &["--reload-takes", "50"], json!({"settle": "1sec"}))?;
    let before = world.socket_row("web", "rpc.sock")?.int("inode")?;
    processes::signal(pid, Signal::SIGHUP);
    wait_until(AT_ONCE, "the new listener is known", || {
        let row = world.socket_row("web", "rpc.sock").ok()?;
        (row.int("inode").ok()? != before && row.text("verdict").ok()? == "ok").then_some(())
    })?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    world.stayed_well("web", "rpc.sock")
}
