//! ext4 gives the inode number of a removed file to the next one: after a reload the same path may have the same number,
//! and is another socket.

use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Json, Need, Relink, Result, Row, World, ensure, processes, wait_until};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

pub const ROW: Row = Row {
    name: "inode_number_comes_again",
    done: "unlink and bind, until the file has an inode number for the second time",
    verdict: "ok",
    reason: "",
    clients: "answers",
    relink: Relink::Same,
    needs: &[Need::Root, Need::Program("mkfs.ext4")],
};

pub fn run(world: &World) -> Result {
    world.mount_image("ext4", 16)?;
    let (pid, path) = serve_with(world, &["--reload"], json!({"settle": "1sec"}))?;
    let inode = || fs::symlink_metadata(&path).map(|file| file.ino());
    let mut seen = BTreeSet::new();
    let mut again = false;
    for _ in 0..20 {
        seen.insert(inode()?);
        let before = world.socket_row("web", "rpc.sock")?.int("inode")?;
        processes::signal(pid, Signal::SIGHUP);
        wait_until(AT_ONCE, "the service has bound anew, and that is known", || {
            let row = world.socket_row("web", "rpc.sock").ok()?;
            (row.text("verdict").ok()? == "ok" && row.int("inode").ok()? != before).then_some(())
        })?;
        again |= seen.contains(&inode()?);
        if again {
            break;
        }
    }
    ensure!(again, "no inode number came again: {seen:?}");
    ensure!(ping(&path)? == pid, "the service answers");
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.stayed_well("web", "rpc.sock")
}
