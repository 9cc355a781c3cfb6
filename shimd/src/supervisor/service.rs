//! One service as the supervisor holds it: the machine, and the facts that its rows are made of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use shimd_api::duration::format_duration;
use shimd_api::spec::{SocketKind, Spec};
use shimd_api::wire::{ServiceRow, SocketRow};
use socket_audit::{Expect, Finding, ListenerId, Owner, Verdict};

use crate::core::machine::{Machine, Phase};
use crate::core::policy::Policy;
use crate::store::Ack;
use crate::sys::identity::Identity;
use crate::sys::tree::Tree;

use super::clock::{nanos, rfc3339};

/// A registered service.
pub struct Service {
    /// Its name.
    pub name: Arc<str>,
    /// The spec that the next instance gets.
    pub spec: Arc<Spec>,
    /// The same, to the letter.
    pub spec_json: Arc<str>,
    /// Where it stands.
    pub machine: Machine,
    /// Why the last start failed, or why the service rests as failed.
    pub trouble: Option<String>,
    /// Spawns so far.
    pub generation: u64,
    /// Spawns that nobody asked for, since the last start command.
    pub restarts: u64,
    /// The instance, from its record until its tree is gone.
    pub instance: Option<Instance>,
    /// The declared sockets, in the spec's order.
    pub sockets: Vec<Socket>,
    /// READY=1 has come (or nobody asked for it).
    pub notified: bool,
    /// The intent whose write the next effect waits for.
    pub intent: Option<Ack>,
    /// When things happened, for the rows of commands.
    pub times: Times,
    /// What the clean of the start under way did.
    pub cleaned: CleanReport,
    /// The next spawn is one that was asked for.
    pub fresh_start: bool,
    /// When the old tree was gone, of the command under way: a second attempt does not move it.
    pub old_gone: Option<Instant>,
    /// How long the next look at an instance that does not serve yet waits.
    pub look_after: std::time::Duration,
}

/// What a clean removed and ended.
#[derive(Debug, Clone, Default)]
pub struct CleanReport {
    /// Dentries.
    pub removed: Vec<String>,
    /// Processes outside the instance.
    pub killed: Vec<i32>,
}

/// When the last of each happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// The instance was recorded and let go.
    pub spawned: Option<Instant>,
    /// Clients could reach every socket.
    pub serving: Option<Instant>,
}

/// One spawn of a service.
pub struct Instance {
    /// Counts the spawns of the service.
    pub generation: u64,
    /// Its main process.
    pub identity: Identity,
    /// Its processes.
    pub tree: Tree,
    /// The spec that it was spawned with: what it is judged by.
    pub spec: Arc<Spec>,
    /// When it was spawned, by the wall clock.
    pub started: SystemTime,
    /// Whether the main process lives.
    pub main_lives: bool,
}

/// A declared socket and what the last audit said of it.
#[derive(Debug, Clone)]
pub struct Socket {
    /// As declared.
    pub name: String,
    /// Where it must be.
    pub path: PathBuf,
    /// Its type.
    pub kind: SocketKind,
    /// The service is well without it.
    pub optional: bool,
    /// The last verdict; `None` before the first audit.
    pub verdict: Option<Verdict>,
    /// Its reason.
    pub reason: String,
    /// Since when it holds.
    pub since: SystemTime,
    /// The listener last seen `ok`.
    pub known: Option<ListenerId>,
    /// The dentry last seen `ok`, as `lstat` gives it: device and inode.
    pub dentry: Option<(u32, u64)>,
    /// The listener's process.
    pub pid: Option<i32>,
    /// The kernel socket's inode.
    pub inode: Option<u64>,
    /// Waiting connections and the queue's size.
    pub queue: Option<(u32, u32)>,
}

impl Socket {
    /// Whether clients get what the spec promises.
    pub fn is_ok(&self) -> bool {
        match self.verdict {
            Some(Verdict::Ok) => true,
            Some(Verdict::Absent) => self.optional,
            _ => false,
        }
    }

    /// Whether the look that called it `ok` no longer holds: something else lies there, or nothing.
    pub fn has_moved(&self) -> bool {
        let well_absent = self.optional && self.verdict == Some(Verdict::Absent);
        self.path.is_absolute()
            && !well_absent
            && (self.dentry.is_none() || lstat_id(&self.path) != self.dentry)
    }

    /// Whether it has been listened on without a dentry for so long.
    pub fn lost_for(&self, long: std::time::Duration) -> bool {
        self.verdict == Some(Verdict::Dangling) && self.since.elapsed().is_ok_and(|e| e >= long)
    }

    /// Whether the socket counts in `sockets`: an optional one only while it is there.
    pub fn counts(&self) -> bool {
        !(self.optional && matches!(self.verdict, None | Some(Verdict::Absent)))
    }

