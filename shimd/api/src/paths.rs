//! Where things live (CONTRACT "Places").
//!
//! | variable | root | other users |
//! | --- | --- | --- |
//! | `SHIMD_HOME` set | both folders are it | both folders are it |
//! | unset: state | `/var/lib/shimd` | `$XDG_STATE_HOME/shimd`, else `~/.local/state/shimd` |
//! | unset: run | `/run/shimd` | `$XDG_RUNTIME_DIR/shimd`, else `run` in the state folder |
//!
//! An empty variable counts as unset. A relative XDG variable is ignored, as the XDG Base Directory Specification
//! asks; a relative `SHIMD_HOME`, `HERO_SOCKET_DIR` or `HOME` is refused, for it would mean another folder to each
//! process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// The folders of one daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// What outlives a boot: `state.db`, `logs/`, `shimd.log`.
    pub state: PathBuf,
    /// What does not: `rpc.sock`, `lock`, `notify.sock`.
    pub run: PathBuf,
}

/// A folder that cannot be told from the environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}; {fix}")]
pub struct PathsError {
    /// The variable at fault.
    pub variable: &'static str,
    /// What is wrong with it.
    pub problem: String,
    /// What to set.
    pub fix: String,
}

impl Home {
    /// The home that an environment asks for. `get` looks a variable up; `uid` is the daemon's (effective) user.
    ///
    /// # Errors
    /// A relative `SHIMD_HOME`; for a user other than root, no `HOME` and no home folder in the user database.
    pub fn from_env(get: &dyn Fn(&str) -> Option<OsString>, uid: u32) -> Result<Home, PathsError> {
        if let Some(home) = absolute(get, "SHIMD_HOME")? {
            return Ok(Home { state: home.clone(), run: home });
        }
        if uid == 0 {
            return Ok(Home { state: "/var/lib/shimd".into(), run: "/run/shimd".into() });
        }
        let state = match absolute(get, "XDG_STATE_HOME") {
            Ok(Some(folder)) => folder.join("shimd"),
            _ => user_home(get, uid)?.join(".local/state/shimd"),
        };
        let run = match absolute(get, "XDG_RUNTIME_DIR") {
            Ok(Some(folder)) => folder.join("shimd"),
            _ => state.join("run"),
        };
        Ok(Home { state, run })
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("rpc.sock")
    }

    /// The store.
    pub fn database(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// The folder of `<service>.out` and `<service>.err`.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// The file whose lock makes one daemon the only one of this home.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The lock of the daemon that is about to replace the one that runs.
    pub fn turn(&self) -> PathBuf {
        self.run.join("lock.next")
    }

    /// The datagram socket that services get as `NOTIFY_SOCKET`.
    pub fn notify_socket(&self) -> PathBuf {
        self.run.join("notify.sock")
    }

    /// The daemon's own log, when it runs detached.
    pub fn daemon_log(&self) -> PathBuf {
        self.state.join("shimd.log")
    }
}

/// The folder under which sockets declared by a basename live: `HERO_SOCKET_DIR`, else `~/hero/var/sockets`.
///
/// # Errors
/// A relative `HERO_SOCKET_DIR`; no `HOME` and no home folder in the user database.
pub fn socket_root(get: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, PathsError> {
    match absolute(get, "HERO_SOCKET_DIR")? {
        Some(root) => Ok(root),
        None => Ok(user_home(get, Uid::effective().as_raw())?.join("hero/var/sockets")),
    }
}

fn user_home(get: &dyn Fn(&str) -> Option<OsString>, uid: u32) -> Result<PathBuf, PathsError> {
    if let Some(home) = absolute(get, "HOME")? {
        return Ok(home);
    }
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) if user.dir.is_absolute() => Ok(user.dir),
        _ => Err(PathsError {
            variable: "HOME",
            problem: format!("is not set, and the user database has no home folder for uid {uid}"),
            fix: "set HOME, or SHIMD_HOME and HERO_SOCKET_DIR, to absolute paths".into(),
        }),
    }
}

