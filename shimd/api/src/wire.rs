//! The wire types: what a row of each command holds, as it travels in JSON-RPC results.
//!
//! Rules: a duration is a whole number of nanoseconds, a time is an RFC 3339 string, a pid is a number,
//! what is not known is `null`, and an unknown field of a newer daemon is ignored by an older client.

use serde::{Deserialize, Serialize};

/// The state of a service as users see it (CONTRACT "Service states").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No instance runs and none is being started.
    Inactive,
    /// An instance is on its way: dependencies, cleaning, spawning, or sockets not yet `ok`.
    Starting,
    /// An instance runs and every declared socket is `ok`.
    Running,
    /// The instance was told to stop and its process tree is not gone yet.
    Stopping,
    /// The instance ended; the next start waits for its delay.
    Backoff,
    /// Clients cannot reach the service; `health_reason` says why. A process may still live.
    Failed,
}

impl Status {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Inactive => "inactive",
            Status::Starting => "starting",
            Status::Running => "running",
            Status::Stopping => "stopping",
            Status::Backoff => "backoff",
            Status::Failed => "failed",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `service.set` and `service.delete` did with one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRow {
    /// The service.
    pub name: String,
    /// `created`, `updated`, `unchanged`, or `deleted`.
    pub change: String,
}

/// One row of `service.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// The service.
    pub name: String,
    /// Its state.
    pub status: Status,
    /// Why it is not `running`, in words.
    pub health_reason: Option<String>,
    /// The main process of the live instance.
    pub pid: Option<i32>,
    /// Nanoseconds since the live instance was spawned.
    pub uptime: Option<i64>,
    /// How often `shimd` has spawned it again since it was last told to start.
    pub restarts: u64,
    /// How many declared sockets are `ok`.
    pub sockets_ok: u32,
    /// How many sockets are declared.
    pub sockets: u32,
}

/// One row of `service.start`, `service.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRow {
    /// The service.
    pub name: String,
    /// The state that it settled in.
    pub status: Status,
    /// Why it is not what was asked for.
    pub health_reason: Option<String>,
    /// The main process, where one lives.
    pub pid: Option<i32>,
    /// Nanoseconds from the request to the settled state.
    pub took: i64,
}

/// One row of `service.restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRow {
    /// The service.
    pub name: String,
    /// `restarted` or `failed`.
    pub outcome: String,
    /// Why it failed.
    pub health_reason: Option<String>,
    /// The main process before.
    pub old_pid: Option<i32>,
    /// The main process now.
    pub new_pid: Option<i32>,
    /// Nanoseconds until the old process tree was gone.
    pub stopped_in: Option<i64>,
    /// Nanoseconds from the spawn until every socket was `ok`.
    pub ready_in: Option<i64>,
    /// Nanoseconds from its turn until it settled.
    pub took: i64,
    /// Dentries that were removed.
    pub cleaned: Vec<String>,
    /// Processes outside the instance that were ended.
    pub killed: Vec<i32>,
    /// The sockets, as an audit at the end saw them.
    pub sockets: Vec<SocketRow>,
}

/// One row of `service.reset_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRow {
    /// The service.
    pub name: String,
    /// Its state after.
    pub status: Status,
}

/// Who removed or replaced a dentry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// Its process id at the time.
    pub pid: i32,
    /// Its command name (`comm`).
    pub name: String,
    /// Its executable.
    pub exe: Option<String>,
    /// Its user id.
    pub uid: Option<u32>,
}

/// One row of `socket.check`, and of `shimd check --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketRow {
    /// The service that declares it; `null` for a bare path.
    pub service: Option<String>,
    /// The declared name (a basename, or the path itself).
    pub socket: String,
    /// The absolute path.
    pub path: String,
    /// The verdict (CONTRACT "Verdicts"): `ok`, `dangling`, …
    pub verdict: String,
    /// The verdict's reason in words.
    pub reason: Option<String>,
    /// The listener's process.
    pub pid: Option<i32>,
    /// The kernel socket's inode (`ss -e` shows the same number), not the dentry's.
    pub inode: Option<u64>,
    /// Connections that wait to be accepted (bytes for a datagram socket).
    pub pending: Option<u32>,
    /// The queue's size.
    pub backlog: Option<u32>,
    /// Since when the verdict holds, RFC 3339; `null` where nobody watched.
    pub since: Option<String>,
    /// Who removed or replaced the dentry, where that is known.
    pub culprit: Option<Culprit>,
    /// How often the dentry was put back.
    pub relinked: u64,
}

