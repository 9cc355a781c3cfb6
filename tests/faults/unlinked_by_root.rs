//! A service of an ordinary user, and an administrator who tidies up.

use scenarios::fault_matrix::AT_ONCE;
use scenarios::{Need, Relink, Result, Row, World, specs};
use serde_json::json;

pub const ROW: Row = Row {
    name: "unlinked_by_root",
    done: "`rm` by root, of the socket of an ordinary user's service",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[Need::Root, Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    world.start_daemon()?;
    let nobody = json!({"user": "nobody"});
    world.up(&specs::with(specs::unixd(world, "web", &[]), nobody))?;
    let rm = world.hand("rm", &["-f".as_ref(), world.socket("web", "rpc.sock").as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.expect_culprit("web", "rpc.sock", &rm)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
