//! btrfs: what `stat` calls the device is not what the kernel calls it.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "on_btrfs",
    done: "a socket on btrfs",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Untried,
    needs: &[Need::Root, Need::Program("mkfs.btrfs")],
};

pub fn run(world: &World) -> Result {
    world.mount_image("btrfs", 128)?;
    let (_, path) = serve(world, &[])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")?;
    // And what is a fault is seen there too.
    world.hand("rm", &[&path])?;
    world.wait_verdict("web", "rpc.sock", "dangling", "removed", AT_ONCE)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
