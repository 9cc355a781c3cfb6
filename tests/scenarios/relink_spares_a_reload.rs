//! A reload by unlink and bind is never broken by relinking, and the pin follows the new socket.

use super::relink_puts_it_back::{relinked, serve};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, wait_until};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Each takes 20 ms without a file, within a `settle` of 100.
const RELOADS: usize = 100;
/// Each without a pause, as most servers do it.
const QUICK: usize = 1000;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("relink_spares_a_reload::that_takes_a_while", &needs, |world| {
            reloads(world, &["--reload-takes", "20"], RELOADS)
        }),
        scenario("relink_spares_a_reload::at_once", &needs, |world| reloads(world, &["--reload"], QUICK)),
    ]
}

fn reloads(world: &World, options: &[&str], times: usize) -> Result {
    let pid = serve(world, &["rpc.sock"], options)?;
    let path = world.socket("web", "rpc.sock");
    let kernel = || kernel_inode(&path);
    let mut before = kernel()?;
    for reload in 0..times {
        ensure!(processes::signal(pid, Signal::SIGHUP), "reload {reload}: the server has ended");
        before = wait_until(SOON, format!("reload {reload} has bound anew"), || {
            kernel().ok().filter(|now| *now != before)
        })?;
    }
    // The last one is bound, and may not listen yet.
    wait_until(SOON, "the same process answers", || ping(&path).is_ok_and(|answers| answers == pid))?;
    let row = wait_until(SOON, "it is in order", || {
        let row = world.socket_row("web", "rpc.sock").ok()?;
        (row.text("verdict").ok()? == "ok").then_some(row)
    })?;
    ensure!(row.int("relinked")? == 0, "nothing was put back: {row}");
    ensure!(world.service("web")?.int("restarts")? == 0, "nor restarted");
    world.hand("rm", &[&path])?;
    relinked(world, "rpc.sock", 1)?;
    ensure!(ping(&path)? == pid, "the pin is of the last socket");
    Ok(())
}

/// What changes with each bind: the file's inode number may come again, its time of birth does not.
fn kernel_inode(path: &std::path::Path) -> std::io::Result<(u64, i64, i64)> {
    let found = path.symlink_metadata()?;
    Ok((found.ino(), found.ctime(), found.ctime_nsec()))
}
