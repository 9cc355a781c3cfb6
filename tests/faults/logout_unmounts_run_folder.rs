//! What systemd does at the last log-out: it empties the run folder, unmounts it lazily, and removes it.

use scenarios::fault_matrix::AT_ONCE;
use scenarios::{Need, Relink, Result, Row, World, specs};

pub const ROW: Row = Row {
    name: "logout_unmounts_run_folder",
    done: "a log-out empties the run folder, unmounts it, and removes it",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::Restarted("its pin went with the mount"),
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let run = world.folder().join("x");
    let app = run.join("app");
    let socket = app.join("rpc.sock").display().to_string();
    world.hand("mount", &["-t".as_ref(), "tmpfs".as_ref(), "tmpfs".as_ref(), run.as_os_str()])?;
    world.hand("mkdir", &[&app])?;
    world.start_daemon()?;
    world.up(&specs::unixd_on(world, "web", &[&socket], &[]))?;
    world.too_late_for_relinking(|| {
        world.hand("rm", &["-rf".as_ref(), app.as_os_str()])?;
        world.hand("umount", &["-l".as_ref(), run.as_os_str()])?;
        world.hand("rmdir", &[&run])
    })?;
    world.expect_fault(&ROW, "web", &socket, AT_ONCE)?;
    world.hand("mkdir", &["-p".as_ref(), app.as_os_str()])?;
    world.cured_by_clean_restart("web", &socket)
}