    /// Takes an audit's finding. Returns whether the verdict changed.
    pub fn take(&mut self, finding: &Finding, now: SystemTime) -> bool {
        let changed = self.verdict != Some(finding.verdict);
        if changed {
            self.since = now;
        }
        self.verdict = Some(finding.verdict);
        self.reason = finding.reason.to_string();
        self.inode = finding.listener.as_ref().map(|l| l.inode);
        self.queue = finding.listener.as_ref().map(|l| (l.pending, l.backlog));
        if finding.verdict == Verdict::Ok {
            let id = finding.listener.as_ref().map(|l| l.id());
            if self.known != id || self.pid.is_none() {
                self.pid = finding.holder.as_ref().map(|h| h.pid);
            }
            self.known = id;
            // As the audit saw it: a look of our own, a moment later, may see it gone and think that this is how it was.
            self.dentry = finding.dentry.as_ref().map(|d| (d.stat_dev, d.ino));
        } else if finding.holder.is_some() || finding.listener.is_none() {
            self.pid = finding.holder.as_ref().map(|h| h.pid);
        }
        changed
    }

    /// What a look at the folder alone says of a socket that an instance on its way has not bound.
    pub fn not_bound_yet(&mut self, now: SystemTime) {
        if self.verdict != Some(Verdict::Absent) {
            self.since = now;
        }
        self.verdict = Some(Verdict::Absent);
        self.reason = "nothing lies at the path: not bound yet".into();
        (self.pid, self.inode, self.queue) = (None, None, None);
    }

    /// The row of `socket.check`.
    pub fn row(&self, service: &str) -> SocketRow {
        SocketRow {
            service: Some(service.to_owned()),
            socket: self.name.clone(),
            path: self.path.display().to_string(),
            verdict: self.verdict.map_or("unknown", Verdict::as_str).to_owned(),
            reason: (!self.reason.is_empty()).then(|| self.reason.clone()),
            pid: self.pid,
            inode: self.inode,
            pending: self.queue.map(|q| q.0),
            backlog: self.queue.map(|q| q.1),
            since: self.verdict.map(|_| rfc3339(self.since)),
            culprit: None,
            relinked: 0,
        }
    }
}

/// Device and inode of what lies at a path, or `None`: one system call, cheap enough for every answer.
pub fn lstat_id(path: &std::path::Path) -> Option<(u32, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path).ok()?;
    // The kernel's own encoding of a device, as the audit has it.
    Some((libc::major(found.dev()) << 20 | libc::minor(found.dev()), found.ino()))
}

/// The sockets of a spec, not yet audited.
pub fn declared(spec: &Spec, root: &std::path::Path) -> Vec<Socket> {
    let socket = |s: &shimd_api::spec::SocketSpec| Socket {
        name: s.path.clone(),
        path: spec.socket_path(root, s),
        kind: s.kind,
        optional: s.optional,
        verdict: None,
        reason: String::new(),
        since: SystemTime::now(),
        known: None,
        dentry: None,
        pid: None,
        inode: None,
        queue: None,
    };
    spec.sockets.iter().map(socket).collect()
}

impl Service {
    /// A service that was just registered or read from the store.
    pub fn new(spec: Arc<Spec>, spec_json: Arc<str>, machine: Machine, root: &std::path::Path) -> Self {
        Service {
            name: Arc::from(spec.name.as_str()),
            sockets: declared(&spec, root),
            spec,
            spec_json,
            machine,
            trouble: None,
            generation: 0,
            restarts: 0,
            instance: None,
            notified: false,
            intent: None,
            times: Times::default(),
            cleaned: CleanReport::default(),
            fresh_start: true,
            old_gone: None,
            look_after: std::time::Duration::ZERO,
        }
    }

    /// The spec that counts now: the instance's own while one lives.
    pub fn live_spec(&self) -> &Arc<Spec> {
        self.instance.as_ref().map_or(&self.spec, |i| &i.spec)
    }

    /// What the machine needs to know of the spec.
    pub fn policy(&self) -> Policy {
        let spec = self.live_spec();
        Policy { restart: spec.restart.policy, limit: spec.restart.limit }
    }

    /// What an audit is to expect of each socket. `trusted`: a listener that was seen `ok` and lives is
    /// taken as the instance's without a look at its processes.
    pub fn expects(&self, trusted: bool) -> Vec<Expect> {
        let mut expects = self.expects_unowned(trusted);
        if expects.iter().any(|e| matches!(e.owner, Owner::Pids(_))) {
            let pids = self.instance.as_ref().map_or_else(Vec::new, |i| i.tree.pids_now());
            for expect in &mut expects {
                if let Owner::Pids(owner) = &mut expect.owner {
                    owner.clone_from(&pids);
                }
            }
        }
        expects
    }

    /// The same, but the owners' processes are left for the audit to fill in.
    pub fn expects_unowned(&self, trusted: bool) -> Vec<Expect> {
        let trusted = trusted && self.instance.is_some();
        let owner = |s: &Socket| match s.known {
            Some(_) if trusted => Owner::Trusted,
            _ => Owner::Pids(Vec::new()),
        };
        let expect = |s: &Socket| Expect {
            path: s.path.clone(),
            kind: Some(audit_kind(s.kind)),
            known: s.known,
            owner: owner(s),
        };
        self.sockets.iter().map(expect).collect()
    }

