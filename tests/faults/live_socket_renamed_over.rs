//! Another server binds a temporary name and renames it into place: over the path of a live one.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "live_socket_renamed_over",
    done: "another server renames its live socket over the file",
    verdict: "replaced",
    reason: "outside this service, listens at the path",
    clients: "the wrong server",
    relink: Relink::Stays("what lies there is in use"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let mut other = world.stranger(&["--bind-temp-rename"], &path)?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(
        row.text("reason")?.contains(&other.pid.to_string()),
        "the reason names pid {}: {row}",
        other.pid
    );
    world.wait_verdict("web", "rpc.sock", ROW.verdict, "renamed over", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")?;
    other.ended()
}
