//! `systemd-tmpfiles --clean` looks into the kernel's list of names, and leaves a live socket alone however old it is.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "tmp_cleaner_spares_it",
    done: "`systemd-tmpfiles --clean` by age, where the server has bound the path itself",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[Need::Program("systemd-tmpfiles")],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    world.hand("touch", &["-d".as_ref(), "2 days ago".as_ref(), path.as_os_str()])?;
    let folder = world.sockets().join("web");
    let rule = world.write("web.conf", &format!("d {} - - - m:1d\n", folder.display()))?;
    world.hand("systemd-tmpfiles", &["--clean".as_ref(), rule.as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE).map(drop)
}
