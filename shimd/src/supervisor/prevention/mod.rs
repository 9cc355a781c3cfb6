//! What takes sockets away by rule, before it does: folders are guarded against cleaners, and `proc doctor` names the rest.
//!
//! | folder | who takes it away | what is done |
//! | --- | --- | --- |
//! | below `/tmp`, `/var/tmp`, or where a tmpfiles.d rule has an age | cleaners by age: systemd-tmpfiles, tmpreaper | locked, and made young each hour (`guards`); told |
//! | below `/run/user/UID`, and the user does not linger | the user's last log-out | told |
//! | below the `RuntimeDirectory=` of a systemd unit | that unit's stop, also if siblings use the folder | told |

mod guards;
mod run_folders;
mod tmpfiles;

use std::collections::BTreeSet;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Uid, User};
use shimd_api::event::DoctorRow;

pub use guards::Guards;

use super::Supervisor;
use super::doctor::{ill, well};

/// Who lingers has a file of his name here: loginctl(1).
const LINGER: &str = "/var/lib/systemd/linger";

/// Whose last log-out removes a path.
fn logs_out(path: &Path) -> Option<Uid> {
    let uid = path.strip_prefix("/run/user").ok()?.components().next()?;
    uid.as_os_str().to_str()?.parse().ok().map(Uid::from_raw)
}

fn lingers(uid: Uid) -> bool {
    let user = User::from_uid(uid).ok().flatten();
    user.is_some_and(|user| Path::new(LINGER).join(user.name).exists())
}

impl Supervisor {
    /// The rows.
    pub(super) fn prevention_rows(&self) -> Vec<DoctorRow> {
        let declared: Vec<&Path> = self
            .services
            .values()
            .flat_map(|service| &service.sockets)
            .map(|socket| socket.path.as_path())
            .filter(|path| path.is_absolute())
            .collect();
        vec![self.cleaners(&declared), log_out(&declared), run_folders(&declared)]
    }

    fn cleaners(&self, declared: &[&Path]) -> DoctorRow {
        let visited: Vec<&Path> = declared.iter().copied().filter(|path| self.guards.visited(path)).collect();
        let (Some(first), count) = (visited.first(), visited.len()) else {
            return well("cleaners", "no socket is declared where files are cleaned by age");
        };
        let mut detail = format!(
            "sockets that are where files are cleaned by age: {count}, the first: {}; folders that are locked for them against systemd-tmpfiles, and their times renewed each hour: {}",
            first.display(),
            self.guards.held(),
        );
        if let Some((path, errno)) = self.guards.refused.first_key_value() {
            detail += &format!("; not so {}: {}", path.display(), refusal(*errno));
        }
        let help = "declare them below /run, or below the socket root (HERO_SOCKET_DIR): other cleaners heed no lock";
        ill("cleaners", detail, help)
    }
}

fn refusal(errno: Errno) -> &'static str {
    match errno {
        Errno::EWOULDBLOCK => "a cleaner has it locked just now",
        Errno::EMFILE | Errno::ENFILE => "no descriptor is left (raise LimitNOFILE)",
        _ => errno.desc(),
    }
}

fn log_out(declared: &[&Path]) -> DoctorRow {
    let mut leaving = declared.iter().filter_map(|path| logs_out(path).map(|uid| (path, uid)));
    match leaving.find(|(_, uid)| !lingers(*uid)) {
        None => well("log-out", "no socket is declared in a run folder that the user's last log-out removes"),
        Some((path, uid)) => ill(
            "log-out",
            format!("the last log-out of user {uid} removes the run folder of {}", path.display()),
            format!("let the user linger: loginctl enable-linger {uid}"),
        ),
    }
}

fn run_folders(declared: &[&Path]) -> DoctorRow {
    let takers = run_folders::takers();
    let mut taken = declared.iter().map(|path| (path, run_folders::of(&takers, path)));
    match taken.find(|(_, units)| !units.is_empty()) {
        None => {
            well("run-folders", "no socket is declared in a run folder that a systemd unit takes with it")
        }
        Some((path, units)) => run_folder_row(path, &units),
    }
}

fn run_folder_row(path: &Path, units: &BTreeSet<&str>) -> DoctorRow {
    let named: Vec<&str> = units.iter().copied().collect();
    let first = named.first().copied().unwrap_or_default();
    let detail = match named.len() {
        1 => format!("systemd removes the folder of {} when {first} stops", path.display()),
        _ => format!(
            "systemd removes the folder of {} whenever one of {} stops",
            path.display(),
            named.join(", ")
        ),
    };
    let help = format!(
        "set RuntimeDirectoryPreserve=yes (systemctl edit {first}), or give the socket a folder that no unit names"
    );
    ill("run-folders", detail, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_folders_of_users_are_known() {
        let whose = |path: &str| logs_out(Path::new(path));
        assert_eq!(whose("/run/user/1000/web/rpc.sock"), Some(Uid::from_raw(1000)));
        assert_eq!(whose("/run/web/rpc.sock"), None);
        assert_eq!(whose("/run/user/web/rpc.sock"), None);
    }

    #[test]
    fn siblings_in_a_run_folder_are_told() {
        let row =
            run_folder_row(Path::new("/run/hero/web.sock"), &BTreeSet::from(["a.service", "b.service"]));
        assert!(!row.ok && row.detail.contains("one of a.service, b.service stops"), "{row:?}");
        assert!(row.help.is_some_and(|help| help.contains("systemctl edit a.service")));
    }
}
