//! Two thousand listeners in the same folder, of which thousands come and go each second: a dump of the kernel's list
//! misses live sockets then.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::wait::holds_for;
use scenarios::{Json, Relink, Result, Row, World};
use std::time::Duration;

pub const ROW: Row = Row {
    name: "listeners_churn_beside",
    done: "2,000 unrelated listeners come and go in the same folder",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    serve(world, &[])?;
    let beside = |number: u32| world.socket("web", &format!("beside{number}.sock"));
    let others = (0..4).map(|number| world.stranger(&["--churn", "500"], &beside(number)));
    let _others = others.collect::<Result<Vec<_>>>()?;
    holds_for(Duration::from_secs(3), "it is ok beside them", || {
        Ok(world.socket_row("web", "rpc.sock")?.text("verdict")? == "ok")
    })?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