fn absolute(
    get: &dyn Fn(&str) -> Option<OsString>,
    variable: &'static str,
) -> Result<Option<PathBuf>, PathsError> {
    match get(variable).filter(|value| !value.is_empty()).map(PathBuf::from) {
        Some(path) if !path.is_absolute() => Err(PathsError {
            variable,
            problem: format!("is a relative path ({})", path.display()),
            fix: format!("set it to an absolute path{}", suggestion(&path)),
        }),
        path => Ok(path),
    }
}

/// The path that was probably meant.
fn suggestion(path: &Path) -> String {
    match path.strip_prefix("~") {
        Ok(rest) => format!(" (`~` is not expanded here: write $HOME/{})", rest.display()),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    }

    fn home(variables: &[(&str, &str)], uid: u32) -> Result<(String, String), String> {
        let text = |path: PathBuf| path.display().to_string();
        Home::from_env(&env(variables), uid)
            .map(|home| (text(home.state), text(home.run)))
            .map_err(|e| e.to_string())
    }

    fn folders(state: &str, run: &str) -> Result<(String, String), String> {
        Ok((state.into(), run.into()))
    }

    #[test]
    fn the_table_of_the_header_holds() {
        let user = [("HOME", "/home/u"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        assert_eq!(home(&[("SHIMD_HOME", "/h"), ("XDG_STATE_HOME", "/s")], 7), folders("/h", "/h"));
        assert_eq!(home(&[("SHIMD_HOME", "/h")], 0), folders("/h", "/h"));
        assert_eq!(home(&user, 0), folders("/var/lib/shimd", "/run/shimd"));
        assert_eq!(home(&user, 7), folders("/s/shimd", "/run/user/7/shimd"));
        assert_eq!(
            home(&user[..1], 7),
            folders("/home/u/.local/state/shimd", "/home/u/.local/state/shimd/run")
        );
    }

    #[test]
    fn empty_is_unset_and_a_relative_xdg_folder_is_ignored() {
        let odd =
            [("SHIMD_HOME", ""), ("HOME", "/home/u"), ("XDG_STATE_HOME", "s"), ("XDG_RUNTIME_DIR", "r")];
        assert_eq!(home(&odd, 7), folders("/home/u/.local/state/shimd", "/home/u/.local/state/shimd/run"));
    }

    #[test]
    fn a_relative_folder_of_our_own_is_refused() {
        assert_eq!(
            home(&[("SHIMD_HOME", "h")], 0).unwrap_err(),
            "SHIMD_HOME is a relative path (h); set it to an absolute path"
        );
        assert_eq!(
            socket_root(&env(&[("HERO_SOCKET_DIR", "~/s")])).unwrap_err().to_string(),
            "HERO_SOCKET_DIR is a relative path (~/s); set it to an absolute path (`~` is not expanded here: write $HOME/s)"
        );
        assert!(home(&[("HOME", "u")], 7).unwrap_err().starts_with("HOME is a relative path (u)"));
    }

    #[test]
    fn without_home_the_user_database_is_asked() {
        // Root's entry is the one that every machine has.
        let root = User::from_uid(Uid::from_raw(0)).unwrap().unwrap().dir;
        assert_eq!(user_home(&env(&[]), 0).unwrap(), root);
        let nobody = user_home(&env(&[]), 4_000_000_001).unwrap_err().to_string();
        assert!(nobody.contains("no home folder for uid 4000000001"), "{nobody}");
    }

    #[test]
    fn sockets_lie_in_the_hero_folder() {
        assert_eq!(socket_root(&env(&[("HERO_SOCKET_DIR", "/s"), ("HOME", "/u")])).unwrap(), Path::new("/s"));
        assert_eq!(socket_root(&env(&[("HOME", "/u")])).unwrap(), Path::new("/u/hero/var/sockets"));
    }
}
