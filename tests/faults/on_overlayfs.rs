//! Containers have their files on an overlay: the file's device is of its upper layer, or of none at all.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "on_overlayfs",
    done: "a socket on an overlay",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[Need::Root],
};

pub fn run(world: &World) -> Result {
    let layers = world.file("layers");
    let part = |name: &str| layers.join(name).display().to_string();
    world.hand("mkdir", &["-p", &part("lower"), &part("upper"), &part("work")])?;
    let options = format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
    let sockets = world.sockets().display().to_string();
    world.hand("mount", &["-t", "overlay", "overlay", "-o", &options, &sockets])?;
    let (_, path) = serve(world, &[])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")?;
    // And what is a fault is seen there too.
    world.hand("rm", &[&path])?;
    world.wait_verdict("web", "rpc.sock", "dangling", "removed", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
