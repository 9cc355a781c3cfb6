//! A folder further up that nobody may search.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "parent_chmod_000",
    done: "`chmod 000` of the folder above the socket's, and back",
    verdict: "denied",
    reason: "cannot connect: ",
    clients: "EACCES",
    relink: Relink::Untried,
    needs: &[Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    serve(world, &[])?;
    let place = world.sockets();
    world.hand("chmod", &["000".as_ref(), place.as_os_str()])?;
    let client = world.shut_out_client()?;
    world.expect_fault_for(&ROW, "web", "rpc.sock", AT_ONCE, client.as_ref())?;
    world.hand("chmod", &["755".as_ref(), place.as_os_str()])?;
    world.serves_again("web", "rpc.sock")
}
