//! A declared socket and what is known of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use shimd_api::spec::{SocketKind, Spec};
use shimd_api::wire::{Culprit, SocketRow};
use socket_audit::{Finding, ListenerId, Peers, Verdict, Witness};

use super::clock::rfc3339;
use super::healing::Care;
use super::publish::Own;
use super::queues::Line;
use super::reasons::Reason;
use super::sweep::Past;
use crate::sys::users;

/// How soon a socket that is bound and does not listen yet is looked at again, and at the latest.
const LISTENS_SOON: Duration = Duration::from_millis(1);
const LISTENS_LATE: Duration = Duration::from_millis(200);

/// A declared socket and what the last audit said of it.
#[derive(Debug, Clone)]
pub struct Socket {
    /// As declared.
    pub name: String,
    /// Where it must be.
    pub path: PathBuf,
    /// Of a `publish` socket, while an instance is there or on its way: where that binds it.
    pub own: Option<Own>,
    /// Its type.
    pub kind: SocketKind,
    /// The service is well without it.
    pub optional: bool,
    /// Who must be able to connect.
    pub peers: Peers,
    /// The last verdict; `None` before the first audit of this instance.
    pub verdict: Option<Verdict>,
    /// When the look began that says so.
    pub looked: Option<Instant>,
    /// When this instance's verdict last changed.
    pub changed: Option<Instant>,
    /// Its reason, but for the culprit.
    pub reason: Reason,
    /// Who brought it about.
    pub culprit: Option<Culprit>,
    /// The listener last seen `ok`.
    pub known: Option<ListenerId>,
    /// The dentry last seen `ok`, as `lstat` gives it: device and inode.
    pub dentry: Option<(u32, u64)>,
    /// A hold on that dentry.
    pub witness: Option<Arc<Witness>>,
    /// Before the audit that last called it `ok`: whoever did it since did it later.
    pub well_at: Option<Instant>,
    /// Since when it is not in order, while that may be a reload.
    pub missed: Option<Instant>,
    /// The last that the folder's watch saw of the name was that something was renamed to it.
    pub moved_in: bool,
    /// The generation that was last seen `ok` here.
    pub served: Option<u64>,
    /// The listener's process.
    pub pid: Option<i32>,
    /// The kernel socket's inode.
    pub inode: Option<u64>,
    /// Waiting connections and the queue's size.
    pub queue: Option<(u32, u32)>,
    /// The queue, while somebody waits in it.
    pub line: Option<Line>,
    /// When to look again without an event.
    pub again: Option<Instant>,
    /// What the history says last: it outlives instances.
    pub spell: Option<Spell>,
    /// What is done to keep its dentry.
    pub care: Care,
}

