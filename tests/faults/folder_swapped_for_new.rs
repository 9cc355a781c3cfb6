//! A deployment moves the folder aside and puts a new one in its place: the name is there, and the socket is not.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "folder_swapped_for_new",
    done: "the folder is moved aside, and a new one put in its place",
    verdict: "dangling",
    reason: "its folder was moved to ",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    serve(world, &[])?;
    let (folder, aside, next) =
        (world.sockets().join("web"), world.sockets().join("web.old"), world.sockets().join("web.new"));
    world.hand("mkdir", &[&next])?;
    world.hand("mv", &[&folder, &aside])?;
    world.hand("mv", &[&next, &folder])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
