//! A file system is mounted over the socket's folder: no file was touched, and none can be reached.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Need, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "mounted_over_folder",
    done: "a tmpfs mounted over the socket's folder, and unmounted",
    verdict: "dangling",
    reason: "mounted over",
    clients: "ENOENT",
    relink: Relink::Restarted("the folder at the path is of another mount"),
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve(world, &[])?;
    let folder = world.sockets().join("web");
    world.hand("mount", &["-t".as_ref(), "tmpfs".as_ref(), "tmpfs".as_ref(), folder.as_os_str()])?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let by = format!("by a tmpfs mount at {}", folder.display());
    ensure!(row.text("reason")?.contains(&by), "the reason says by what, and where: {row}");
    world.hand("umount", &[&folder])?;
    world.serves_again("web", "rpc.sock")?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    Ok(())
}
