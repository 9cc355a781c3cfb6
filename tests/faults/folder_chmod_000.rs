//! Nobody may search the folder: the daemon of an ordinary user is shut out itself, and still knows it.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "folder_chmod_000",
    done: "`chmod 000` of the folder, and back",
    verdict: "denied",
    reason: "cannot connect: ",
    clients: "EACCES",
    relink: Relink::Same,
    needs: &[Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    serve(world, &[])?;
    let place = world.sockets().join("web");
    world.hand("chmod", &["000".as_ref(), place.as_os_str()])?;
    let client = world.shut_out_client()?;
    world.expect_fault_for(&ROW, "web", "rpc.sock", AT_ONCE, client.as_ref())?;
    world.hand("chmod", &["755".as_ref(), place.as_os_str()])?;
    world.serves_again("web", "rpc.sock")
}
