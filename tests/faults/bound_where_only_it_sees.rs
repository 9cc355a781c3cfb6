//! A service whose folder is a file system of its own mount namespace, as a private `/tmp` is: it listens, and nobody else
//! finds the file.

use scenarios::fault_matrix::AT_ONCE;
use scenarios::{Json, Need, Relink, Result, Row, World, ensure, specs};
use serde_json::json;

pub const ROW: Row = Row {
    name: "bound_where_only_it_sees",
    done: "the service mounts a tmpfs over its folder, in a mount namespace of its own, and binds there",
    verdict: "dangling",
    reason: "that only its process sees",
    clients: "ENOENT",
    relink: Relink::Untried,
    needs: &[Need::Root, Need::Program("unshare")],
};

pub fn run(world: &World) -> Result {
    world.start_daemon()?;
    let line = "mount -t tmpfs own \"$(dirname \"$1\")\" && exec \"$0\" \"$1\"";
    let exec = ["unshare", "--mount", "sh", "-c", line, &world.unixd(), "{socket:rpc.sock}"];
    let fields = json!({"exec": exec, "ready": {"timeout": "3sec"}});
    world.register(&specs::with(specs::unixd(world, "web", &[]), fields))?;
    let started = world.rpc("service.start", json!({"name": "web"}))?;
    ensure!(started.only()?.text("status")? == "failed", "it does not come up: {started}");
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE).map(drop)
}
