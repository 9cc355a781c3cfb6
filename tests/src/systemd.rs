//! A systemd of the world's own: a user's manager, in a mount namespace and a cgroup of its own. Its units are the files
//! in `units` of the world's folder; `default.target` is what it brings up.

use crate::command::run;
use crate::{Fault, Result, World, Wrapped, wait_until};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

/// The manager that runs.
pub struct Systemd<'a> {
    world: &'a World,
    manager: Wrapped,
}

/// Where a world's units are.
pub fn units(world: &World) -> Result<PathBuf> {
    let units = world.folder().join("units");
    fs::create_dir_all(&units)?;
    Ok(units)
}

/// Writes a unit, and makes it what the manager brings up.
pub fn wanted(world: &World, name: &str, text: &str) -> Result<PathBuf> {
    let unit = units(world)?.join(name);
    fs::write(&unit, text)?;
    let target = format!("[Unit]\nDescription=All\nRequires={name}\nAfter={name}\n");
    fs::write(units(world)?.join("default.target"), target)?;
    Ok(unit)
}

/// `systemd-analyze verify` has nothing to say of a unit. What it says of the machine's others is not asked for.
pub fn verify(world: &World, unit: &Path) -> Result {
    let mut verify = world.command("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(unit);
    let ran = run(verify, SOON)?.success()?;
    let name = unit.file_name().unwrap_or_default().to_string_lossy();
    let of_it = ran.stdout.lines().chain(ran.stderr.lines()).any(|line| line.contains(&*name));
    if of_it { Err(Fault(ran.to_string())) } else { Ok(()) }
}

impl<'a> Systemd<'a> {
    /// Starts it and waits until the unit is active. `None` where no cgroup v2 may be mounted: there is no systemd to be had.
    pub fn start(world: &'a World, unit: &str) -> Result<Option<Systemd<'a>>> {
        let script = "mount -t cgroup2 none /sys/fs/cgroup && mkdir -p \"$GROUP\" && echo $$ > \"$GROUP/cgroup.procs\" \
             && mount -t tmpfs none /run && mkdir -p /run/systemd/system || exit 77; \
             exec /lib/systemd/systemd --user --unit=default.target";
        fs::create_dir_all(world.folder().join("run"))?;
        let mut command = world.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "/bin/sh", "-c", script])
            .env("XDG_RUNTIME_DIR", world.folder().join("x"))
            .env("GROUP", group(world))
            // And its own after that, for the unit by which it exits.
            .env("SYSTEMD_UNIT_PATH", format!("{}:", units(world)?.display()))
            .env("SYSTEMD_LOG_TARGET", "console");
        let mut systemd = Systemd { world, manager: world.wrap_by(command)? };
        let up = wait_until(SOON, "systemd runs the service", || systemd.is_active(unit));
        if up.is_err() && systemd.manager.ends(Duration::ZERO).is_ok_and(|status| status.code() == Some(77)) {
            println!("{}: skipped, no cgroup v2 or mount namespace here", world.name());
            return Ok(None);
        }
        up.map(|()| Some(systemd))
    }

    /// What `systemctl` says.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.world.command("systemctl");
        command.arg("--user").args(arguments).env("XDG_RUNTIME_DIR", self.world.folder().join("x"));
        Ok(run(command, SOON)?.stdout.trim().to_owned())
    }

    /// Whether a unit is `active`.
    pub fn is_active(&self, unit: &str) -> bool {
        self.ctl(&["is-active", unit]).is_ok_and(|state| state == "active")
    }

    /// A property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> Result<String> {
        self.ctl(&["show", "--value", "-p", property, unit])
    }

    /// Ends the manager and all units; then nothing may be left.
    pub fn end(mut self) -> Result {
        self.manager.signal(Signal::SIGTERM)?;
        self.manager.ends(SOON)?;
        let world = self.world;
        wait_until(SOON, "nothing is left", || world.processes().is_empty())?;
        // The cgroups that it made, wherever the machine has the hierarchy.
        let mut remove = world.command("unshare");
        remove.args(["--mount", "--propagation", "private", "/bin/sh", "-c"]);
        remove.arg("mount -t cgroup2 none /sys/fs/cgroup && find \"$GROUP\" -depth -type d -exec rmdir {} +");
        remove.env("GROUP", group(world));
        run(remove, SOON)?.success().map(drop)
    }
}

fn group(world: &World) -> String {
    let name = world.folder().file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("/sys/fs/cgroup/{name}")
}
