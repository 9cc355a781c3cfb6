//! `proc doctor`: sockets that are declared where somebody tidies up.
//!
//! | folder | who takes it away |
//! | --- | --- |
//! | below `/tmp` or `/var/tmp` | cleaners by age: systemd-tmpfiles, tmpreaper |
//! | below `/run/user/UID`, and the user does not linger | the user's last log-out |

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use shimd_api::event::DoctorRow;

use super::Supervisor;
use super::doctor::{ill, well};

/// Who lingers has a file of his name here: loginctl(1).
const LINGER: &str = "/var/lib/systemd/linger";

/// What may take a socket's folder away.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Threat {
    Cleaner,
    LogOut(Uid),
}

fn threat(path: &Path) -> Option<Threat> {
    if path.starts_with("/tmp") || path.starts_with("/var/tmp") {
        return Some(Threat::Cleaner);
    }
    let uid = path.strip_prefix("/run/user").ok()?.components().next()?;
    uid.as_os_str().to_str()?.parse().ok().map(|uid| Threat::LogOut(Uid::from_raw(uid)))
}

fn lingers(uid: Uid) -> bool {
    let user = User::from_uid(uid).ok().flatten();
    user.is_some_and(|user| Path::new(LINGER).join(user.name).exists())
}

impl Supervisor {
    /// The rows.
    pub(super) fn prevention_rows(&self) -> Vec<DoctorRow> {
        let declared = self.services.values().flat_map(|service| &service.sockets).map(|socket| &socket.path);
        let (mut cleaned, mut logged_out) = (Vec::new(), Vec::new());
        for path in declared {
            match threat(path) {
                Some(Threat::Cleaner) => cleaned.push(path),
                Some(Threat::LogOut(uid)) if !lingers(uid) => logged_out.push((path, uid)),
                Some(Threat::LogOut(_)) | None => {}
            }
        }
        vec![
            row(
                "cleaners",
                &cleaned,
                "below /tmp, which is cleaned by age",
                "declare them below /run, or below the socket root (HERO_SOCKET_DIR)".to_owned(),
            ),
            row(
                "log-out",
                &logged_out.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
                "in a run folder that the user's last log-out removes",
                match logged_out.first() {
                    Some((_, uid)) => format!("let the user linger: loginctl enable-linger {uid}"),
                    None => String::new(),
                },
            ),
        ]
    }
}

fn row(check: &str, paths: &[&PathBuf], where_they_are: &str, help: String) -> DoctorRow {
    match paths.first() {
        None => well(check, format!("no socket is declared {where_they_are}")),
        Some(first) => {
            ill(check, format!("{} sockets are {where_they_are}: {}", paths.len(), first.display()), help)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_somebody_tidies_are_known() {
        let threat = |path: &str| threat(Path::new(path));
        assert_eq!(threat("/tmp/web/rpc.sock"), Some(Threat::Cleaner));
        assert_eq!(threat("/var/tmp/rpc.sock"), Some(Threat::Cleaner));
        assert_eq!(threat("/run/user/1000/web/rpc.sock"), Some(Threat::LogOut(Uid::from_raw(1000))));
        assert_eq!(threat("/run/web/rpc.sock"), None);
        assert_eq!(threat("/tmpfiles/rpc.sock"), None);
        assert_eq!(threat("@web"), None);
    }
}
