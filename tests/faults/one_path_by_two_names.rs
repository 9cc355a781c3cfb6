//! The same, by a name that no look at the specs can see through: a folder that is a link to the other's. The second one
//! finds a live server at its path, and leaves it alone.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Relink, Result, Row, World, ensure, specs};
use serde_json::json;

pub const ROW: Row = Row {
    name: "one_path_by_two_names",
    done: "a second service declares the same path through a linked folder",
    verdict: "foreign",
    reason: "it is of the service web",
    clients: "the wrong server",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    serve(world, &[])?;
    let linked = world.file("linked");
    world.hand("ln", &["-s".as_ref(), world.sockets().join("web").as_os_str(), linked.as_os_str()])?;
    let socket = linked.join("rpc.sock").display().to_string();
    world.register(&specs::unixd_on(world, "second", &[&socket], &[]))?;
    let started = world.rpc("service.start", json!({"name": "second"}))?;
    ensure!(started.only()?.text("status")? == "failed", "it does not come up: {started}");
    world.expect_fault_of_dead(&ROW, "second", &socket, AT_ONCE)?;
    let web = world.service("web")?;
    ensure!(web.text("status")? == "running", "the first has lost nothing: {web}");
    world.stayed_well("web", "rpc.sock")
}
