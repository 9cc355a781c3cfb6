//! The test's own cgroup (v2), into which a process can be moved out of its service's.

use crate::fault::Context;
use crate::{Fault, Result};
use nix::unistd::{AccessFlags, access};
use std::fs;
use std::path::{Path, PathBuf};

/// The list of the processes in the test's own cgroup, where that may be written.
pub fn own() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let place = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then_some(place)
    })?;
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let list = Path::new(place).join(own).join("cgroup.procs");
    access(&list, AccessFlags::W_OK).is_ok().then_some(list)
}

/// Moves a process there, as a session or a container does that takes it over.
pub fn take_out(pid: i32) -> Result {
    let list = own().ok_or_else(|| Fault::new("no writable cgroup v2"))?;
    fs::write(&list, pid.to_string()).context(list.display())
}