/// One row of `socket.heal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealRow {
    /// The absolute path.
    pub path: String,
    /// What was done: `relinked`, `bridged` or `not_possible`.
    pub outcome: HealOutcome,
    /// How it stands, or why nothing was done.
    pub reason: Option<String>,
}

/// What was done for a lost socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealOutcome {
    /// Its file was linked back: nothing else is to be done.
    Relinked,
    /// A bridge stands at the path until the service is restarted.
    Bridged,
    /// Nothing.
    NotPossible,
}

impl HealOutcome {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            HealOutcome::Relinked => "relinked",
            HealOutcome::Bridged => "bridged",
            HealOutcome::NotPossible => "not_possible",
        }
    }
}

/// The live instance, in `service.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// Counts spawns of this service, from 1.
    pub generation: u64,
    /// The main process.
    pub pid: i32,
    /// When it was spawned, RFC 3339.
    pub started: String,
    /// The boot in which it was spawned (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Its cgroup, where one could be made.
    pub cgroup: Option<String>,
    /// Every process of the instance.
    pub pids: Vec<i32>,
}

/// The record of `service.status`: the row of `service.list`, where `sockets` now holds the rows of
/// `socket.check` in place of their number, and the spec and the instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusRecord {
    /// The service.
    pub name: String,
    /// Its state.
    pub status: Status,
    /// Why it is not `running`, in words.
    pub health_reason: Option<String>,
    /// The main process of the live instance.
    pub pid: Option<i32>,
    /// Nanoseconds since the live instance was spawned.
    pub uptime: Option<i64>,
    /// How often `shimd` has spawned it again since it was last told to start.
    pub restarts: u64,
    /// How many declared sockets are `ok`.
    pub sockets_ok: u32,
    /// The rows of `socket.check`.
    pub sockets: Vec<SocketRow>,
    /// The spec as it was given.
    pub spec: serde_json::Value,
    /// The live instance.
    pub instance: Option<InstanceRow>,
}

/// One row of `service.logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    /// When the line was written, to about 100 ms (5 ms while it is followed), RFC 3339; `null` where nothing recorded it.
    pub time: Option<String>,
    /// `out` or `err`.
    pub stream: String,
    /// The line, without its newline; bytes that are not UTF-8 are replaced, and of a line over 64 KiB the beginning is
    /// given, and how long it is.
    pub line: String,
}

/// What a `log` notification of `log.stream` holds, in its param `lines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLines {
    /// Lines.
    Rows(Vec<LogRow>),
    /// Where bytes were asked for (`raw`): those that are UTF-8.
    Text(String),
    /// The same, where they are not.
    Bytes(Vec<u8>),
}

/// The params of a `log` notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogNews {
    /// What was written.
    pub lines: LogLines,
}

/// The record of `shim.info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimInfo {
    /// The daemon's process.
    pub pid: i32,
    /// Its version.
    pub version: String,
    /// Nanoseconds since it came up.
    pub uptime: i64,
    /// How many services are registered.
    pub services: u64,
    /// The control socket.
    pub socket: String,
    /// The folder of its state.
    pub home: String,
    /// Where sockets declared by a basename live.
    pub socket_root: String,
    /// What it could not do, in words (a full disk, no inotify, …); empty when all is well.
    pub troubles: Vec<String>,
}

/// A `progress` notification, sent about once a second on a connection whose request takes long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How each service of the request stands.
    pub services: Vec<ProgressRow>,
    /// Nanoseconds since the request.
    pub elapsed: i64,
}

/// One service in a `progress` notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRow {
    /// The service.
    pub name: String,
    /// Its state now.
    pub status: Status,
    /// Whether that is its state in the answer.
    #[serde(default)]
    pub settled: bool,
    /// Nanoseconds since its turn began, until it settled; `null` where its turn has not come.
    #[serde(default)]
    pub took: Option<i64>,
}
