//! A server that is bound for a while before it listens: it refuses everybody, is on its way, and is neither stale nor
//! failed.

use scenarios::fault_matrix::{AT_ONCE, SOON};
use scenarios::{Json, Relink, Result, Row, World, ensure, specs, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "bound_before_it_listens",
    done: "the server binds, and listens 300 ms later",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&specs::unixd(world, "web", &["--listen-after", "300"]))?;
    let path = world.socket("web", "rpc.sock");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| world.rpc("service.start", json!({"name": "web"})));
        wait_until(SOON, "it has bound", || path.exists())?;
        let row = world.service("web")?;
        ensure!(row.text("status")? == "starting", "it is on its way: {row}");
        let started = starting.join().map_err(|_| scenarios::Fault::new("the request panicked"))??;
        ensure!(started.only()?.text("status")? == "running", "it comes up: {started}");
        Ok(())
    })?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let verdicts = world.verdicts("web", "rpc.sock")?;
    let harmless = verdicts.iter().all(|verdict| ["absent", "unknown", "ok"].contains(&verdict.as_str()));
    ensure!(harmless, "never called stale: {verdicts:?}");
    world.stayed_well("web", "rpc.sock")
}
