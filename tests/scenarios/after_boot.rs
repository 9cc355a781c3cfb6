//! After a boot: no instance and no intent of before is taken up, and what was wanted comes back.
//!
//! The boot is played: the daemon and every service are killed at once, and the next daemon sees another
//! `boot_id`, mounted over the kernel's in a mount namespace of its own.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    vec![scenario("after_boot", &[Need::Root, Need::Daemon], boot)]
}

fn boot(world: &World) -> Result {
    world.start_daemon()?;
    let wanted = world.up(&specs::unixd(world, "wanted", &[]))?;
    world.up(&specs::with(specs::unixd(world, "off", &[]), json!({"autostart": false})))?;
    world.up(&specs::with(specs::unixd(world, "on", &[]), json!({"autostart": true})))?;
    world.up(&specs::unixd(world, "down", &[]))?;
    for name in ["on", "down"] {
        world.rpc("service.stop", json!({"name": name}))?;
        world.wait_status(name, "inactive", SOON)?;
    }
    // Failed for good before the boot; what it wants is there afterwards.
    let hurt = specs::unixd(world, "hurt", &[]);
    let marker = world.file("disk-is-mounted");
    let mut exec = vec![json!("/bin/sh"), json!("-c"), json!("test -e \"$0\" && exec \"$@\"")];
    exec.push(json!(marker));
    exec.extend(hurt.field("exec").as_array().into_iter().flatten().cloned());
    let never = json!({"exec": exec, "restart": {"policy": "never"}});
    world.register(&specs::with(hurt, never))?;
    world.rpc("service.start", json!({"name": "hurt"}))?;
    world.wait_status("hurt", "failed", SOON)?;

    world.kill_daemon()?;
    for process in world.processes() {
        processes::signal(process.pid, Signal::SIGKILL);
    }
    wait_until(SOON, "all are dead", || world.processes().is_empty())?;
    let stale = world.socket("wanted", "rpc.sock");
    ensure!(stale.symlink_metadata().is_ok(), "the disk keeps the dead socket");
    fs::write(&marker, "")?;

    let boot_id = world.write("boot_id", "6f0e2a3c-0000-4000-8000-000000000001\n")?;
    let mut command = world.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$1\" run");
    command.arg(boot_id).arg(world.bin("shimd"));
    command.stdin(std::process::Stdio::null());
    world.start_daemon_by(command)?;

    for name in ["wanted", "on", "hurt"] {
        let row = world.wait_status(name, "running", SOON)?;
        ensure!(row.pid("pid")? != wanted, "{name} is a new process: {row}");
        ensure!(ping(&world.socket(name, "rpc.sock"))? == row.pid("pid")?, "{name} answers");
    }
    for name in ["off", "down"] {
        let row = world.service(name)?;
        ensure!(row.text("status")? == "inactive", "{name} stays down: {row}");
        ensure!(row.field("pid").is_null(), "{name} has no process: {row}");
    }
    let row = world.service("wanted")?;
    ensure!(row.int("restarts")? == 0, "a boot is no restart: {row}");
    Ok(())
}
