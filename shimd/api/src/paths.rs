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
