//! The file's mode was changed while nobody looked.

use scenarios::fault_matrix::{SOON, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "denied_while_daemon_down",
    done: "`chmod 000` of the file while the daemon is down",
    verdict: "denied",
    reason: "cannot connect: ",
    clients: "EACCES",
    relink: Relink::Untried,
    needs: &[Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    world.kill_daemon()?;
    world.hand("chmod", &["000".as_ref(), path.as_os_str()])?;
    world.start_daemon()?;
    let client = world.shut_out_client()?;
    world.expect_fault_for(&ROW, "web", "rpc.sock", SOON, client.as_ref())?;
    world.hand("chmod", &["755".as_ref(), path.as_os_str()])?;
    world.serves_again("web", "rpc.sock")
}
