//! Whether systemd runs the daemon: then it would start it again, whoever ends it.

use std::fs;
use std::path::{Component, Path};

/// The command that ends the daemon of this process id for good, where systemd runs it; `None` where nobody does, or
/// this user may not know.
pub fn stopped_by(pid: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    command(pid, &environment, &cgroups)
}

fn command(pid: i32, environment: &[u8], cgroups: &str) -> Option<String> {
    // systemd.exec(5): set for the process itself, and inherited by its children, whose pid it is not.
    let word = format!("SYSTEMD_EXEC_PID={pid}");
    if !environment.split(|byte| *byte == 0).any(|variable| variable == word.as_bytes()) {
        return None;
    }
    // cgroups(7): `0::` of the one hierarchy, `N:name=systemd:` of systemd's own beside the older ones.
    let path = cgroups.lines().find_map(|line| {
        let (hierarchy, path) = line.split_once(':')?.1.split_once(':')?;
        ["", "name=systemd"].contains(&hierarchy).then_some(path)
    });
    let steps = Path::new(path.unwrap_or_default()).components().filter_map(|step| match step {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let units: Vec<&str> = steps.filter(|step| step.ends_with(".service")).collect();
    let of_user = units.iter().any(|unit| unit.starts_with("user@"));
    let unit = units.last().filter(|unit| !unit.starts_with("user@")).copied().unwrap_or("shimd.service");
    Some(format!(
        "systemctl {}stop {}",
        if of_user { "--user " } else { "" },
        unit.trim_end_matches(".service")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_own_is_told_by_its_pid_and_named_by_its_cgroup() {
        let environment = b"HOME=/root\0SYSTEMD_EXEC_PID=77\0";
        let by = |cgroups| command(77, environment, cgroups);
        assert_eq!(by("0::/system.slice/shimd.service\n").as_deref(), Some("systemctl stop shimd"));
        let delegated = "12:pids:/x.service\n1:name=systemd:/system.slice/my-shim.service/daemon\n0::/\n";
        assert_eq!(by(delegated).as_deref(), Some("systemctl stop my-shim"));
        let users = "0::/user.slice/user-7.slice/user@7.service/app.slice/shimd.service\n";
        assert_eq!(by(users).as_deref(), Some("systemctl --user stop shimd"));
        assert_eq!(by("").as_deref(), Some("systemctl stop shimd"));
    }

    #[test]
    fn a_child_of_a_unit_is_not_the_unit() {
        let cgroups = "0::/system.slice/ssh.service\n";
        assert_eq!(command(78, b"SYSTEMD_EXEC_PID=77\0", cgroups), None);
        assert_eq!(command(7, b"SYSTEMD_EXEC_PID=77\0", cgroups), None);
        assert_eq!(command(77, b"", cgroups), None);
        assert_eq!(stopped_by(i32::MAX), None);
    }
}