    /// Whether clients can reach it: every socket, and the readiness that the spec asks for.
    pub fn serves(&self, root: &std::path::Path) -> bool {
        self.sockets.iter().all(Socket::is_ok) && self.said_ready(root) && self.outlived_its_start()
    }

    /// A service that declares nothing to look at runs when it has lived for a moment.
    fn outlived_its_start(&self) -> bool {
        let spec = self.live_spec();
        let silent = self.sockets.is_empty() && !spec.ready.notify && spec.ready.marker.is_none();
        !silent || self.times.spawned.is_none_or(|at| at.elapsed() >= ALIVE)
    }

    fn said_ready(&self, root: &std::path::Path) -> bool {
        // Once it has served, a marker that was tidied away does not make it unready.
        let served =
            matches!(self.machine.phase, Phase::Running | Phase::Impaired) && self.times.serving.is_some();
        let spec = self.live_spec();
        served
            || ((self.notified || !spec.ready.notify)
                && (spec.ready.marker.is_none() || spec.marker_path(root).symlink_metadata().is_ok()))
    }

    /// Why the service is not green, in words; `None` where it is.
    pub fn health_reason(&self, root: &std::path::Path) -> Option<String> {
        match self.machine.phase {
            Phase::Running | Phase::Inactive => None,
            Phase::Impaired | Phase::Verifying => self.unreached(root).or_else(|| self.trouble.clone()),
            _ => self.trouble.clone(),
        }
    }

    fn unreached(&self, root: &std::path::Path) -> Option<String> {
        let bad = self.sockets.iter().filter(|s| !s.is_ok());
        let mut words: Vec<String> = bad.map(socket_trouble).collect();
        // The contract's sentence comes first, whatever else is wrong.
        words.sort_by_key(|w| !w.starts_with(MISSING));
        if words.is_empty() && !self.said_ready(root) {
            let ready = &self.live_spec().ready;
            if ready.notify && !self.notified {
                words.push("its sockets are ok, but it has not sent READY=1".into());
            } else if ready.marker.is_some() {
                let marker = self.live_spec().marker_path(root);
                words.push(format!(
                    "its sockets are ok, but its ready marker {} is not there",
                    marker.display()
                ));
            }
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// Whether an entry of this name in one of its folders is one that it is judged by.
    pub fn looks_at(&self, name: &std::ffi::OsStr, root: &std::path::Path) -> bool {
        self.sockets.iter().any(|s| s.path.file_name() == Some(name))
            || self.live_spec().ready.marker.is_some()
                && self.live_spec().marker_path(root).file_name() == Some(name)
    }

    /// The last failure was one too many.
    pub fn say_limit(&mut self) {
        let restart = &self.live_spec().restart;
        let (limit, window) = (restart.limit, format_duration(restart.window));
        let last = self.trouble.take().unwrap_or_else(|| "it ended".into());
        self.trouble = Some(format!(
            "{last}; started {limit} times within {window}, the restart limit: see its log, then proc reset-failed"
        ));
    }

    /// The main process, while it lives.
    pub fn pid(&self) -> Option<i32> {
        self.instance.as_ref().filter(|i| i.main_lives).map(|i| i.identity.pid)
    }

    /// The row of `service.list`.
    pub fn row(&self, root: &std::path::Path) -> ServiceRow {
        let since = |i: &Instance| nanos(i.started.elapsed().unwrap_or_default());
        ServiceRow {
            name: self.name.to_string(),
            status: self.machine.status(),
            health_reason: self.health_reason(root),
            pid: self.pid(),
            uptime: self.instance.as_ref().filter(|i| i.main_lives).map(since),
            restarts: self.restarts,
            sockets_ok: self.sockets.iter().filter(|s| s.counts() && s.verdict == Some(Verdict::Ok)).count()
                as u32,
            sockets: self.sockets.iter().filter(|s| s.counts()).count() as u32,
        }
    }

    /// The rows of `socket.check`.
    pub fn socket_rows(&self) -> Vec<SocketRow> {
        self.sockets.iter().map(|s| s.row(&self.name)).collect()
    }
}

/// How long a service without sockets, marker and notification lives before it is said to run: one that cannot
/// start has mostly ended by then.
const ALIVE: std::time::Duration = std::time::Duration::from_millis(100);

const MISSING: &str = "declared socket missing on disk: ";

fn socket_trouble(socket: &Socket) -> String {
    match socket.verdict {
        Some(Verdict::Dangling | Verdict::Absent) => format!("{MISSING}{} ({})", socket.name, socket.reason),
        Some(verdict) => {
            format!("declared socket {} is {}: {}", socket.name, verdict.as_str(), socket.reason)
        }
        None => format!("declared socket {} was not audited yet", socket.name),
    }
}

/// The audit's word for the spec's socket type.
pub fn audit_kind(kind: SocketKind) -> socket_audit::SocketKind {
    match kind {
        SocketKind::Stream => socket_audit::SocketKind::Stream,
        SocketKind::Dgram => socket_audit::SocketKind::Dgram,
        SocketKind::Seqpacket => socket_audit::SocketKind::Seqpacket,
    }
}
