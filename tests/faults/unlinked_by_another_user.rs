//! A folder that everybody may write to (`/tmp` without its sticky bit): another user tidies up there.

use nix::unistd::User;
use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub const ROW: Row = Row {
    name: "unlinked_by_another_user",
    done: "`rm` by another user, in a folder that all may write to",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[Need::Root, Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let folder = world.sockets().join("web");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let nobody = User::from_name("nobody")?;
    let rm = world.hand_as(nobody.as_ref(), "rm", &["-f".as_ref(), path.as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let row = world.expect_culprit("web", "rpc.sock", &rm)?;
    ensure!(rm.uid != 0, "{rm} did it: {row}");
    world.cured_by_clean_restart("web", "rpc.sock")
}
