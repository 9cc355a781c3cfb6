//! The typed view of a service's spec (CONTRACT "Spec").
//!
//! A spec travels and is stored as the text that the user gave; this view is made from that text by [`Spec::parse`]
//! each time it is needed. It holds the known fields only, with their defaults filled in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// One service, as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The service's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}`.
    pub name: String,
    /// The argv, never empty, placeholders not yet replaced (see [`Spec::argv`]).
    pub exec: Vec<String>,
    /// The working folder, absolute.
    pub cwd: Option<PathBuf>,
    /// Variables added to the service's environment, placeholders not yet replaced (see [`Spec::environment`]).
    pub env: BTreeMap<String, String>,
    /// The user to run as: a name or a number. Whether it exists is for the daemon to say.
    pub user: Option<String>,
    /// The group to run as: a name or a number. Whether it exists is for the daemon to say.
    pub group: Option<String>,
    /// The file mode creation mask, `0..=0o777`.
    pub umask: Option<u32>,
    /// The declared sockets, in their order, no path twice.
    pub sockets: Vec<SocketSpec>,
    /// `kill_other.socket`: whoever listens there is ended before a spawn. Written as a socket's `path` is.
    pub kill_other: Vec<String>,
    /// When an instance counts as up.
    pub ready: Ready,
    /// How an instance is stopped.
    pub stop: Stop,
    /// What follows when an instance ends by itself.
    pub restart: Restart,
    /// What follows when a live listener loses its dentry.
    pub on_missing: OnMissing,
    /// How long a dentry that the service itself removed may stay away. 100 ms.
    pub settle: Duration,
    /// Services whose sockets are `ok` before this one starts; no name twice, never its own.
    pub depends_on: Vec<String>,
    /// The bounds of the service's logs.
    pub log: Log,
    /// Whether the service comes up with `shimd`; `None`: what was last wanted of it.
    pub autostart: Option<bool>,
    /// How long a connection may wait to be accepted before the socket is `wedged`. 5 s.
    pub wedged_after: Duration,
}

/// A declared socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSpec {
    /// The path as declared: a basename, an absolute path, or `@name` (abstract: no dentry).
    pub path: String,
    /// The socket's type.
    pub kind: SocketKind,
    /// Who binds the public path.
    pub mode: SocketMode,
    /// Whether the service counts as reachable without it.
    pub optional: bool,
    /// Users or groups that must be able to connect.
    pub clients: Vec<String>,
    /// The queue's size where `shimd` itself listens (`activate`).
    pub backlog: Option<u32>,
}

impl SocketSpec {
    /// Whether the socket lives in the abstract namespace, and so has no dentry.
    pub fn is_abstract(&self) -> bool {
        self.path.starts_with('@')
    }

    /// Whether the socket is declared by a basename, and so lives in the service's own folder.
    pub fn is_basename(&self) -> bool {
        !self.path.starts_with(['/', '@'])
    }
}

/// A Unix socket's type (socket(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SocketKind {
    /// `SOCK_STREAM`, the default.
    #[default]
    Stream,
    /// `SOCK_DGRAM`.
    Dgram,
    /// `SOCK_SEQPACKET`.
    Seqpacket,
}

impl SocketKind {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            SocketKind::Stream => "stream",
            SocketKind::Dgram => "dgram",
            SocketKind::Seqpacket => "seqpacket",
        }
    }
}

/// Who binds a socket's public path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SocketMode {
    /// The service itself, the default.
    #[default]
    Bind,
    /// Each instance binds a path of its own; `shimd` renames it to the public path once it listens.
    Publish,
    /// `shimd` binds and listens; the instance gets the descriptor as `LISTEN_FDS`.
    Activate,
}

impl SocketMode {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            SocketMode::Bind => "bind",
            SocketMode::Publish => "publish",
            SocketMode::Activate => "activate",
        }
    }
}

/// When an instance counts as up, beside its sockets being `ok`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// How long a start may take. 30 s, never zero.
    pub timeout: Duration,
    /// A file name in the socket folder that must appear; `Some` only if the spec names it.
    pub marker: Option<String>,
    /// Whether the instance must say `READY=1` (sd_notify(3)).
    pub notify: bool,
}

impl Ready {
    /// The marker's file name, `.ready` unless the spec says otherwise. It is removed before a spawn whether or not
    /// the service is waited for by it.
    pub fn marker_name(&self) -> &str {
        self.marker.as_deref().unwrap_or(".ready")
    }
}

impl Default for Ready {
    fn default() -> Self {
        Ready { timeout: Duration::from_secs(30), marker: None, notify: false }
    }
}

/// How an instance is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The signal's number. `SIGTERM`.
    pub signal: i32,
    /// How long the process tree has before `SIGKILL`. 10 s; zero kills at once.
    pub timeout: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Stop { signal: libc::SIGTERM, timeout: Duration::from_secs(10) }
    }
}

/// What follows when an instance ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// When a new instance is started.
    pub policy: RestartPolicy,
    /// The pause before the first new start. 100 ms.
    pub delay: Duration,
    /// The longest pause, never under `delay`. 30 s, or `delay` where that is longer.
    pub max_delay: Duration,
    /// How many starts `window` may hold before the service is `failed`. 5, never zero.
    pub limit: u32,
    /// The time over which starts are counted. 60 s.
    pub window: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Restart {
            policy: RestartPolicy::OnFailure,
            delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            limit: 5,
            window: Duration::from_secs(60),
        }
    }
}

/// When an instance that ended is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RestartPolicy {
    /// Whatever its exit status was.
    Always,
    /// If its exit status was not 0, or a signal ended it. The default.
    #[default]
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            RestartPolicy::Always => "always",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::Never => "never",
        }
    }
}

/// What follows when a live listener loses its dentry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnMissing {
    /// The dentry is put back from the pin. The default.
    #[default]
    Relink,
    /// The service is restarted, cleanly.
    Restart,
    /// The service is `failed` and left alone.
    Report,
}

impl OnMissing {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            OnMissing::Relink => "relink",
            OnMissing::Restart => "restart",
            OnMissing::Report => "report",
        }
    }
}

/// The bounds of a service's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The size, in bytes, under which each stream's file is kept. 10 MB (10,000,000), never zero.
    pub max_size: u64,
    /// How many older files are kept. 3.
    pub keep: u32,
}

impl Default for Log {
    fn default() -> Self {
        Log { max_size: 10_000_000, keep: 3 }
    }
}

/// What is wrong with a spec, and how to put it right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {fix}")]
pub struct SpecError {
    /// The field at fault: `exec`, `sockets[1].path`, `kill_other.socket[0]`; `spec` for the spec as a whole.
    pub field: String,
    /// What is wrong, with the value that was found.
    pub problem: String,
    /// What to write in its place.
    pub fix: String,
}

impl SpecError {
    /// An error of one field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> SpecError {
        SpecError { field: field.into(), problem: problem.into(), fix: fix.into() }
    }
}
