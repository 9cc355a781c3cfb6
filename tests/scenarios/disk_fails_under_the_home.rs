//! The disk under the home turns read-only (a journal that was aborted), or fails on each write (EIO): what runs goes on,
//! is healed and can be restarted, what cannot be kept is said, and on a disk that is well again nothing is lost.

use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use scenarios::client::ping;
use scenarios::fault::Context;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::json;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Root, Need::Daemon, Need::Nushell, Need::Program("mkfs.ext4")];
    vec![
        scenario("disk_fails_under_the_home::read_only", &needs, |world| {
            let image = world.file("ext4.img");
            File::create(&image)?.set_len(32 << 20)?;
            story(world, &image, true, &|world| {
                let home = world.home();
                world.hand("mount", &["-o".as_ref(), "remount,abort".as_ref(), home.as_os_str()]).map(drop)
            })
        }),
        scenario("disk_fails_under_the_home::write_errors", &needs, |world| {
            // The disk below the disk is full: what its file has no block for yet cannot be written.
            let below = world.file("below");
            fs::create_dir(&below)?;
            mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), Some("size=24m"))
                .context("cannot mount a tmpfs")?;
            let image = below.join("ext4.img");
            File::create(&image)?.set_len(64 << 20)?;
            story(world, &image, false, &|_| {
                let mut filler = File::create(below.join("filler"))?;
                while filler.write_all(&[1; 4096]).is_ok() {}
                Ok(())
            })
        }),
    ]
}

/// Mounts the image over the home.
fn mounted(world: &World, image: &Path) -> Result<PathBuf> {
    let home = world.home();
    let options: [&OsStr; 4] = ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), home.as_os_str()];
    world.hand("mount", &options)?;
    Ok(home)
}

/// `for_good`: no write works any more; else some do.
fn story(world: &World, image: &Path, for_good: bool, fail: &dyn Fn(&World) -> Result) -> Result {
    fs::create_dir(world.home())?;
    world.hand(
        "mkfs.ext4",
        &["-q".as_ref(), "-E".as_ref(), "lazy_itable_init=1".as_ref(), image.as_os_str()],
    )?;
    mounted(world, image)?;
    let outcome = on_failing_disk(world, image, for_good, fail);
    // The daemon ends while its control socket can still be reached.
    let ended = world.end();
    let _ = umount2(&world.home(), MntFlags::MNT_DETACH);
    outcome.and(ended)
}

fn on_failing_disk(world: &World, image: &Path, for_good: bool, fail: &dyn Fn(&World) -> Result) -> Result {
    world.start_daemon()?;
    let relink = json!({"on_missing": "relink"});
    let web = world.up(&specs::with(specs::unixd(world, "web", &[]), relink.clone()))?;
    world.up(&specs::with(specs::unixd(world, "other", &[]), relink.clone()))?;
    // Starts and stops are in the log, and on the disk some seconds later: what a power cut would take is not asked for.
    world.hand("sync", &["-f".as_ref(), world.home().as_os_str()])?;
    fail(world)?;

    // Large enough that it takes new blocks, wherever they were to come from.
    let large = specs::with(specs::unixd(world, "more", &[]), json!({"note": "x".repeat(300_000)}));
    wait_until(SOON, "a spec cannot be kept", || {
        world
            .request("service.set", json!({"spec": large}))
            .is_ok_and(|answer| answer.is_err_and(|e| e.kind == "store"))
    })?;
    let refused = world.write("more.json", &large.to_string())?;
    let refused = world.nu_refuses(&format!("proc register {}", refused.display()), "proc::store")?;
    ensure!(!refused.help.is_empty(), "{refused}");
    let listed = world.rpc("service.list", json!({}))?;
    ensure!(listed.rows()?.len() == 2, "nothing is half registered: {listed}");
    ensure!(ping(&world.socket("web", "rpc.sock"))? == web, "what runs goes on");
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    wait_until(SOON, "it is put back", || world.socket("web", "rpc.sock").exists())?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == web, "healed without a restart");
    let restarted = world.nu_json("proc restart --clean other")?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
    let other = restarted.only()?.pid("new_pid")?;
    ensure!(ping(&world.socket("other", "rpc.sock"))? == other, "{restarted}");
    if for_good {
        let ill = world.nu_json("proc doctor | where not ok | where check in [store output] | get check")?;
        ensure!(ill.rows()?.len() == 2, "it is said: {ill}");
        ensure!(!world.nu_json("proc shim status | get troubles")?.rows()?.is_empty(), "and here");
    }

    // The daemon dies there, too. The services still have files open on the disk; a copy of it is looked over and mounted.
    world.kill_daemon()?;
    umount2(&world.home(), MntFlags::MNT_DETACH)?;
    let copy = world.file("copy.img");
    fs::copy(image, &copy)?;
    let (_, looked) = world.hand_that_exits(None, "e2fsck", &["-fy".as_ref(), copy.as_os_str()])?;
    // e2fsck(8): 1 is "errors were corrected".
    ensure!(matches!(looked, Some(0 | 1)), "e2fsck ended with {looked:?}");
    mounted(world, &copy)?;
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == web, "adopted: {row}");
    let row = world.wait_status("other", "running", SOON)?;
    let answers = ping(&world.socket("other", "rpc.sock"))?;
    ensure!(row.pid("pid")? == answers, "one of them, and it answers: {row}, {answers}");
    let own = format!("{}/", world.sockets().join("other").display());
    let living = world.processes().into_iter().filter(|p| p.command.contains(&own)).count();
    ensure!(living == 1, "{living} instances of it");
    Ok(())
}
