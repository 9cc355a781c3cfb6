//! The period alone: no inotify, or too few watches, and no fanotify. Everything that events would have told of is found
//! within the audit's period, and `proc doctor` says why it was not sooner.

use libtest_mimic::Trial;
use scenarios::wait::wait_for;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// The audit's period, and room for a busy machine.
const PERIOD: Duration = Duration::from_secs(12);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Root, Need::Program("unshare")];
    vec![
        scenario("without_events::no_inotify", &needs, |world| all_found(world, "max_inotify_instances", 0)),
        scenario("without_events::too_few_watches", &needs, |world| {
            all_found(world, "max_inotify_watches", 2)
        }),
    ]
}

/// A daemon in a user namespace of its own, which has a limit of its own.
fn start(world: &World, limit: &str, value: u32) -> Result<Child> {
    let script =
        format!("echo {value} > /proc/sys/user/{limit} && exec {} run", world.bin("shimd").display());
    let mut command = world.command("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    let output = fs::File::create(world.folder().join("daemon.out"))?;
    let errors = output.try_clone()?;
    let mut child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn()?;
    wait_for(SOON, "the daemon answers", || {
        ensure!(matches!(child.try_wait(), Ok(None)), "it ended before it answered");
        Ok(world.rpc("shim.info", json!({})).is_ok())
    })?;
    Ok(child)
}

type Deed = fn(&Path) -> std::io::Result<()>;

const FAULTS: [(&str, Deed, &str, &str); 6] = [
    ("removed", |path| fs::remove_file(path), "dangling", "removed"),
    ("renamed", |path| fs::rename(path, path.with_extension("old")), "dangling", "renamed to"),
    (
        "replaced",
        |path| fs::remove_file(path).and_then(|()| fs::write(path, "")),
        "replaced",
        "a regular file",
    ),
    ("shut", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)), "denied", "cannot connect"),
    (
        "emptied",
        |path| path.parent().map_or(Ok(()), fs::remove_dir_all),
        "dangling",
        "its folder was removed",
    ),
    (
        "moved",
        |path| path.parent().map_or(Ok(()), |folder| fs::rename(folder, folder.with_extension("away"))),
        "dangling",
        "its folder was moved to",
    ),
];

fn all_found(world: &World, limit: &str, value: u32) -> Result {
    let mut daemon = start(world, limit, value)?;
    for (name, ..) in FAULTS {
        world.up(&specs::unixd(world, name, &[]))?;
    }
    let doctor = world.nu_json("proc doctor")?;
    let inotify = doctor.row("check", "inotify")?;
    ensure!(inotify.field("ok") == false && inotify.text("help")?.contains("fs.inotify"), "{inotify}");
    ensure!(doctor.row("check", "fanotify")?.field("ok") == false, "{doctor}");
    let log = world.folder().join("daemon.out");
    ensure!(!fs::read_to_string(&log)?.contains("panicked"), "see {}", log.display());
    // A new instance is looked at once more a second after its start: that look is not the period's.
    wait_until(SOON, "all have run for a while", || {
        let old = |row: &Value| row.int("uptime").is_ok_and(|uptime| uptime > 1_500_000_000);
        world
            .rpc("service.list", json!({}))
            .is_ok_and(|rows| rows.rows().is_ok_and(|rows| rows.iter().all(old)))
    })?;
    for (name, done, ..) in FAULTS {
        done(&world.socket(name, "rpc.sock"))?;
    }
    // Nobody asks: what `proc list` and `socket.check` look up by themselves would not be the period's doing.
    let told = || -> Result<Vec<Value>> {
        let events = world.rpc("event.list", json!({"kinds": ["verdict"]}))?;
        Ok(events.rows()?.to_vec())
    };
    for (name, _, verdict, reason) in FAULTS {
        let found = wait_until(PERIOD, format!("{name} is {verdict}: {reason}"), || {
            let of_it = |row: &&Value| {
                row.text("service").is_ok_and(|service| service == name)
                    && row.field("detail").text("verdict").is_ok_and(|told| told == verdict)
            };
            told().ok()?.iter().find(of_it).cloned()
        })?;
        ensure!(found.field("detail").text("reason")?.contains(reason), "{name}: {reason}: {found}");
        ensure!(world.service(name)?.text("status")? == "failed", "{name} is not green");
    }
    world.rpc("shim.shutdown", json!({"stop_services": true}))?;
    wait_until(SOON, "the daemon ends", || daemon.try_wait().is_ok_and(|ended| ended.is_some()))?;
    wait_until(SOON, "nobody is left", || world.processes().iter().all(|p| !processes::alive(p.pid)))
}
