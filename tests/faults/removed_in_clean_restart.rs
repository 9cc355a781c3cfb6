//! The new file is removed in the very moment in which `restart --clean` brings the service up: the restart notices, and
//! makes a second attempt.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::wait::wait_for;
use scenarios::{Fault, Json, Relink, Result, Row, World, ensure};
use serde_json::json;
use std::fs;
use std::time::Duration;

pub const ROW: Row = Row {
    name: "removed_in_clean_restart",
    done: "`rm` of the new file in the moment of a `restart --clean`",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

const SOON: Duration = Duration::from_secs(10);

pub fn run(world: &World) -> Result {
    let (old, path) = serve(world, &["--listen-after", "100"])?;
    // Not its ctime: a pin that is taken away changes that of the old one.
    let known = fs::symlink_metadata(&path)?.created()?;
    let restarted = std::thread::scope(|scope| {
        let restarting = scope.spawn(|| world.rpc("service.restart", json!({"name": "web", "clean": true})));
        wait_for(SOON, "the new instance binds", || {
            Ok(fs::symlink_metadata(&path).and_then(|file| file.created()).is_ok_and(|born| born != known))
        })?;
        world.hand("rm", &[&path])?;
        restarting.join().map_err(|_| Fault::new("the request panicked"))?
    })?;
    let row = restarted.only()?;
    ensure!(
        row.text("outcome")? == "restarted" && row.pid("new_pid")? != old,
        "the second attempt works: {row}"
    );
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE).map(drop)
}