/// A verdict in the history, from when it began to hold.
#[derive(Debug, Clone)]
pub struct Spell {
    /// The verdict, in the contract's word.
    pub verdict: String,
    /// Since when.
    pub since: SystemTime,
    /// The event that told of it.
    pub event: u64,
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
            && (self.dentry.is_none() || lstat_id(self.place()) != self.dentry)
    }

    /// Whether nothing lies at the path, and this instance was never seen to listen there.
    pub fn has_never_been_there(&self) -> bool {
        self.known.is_none() && self.path.is_absolute() && lstat_id(self.place()).is_none()
    }

    /// Whether it has been listened on without a dentry for so long.
    pub fn lost_for(&self, long: Duration) -> bool {
        // By this instance's own time: the history's spell may go on from the last one's.
        self.verdict == Some(Verdict::Dangling) && self.changed.is_some_and(|at| at.elapsed() >= long)
    }

    /// Whether the socket counts in `sockets`: an optional one only while it is there.
    pub fn counts(&self) -> bool {
        !(self.optional && matches!(self.verdict, None | Some(Verdict::Absent)))
    }

    /// Whether a finding is of another verdict than the history's last.
    pub fn is_news(&self, verdict: Verdict) -> bool {
        // The history is of the public name.
        !self.is_private() && self.spell.as_ref().is_none_or(|spell| spell.verdict != verdict.as_str())
    }

    /// It is bound, and listen() raises no event: looks again in a millisecond, then ever more rarely, since some never do.
    pub fn look_for_listen(&mut self) {
        let so_far = self.changed.map_or(Duration::ZERO, |at| at.elapsed());
        let at = Instant::now() + (so_far / 4).clamp(LISTENS_SOON, LISTENS_LATE);
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }

    /// Takes an audit's finding. `asked`: an instant before its look.
    pub fn take(&mut self, finding: &Finding, reason: Reason, asked: Instant, generation: u64) {
        if self.verdict != Some(finding.verdict) && finding.verdict == Verdict::Ok {
            self.culprit = None;
            // The dentry may be another of the same inode: linked back.
            self.witness = None;
        }
        if self.verdict != Some(finding.verdict) {
            self.changed = Some(Instant::now());
        }
        (self.verdict, self.looked) = (Some(finding.verdict), Some(asked));
        self.missed = None;
        self.reason = reason;
        self.inode = finding.listener.as_ref().map(|l| l.inode);
        self.queue = finding.listener.as_ref().map(|l| (l.pending, l.backlog));
        // Wedged and denied: it is where it should be, and clients cannot use it.
        if matches!(finding.verdict, Verdict::Ok | Verdict::Wedged | Verdict::Denied) {
            let id = finding.listener.as_ref().map(|l| l.id());
            if self.known != id || self.pid.is_none() {
                self.pid = finding.holder.as_ref().map(|h| h.pid);
            }
            self.known = id;
            self.served = Some(generation);
            if finding.verdict == Verdict::Ok {
                self.well_at = Some(asked);
            }
            // As the audit saw it: a look of our own, a moment later, may see it gone and think that this is how it was.
            let dentry = finding.dentry.as_ref().map(|d| (d.stat_dev, d.ino));
            if self.dentry != dentry {
                self.dentry = dentry;
                self.witness = None;
            }
        } else if finding.holder.is_some() || finding.listener.is_none() {
            self.pid = finding.holder.as_ref().map(|h| h.pid);
        }
    }

    /// Takes hold of the dentry that was just seen `ok`, unless that is done.
    pub fn hold(&mut self) {
        if self.verdict == Some(Verdict::Ok) && self.witness.is_none() && self.path.is_absolute() {
            let held = Witness::of(self.place()).ok().map(Arc::new);
            // Something else may have come to lie there since the audit.
            self.witness = held.filter(|_| lstat_id(self.place()) == self.dentry);
        }
    }

    /// Forgets the last instance's listener; what it did stays in the history.
    pub fn forget(&mut self) {
        (self.known, self.dentry, self.witness, self.well_at) = (None, None, None, None);
    }

    /// What an instance has listened on here.
    pub fn past(&self) -> Option<Past> {
        Some(Past {
            path: self.path.clone(),
            kind: audit_kind(self.kind),
            listener: self.known?,
            witness: self.witness.clone(),
        })
    }

    /// What a look at the folder alone says of a socket that an instance on its way has not bound.
    pub fn not_bound_yet(&mut self) {
        self.verdict = Some(Verdict::Absent);
        self.reason = Reason { done: None, stands: "nothing lies at the path: not bound yet".into() };
        (self.pid, self.inode, self.queue, self.culprit) = (None, None, None, None);
    }

    /// The reason with the culprit; `None` where there is nothing to say.
    pub fn why(&self) -> Option<String> {
        let mut words = self.reason.words(self.culprit.as_ref());
        if !self.is_ok() {
            words.extend(self.care.in_the_way());
        }
        Some(words).filter(|words| !words.is_empty())
    }

    /// What is wrong with it, for the service's `health_reason`.
    pub fn trouble(&self) -> String {
        let why = self.why().unwrap_or_default();
        match self.verdict {
            Some(Verdict::Dangling | Verdict::Absent) => format!("{MISSING}{} ({why})", self.name),
            Some(verdict) => format!("declared socket {} is {}: {why}", self.name, verdict.as_str()),
            None => format!("declared socket {} was not audited yet", self.name),
        }
    }

    /// The row of `socket.check`.
    pub fn row(&self, service: &str) -> SocketRow {
        SocketRow {
            service: Some(service.to_owned()),
            socket: self.name.clone(),
            path: self.path.display().to_string(),
            verdict: self.verdict.map_or("unknown", Verdict::as_str).to_owned(),
            reason: self.why(),
            pid: self.pid,
            inode: self.inode,
            pending: self.queue.map(|q| q.0),
            backlog: self.queue.map(|q| q.1),
            since: self.spell.as_ref().filter(|_| self.verdict.is_some()).map(|s| rfc3339(s.since)),
            culprit: self.culprit.clone(),
            relinked: self.care.relinked,
        }
    }
}

/// The contract's sentence for a missing dentry.
pub const MISSING: &str = "declared socket missing on disk: ";

/// Device and inode of what lies at a path, or `None`: one system call, cheap enough for every answer.
pub fn lstat_id(path: &Path) -> Option<(u32, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::symlink_metadata(path).ok()?;
    // The kernel's own encoding of a device, as the audit has it.
    Some((libc::major(found.dev()) << 20 | libc::minor(found.dev()), found.ino()))
}

/// The sockets of a spec, not yet audited. What `before` held of the same paths is kept: the history goes on.
pub fn declared(spec: &Spec, root: &Path, before: &[Socket]) -> Vec<Socket> {
    let socket = |s: &shimd_api::spec::SocketSpec| {
        let path = spec.socket_path(root, s);
        let before = before.iter().find(|b| b.path == path);
        Socket {
            name: s.path.clone(),
            own: None,
            kind: s.kind,
            optional: s.optional,
            peers: peers(&s.clients),
            verdict: None,
            looked: None,
            changed: None,
            reason: Reason::default(),
            culprit: None,
            known: before.and_then(|b| b.known),
            dentry: None,
            witness: before.and_then(|b| b.witness.clone()),
            well_at: None,
            missed: None,
            moved_in: false,
            served: before.and_then(|b| b.served),
            pid: None,
            inode: None,
            queue: None,
            line: None,
            again: None,
            spell: before.and_then(|b| b.spell.clone()),
            care: before.map_or_else(Care::default, |b| b.care.of_the_next()),
            path,
        }
    };
    spec.sockets.iter().map(socket).collect()
}

/// The `clients` of a spec. A name that is no longer known was known when the spec was registered; it is left out.
fn peers(clients: &[String]) -> Peers {
    match clients {
        [] => Peers::Owner,
        named => Peers::Named(named.iter().filter_map(|name| users::peer(name).ok()).collect()),
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
