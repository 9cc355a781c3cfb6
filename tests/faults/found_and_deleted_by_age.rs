//! A line in a crontab that deletes what is old, sockets in use among it.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};
use std::ffi::OsStr;

pub const ROW: Row = Row {
    name: "found_and_deleted_by_age",
    done: "`find -mtime +1 -delete` from a crontab",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::Restarted("its pin went too"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    world.hand("touch", &["-d".as_ref(), "3 days ago".as_ref(), path.as_os_str()])?;
    let sockets = world.sockets();
    let rule = ["-mindepth", "2", "-mtime", "+1", "-delete"];
    let arguments: Vec<&OsStr> = [sockets.as_os_str()].into_iter().chain(rule.map(OsStr::new)).collect();
    let find = world.too_late_for_relinking(|| world.hand("find", &arguments))?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.expect_culprit("web", "rpc.sock", &find)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
