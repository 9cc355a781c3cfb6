//! `systemd-tmpfiles --clean`. It spares sockets whose name the kernel lists; one that was renamed into place is not among them.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::hand::Hand;
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "tmp_cleaner_by_age",
    done: "`systemd-tmpfiles --clean` by age, where the server had renamed its socket into place",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[Need::Program("systemd-tmpfiles")],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &["--bind-temp-rename"])?;
    world.hand("touch", &["-d".as_ref(), "2 days ago".as_ref(), path.as_os_str()])?;
    // Of a file's times the change of its inode cannot be set back: the age is told by the modification here.
    let folder = world.sockets().join("web");
    let rule = world.write("web.conf", &format!("d {} - - - m:1d\n", folder.display()))?;
    let cleaner = world.hand("systemd-tmpfiles", &["--clean".as_ref(), rule.as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.expect_culprit("web", "rpc.sock", &Hand { name: "systemd-tmpfile".into(), ..cleaner })?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
