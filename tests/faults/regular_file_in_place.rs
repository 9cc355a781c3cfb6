//! The file is removed, and a regular one made under its name: a log, a lock, a redirection gone wrong.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "regular_file_in_place",
    done: "`rm` of the file, and a regular file made in its place",
    verdict: "replaced",
    reason: "a regular file lies at the path",
    clients: "ECONNREFUSED",
    relink: Relink::Stays("what lies there is no dead socket, and may be wanted"),
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    world.too_late_for_relinking(|| {
        world.hand("sh", &["-c".as_ref(), "rm $1 && echo x > $1".as_ref(), "sh".as_ref(), path.as_os_str()])
    })?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.hand("rm", &[path.as_os_str()])?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
