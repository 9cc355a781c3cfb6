//! A dentry is lost while it cannot be put back: a read-only mount, a full one, a folder that became another's. The
//! service lives on, it is said why, nothing spins, and the dentry is back once the disk allows it.

use super::relink_backs_off::processor_ticks;
use super::relink_puts_it_back::serve;
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User, chown, geteuid};
use scenarios::client::ping;
use scenarios::fault::Context;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, scenario_as, wait_until};
use serde_json::json;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// How long the daemon is watched while it can do nothing.
const WATCHED: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Root, Need::Daemon, Need::Nushell];
    let mut trials = vec![
        scenario("relink_on_bad_disks::read_only", &needs, read_only),
        scenario("relink_on_bad_disks::full", &needs, full),
    ];
    if geteuid().is_root() {
        let needs = [Need::Daemon, Need::Nushell];
        trials.push(scenario_as("nobody", "relink_on_bad_disks::folder_of_another", &needs, another_owner));
    }
    trials
}

fn tmpfs(folder: &Path, flags: MsFlags, options: &str) -> Result {
    mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some(options)).context("cannot mount a tmpfs")
}

/// Loses the dentry and spoils its disk within one moment of the daemon's; then mends the disk.
fn lost(
    world: &World,
    pid: i32,
    spoil: &dyn Fn(&Path) -> Result,
    words: &str,
    mend: &dyn Fn(&Path) -> Result,
) -> Result {
    let path = world.socket("web", "rpc.sock");
    let before = world.socket_row("web", "rpc.sock")?;
    let daemon = world.daemon_pid()?;
    processes::signal_taken(daemon, Signal::SIGSTOP)?;
    let spoilt = fs::remove_file(&path).context("cannot remove").and_then(|()| spoil(&path));
    processes::signal(daemon, Signal::SIGCONT);
    spoilt?;

    let row = wait_until(SOON, format!("it is said that it is {words}"), || {
        let row = world.service("web").ok()?;
        row.text("health_reason").is_ok_and(|reason| reason.contains(words)).then_some(row)
    })?;
    ensure!(row.text("status")? == "failed" && row.pid("pid")? == pid, "{row}");
    ensure!(world.socket_row("web", "rpc.sock")?.text("verdict")? == "dangling", "never green: {row}");
    let (began, spent) = (Instant::now(), processor_ticks(daemon)?);
    while began.elapsed() < WATCHED {
        world.rpc("shim.info", json!({}))?;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let spent = processor_ticks(daemon)? - spent;
    ensure!(spent < 40, "{spent} ticks of processor time within {WATCHED:?}");
    let told = world.nu_json("proc events web --limit 1000")?;
    ensure!(told.rows()?.len() < 100, "an event for each try: {}", told.rows()?.len());

    mend(&path)?;
    let row = wait_until(SOON, "it is back", || {
        let row = world.socket_row("web", "rpc.sock").ok()?;
        row.text("verdict").is_ok_and(|verdict| verdict == "ok").then_some(row)
    })?;
    ensure!(
        row.int("inode")? == before.int("inode")? && row.int("relinked")? == 1,
        "the same listener: {row}"
    );
    ensure!(ping(&path)? == pid, "the same process answers");
    ensure!(world.wait_status("web", "running", SOON)?.int("restarts")? == 0, "it was not restarted");
    Ok(())
}

fn read_only(world: &World) -> Result {
    tmpfs(&world.sockets(), MsFlags::empty(), "mode=755")?;
    let pid = serve(world, &["rpc.sock"], &[])?;
    let remount = |flags: MsFlags| tmpfs(&world.sockets(), MsFlags::MS_REMOUNT | flags, "mode=755");
    lost(world, pid, &|_| remount(MsFlags::MS_RDONLY), "Read-only", &|_| remount(MsFlags::empty()))
}

fn full(world: &World) -> Result {
    tmpfs(&world.sockets(), MsFlags::empty(), "mode=755,nr_inodes=64")?;
    let pid = serve(world, &["rpc.sock"], &[])?;
    let filler = |n: usize| world.sockets().join(format!("filler-{n}"));
    let fill = |_: &Path| {
        let made = (0..100).take_while(|n| File::create(filler(*n)).is_ok()).count();
        ensure!(made < 100, "it is never full");
        Ok(())
    };
    let empty = |_: &Path| {
        for n in 0..100 {
            let _ = fs::remove_file(filler(n));
        }
        Ok(())
    };
    lost(world, pid, &fill, "No space", &empty)
}

fn another_owner(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let nobody = User::from_name("nobody")?.context("no user nobody")?;
    let give = |path: &Path, to: Uid| -> Result {
        let folder = path.parent().context("no folder")?;
        Ok(chown(folder, Some(to), None)?)
    };
    lost(world, pid, &|path| give(path, Uid::from_raw(0)), "Permission denied", &|path| {
        give(path, nobody.uid)
    })
}
