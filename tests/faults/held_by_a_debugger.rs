//! A debugger holds the server: its clients connect, and wait. SIGCONT would not wake it, so that is not what is said.

use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use scenarios::client::wait_in_line;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Need, Relink, Result, Row, World, ensure, processes};
use serde_json::json;

pub const ROW: Row = Row {
    name: "held_by_a_debugger",
    done: "a debugger stops it (ptrace), while a client waits; then lets it go",
    verdict: "wedged",
    reason: "stopped by a debugger",
    clients: "a hang",
    relink: Relink::Same,
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve_with(world, &[], json!({"wedged_after": "1sec"}))?;
    let debugged = Pid::from_raw(pid);
    // What is attached to is this thread's until it is let go.
    ptrace::attach(debugged)?;
    waitpid(debugged, None)?;
    let _waits = wait_in_line(&path, 1)?;
    let seen = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE);
    ptrace::detach(debugged, None)?;
    seen?;
    world.serves_again("web", "rpc.sock")?;
    ensure!(processes::alive(pid), "without a restart");
    Ok(())
}
