//! Somebody starts the server a second time by hand: it unlinks what lies at the path, binds, and serves.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, processes};

pub const ROW: Row = Row {
    name: "second_instance_steals_path",
    done: "a second instance, started by hand, unlinks and binds",
    verdict: "replaced",
    reason: "outside this service, listens at the path",
    clients: "the wrong server",
    relink: Relink::Stays("what lies there is in use"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (pid, path) = serve(world, &[])?;
    let mut second = world.too_late_for_relinking(|| world.stranger(&[], &path))?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    ensure!(
        row.text("reason")?.contains(&second.pid.to_string()),
        "the reason names pid {}: {row}",
        second.pid
    );
    ensure!(processes::alive(pid), "the service's own process lives: {row}");
    world.cured_by_clean_restart("web", "rpc.sock")?;
    second.ended()
}
