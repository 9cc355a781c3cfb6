//! The disk under the store is full: what cannot be kept is refused in words, what runs goes on, and nothing is lost.

use libtest_mimic::Trial;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use scenarios::client::ping;
use scenarios::fault::Context;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("full_disk", &[Need::Root, Need::Daemon, Need::Nushell], full)]
}

/// A small filesystem of its own over the home; unmounted at the end, also of a failed scenario.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf) -> Result<SmallDisk> {
        let options = Some("size=3m,mode=700");
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), options)
            .context("cannot mount a tmpfs")?;
        Ok(SmallDisk(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Detached: what is still open there keeps it until the world's processes are ended.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn full(world: &World) -> Result {
    fs::create_dir(world.home())?;
    let disk = SmallDisk::mount(world.home())?;
    let outcome = on_small_disk(world);
    // The daemon ends while its control socket can still be reached.
    let ended = world.end();
    drop(disk);
    outcome.and(ended)
}

fn on_small_disk(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&specs::unixd(world, "web", &[]))?;
    let filler = world.home().join("filler");
    let mut file = File::create(&filler)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0; 1]).is_ok() {}
    drop(file);

    // Large enough that no free page of the store takes it.
    let large = specs::with(specs::unixd(world, "more", &[]), json!({"note": "x".repeat(200_000)}));
    let spec = world.write("more.json", &large.to_string())?;
    let refused = world.nu_error(&format!("proc register {}", spec.display()))?;
    ensure!(refused.code.starts_with("proc::") && !refused.help.is_empty(), "{refused}");
    let error = world.rpc_error("service.set", json!({"spec": large}))?;
    ensure!(error.kind == "store", "{error}");
    let listed = world.rpc("service.list", json!({}))?;
    ensure!(listed.only()?.text("name")? == "web", "nothing is half registered: {listed}");
    ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "what runs goes on");
    fs::remove_file(world.socket("web", "rpc.sock"))?;
    world.wait_status("web", "failed", SOON)?;
    let restarted = world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    let row = restarted.only()?;
    // Without room for the intent it may be refused in words, or be done; it is never half done in silence.
    ensure!(row.text("outcome")? == "restarted" || !row.text("health_reason")?.is_empty(), "{row}");

    fs::remove_file(&filler)?;
    world.register(&large)?;
    let restarted = world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "with room again: {restarted}");
    world.kill_daemon()?;
    world.start_daemon()?;
    let listed = world.rpc("service.list", json!({}))?;
    ensure!(listed.rows()?.len() == 2, "and it is kept: {listed}");
    Ok(())
}
