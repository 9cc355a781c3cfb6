//! A mount further up hides the folder with all that is in it.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Json, Need, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "mounted_over_parent",
    done: "a bind mount of an empty folder over the folder above the socket's",
    verdict: "dangling",
    reason: "mounted over",
    clients: "ENOENT",
    relink: Relink::Restarted("the folder at the path is of another mount"),
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let (pid, _) = serve(world, &[])?;
    let empty = world.file("empty");
    world.hand("mkdir", &[&empty])?;
    world.hand("mount", &["--bind", &empty.display().to_string(), &world.sockets().display().to_string()])?;
    let row = world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let place = format!("mount at {}", world.sockets().display());
    ensure!(row.text("reason")?.contains(&place), "the reason says where: {row}");
    world.hand("umount", &[world.sockets()])?;
    world.serves_again("web", "rpc.sock")?;
    ensure!(world.service("web")?.pid("pid")? == pid, "without a restart");
    Ok(())
}
