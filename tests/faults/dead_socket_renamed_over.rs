//! A socket file that a dead server left is moved over the live one, as a backup that is put back does.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "dead_socket_renamed_over",
    done: "`mv` of a dead server's socket over the file",
    verdict: "replaced",
    reason: "a socket that nobody listens on lies at the path",
    clients: "ECONNREFUSED",
    relink: Relink::PutBack,
    needs: &[Need::Program("python3")],
};

/// A server that ends and leaves its file behind.
const DIES: &str = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])";

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let dead = world.file("dead.sock");
    world.hand("python3", &["-c".as_ref(), DIES.as_ref(), dead.as_os_str()])?;
    let mv = world.hand("mv", &[&dead, &path])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.wait_verdict("web", "rpc.sock", ROW.verdict, "renamed over", AT_ONCE)?;
    world.expect_culprit("web", "rpc.sock", &mv)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
