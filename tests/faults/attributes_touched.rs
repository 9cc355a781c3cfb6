//! Times, modes and owners are set to what they are, or to what changes nothing, as configuration tools do every half hour.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "attributes_touched",
    done: "`touch`, and `chmod` that takes nothing, of the file and its folders",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let folder = world.sockets().join("web");
    for place in [path, folder, world.sockets()] {
        world.hand("touch", &[&place])?;
        world.hand("touch", &["-d".as_ref(), "2 days ago".as_ref(), place.as_os_str()])?;
        world.hand("chmod", &["u+rwx".as_ref(), place.as_os_str()])?;
        world.hand("chmod", &["0711".as_ref(), place.as_os_str()])?;
    }
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
