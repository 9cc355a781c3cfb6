//! What a scenario needs that a machine may lack. What cannot run is reported by name and reason.

use crate::{Record, bins, cgroups};
use nix::unistd::{User, geteuid};

/// One thing that a scenario needs.
#[derive(Debug, Clone)]
pub enum Need {
    /// The effective user is root.
    Root,
    /// `shimd` is built.
    Daemon,
    /// Nushell of the right version, and the plugin.
    Nushell,
    /// A cgroup v2 whose processes this user may move.
    Cgroup,
    /// A program in the system's folders or on PATH.
    Program(&'static str),
    /// A program that `cargo xtask test` builds into the target folder.
    Tool(&'static str),
    /// A user of the system.
    User(&'static str),
    /// A real server with all that its record names.
    Server(Box<Record>),
}

impl Need {
    /// Why the need is not met, in words that say what to do; `None` when it is.
    pub fn lacking(&self) -> Option<String> {
        let built = |name| match bins::built(name) {
            Some(_) => None,
            None => Some(format!("{name} is not built: run `cargo xtask test`")),
        };
        match self {
            Need::Root => (!geteuid().is_root()).then(|| "needs root".to_owned()),
            Need::Daemon => built("shimd").or_else(|| built("unixd")),
            Need::Nushell if bins::nu().is_none() => {
                Some(format!("Nushell {} is not here: run `cargo xtask test`", bins::NU_VERSION))
            }
            Need::Nushell => built("nu_plugin_proc"),
            Need::Cgroup => cgroups::own().is_none().then(|| "there is no writable cgroup v2".to_owned()),
            Need::Program(name) => bins::on_path(name).is_none().then(|| format!("{name} is not installed")),
            Need::Tool(name) => bins::tools()
                .is_none_or(|folder| !folder.join(name).is_file())
                .then(|| format!("{name} is not here: run `cargo xtask test` without a name")),
            Need::User(name) => {
                (!matches!(User::from_name(name), Ok(Some(_)))).then(|| format!("there is no user {name}"))
            }
            Need::Server(record) => record.lacking(),
        }
    }
}
