//! A log-out removes `XDG_RUNTIME_DIR`; a service that lingers has its socket there.

use scenarios::fault_matrix::AT_ONCE;
use scenarios::{Relink, Result, Row, World, specs};

pub const ROW: Row = Row {
    name: "logout_takes_run_folder",
    done: "a log-out removes the user's run folder",
    verdict: "dangling",
    reason: "its folder was removed",
    clients: "ENOENT",
    relink: Relink::Restarted("its pin went too"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let run = world.folder().join("x");
    let path = run.join("app/rpc.sock");
    let socket = path.display().to_string();
    world.hand("mkdir", &[run.join("app")])?;
    world.start_daemon()?;
    world.up(&specs::unixd_on(world, "web", &[&socket], &[]))?;
    world.too_late_for_relinking(|| world.hand("rm", &["-rf".as_ref(), run.as_os_str()]))?;
    world.expect_fault(&ROW, "web", &socket, AT_ONCE)?;
    // The next log-in makes it anew.
    world.hand("mkdir", &["-p".as_ref(), run.join("app").as_os_str()])?;
    world.cured_by_clean_restart("web", &socket)
}
