//! One service as the supervisor holds it: the machine, and the facts that its rows are made of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use shimd_api::duration::format_duration;
use shimd_api::spec::Spec;
use shimd_api::wire::{ServiceRow, SocketRow, Status};
use socket_audit::{Expect, ListenerId, Owner, Verdict};

use crate::core::machine::{Machine, Phase};
use crate::core::policy::Policy;
use crate::store::Ack;
use crate::sys::identity::Identity;
use crate::sys::tree::Tree;
use crate::sys::watch::Change;

use super::activation::{Kept, Owners};
use super::clock::nanos;
use super::early::Early;
use super::readiness::{outlived, said_ready, unreached};
use super::second::Second;
use super::socket::{Socket, audit_kind, declared};
use super::starting::Looks;

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
    /// The generation of the instance, or of the last.
    pub current: u64,
    /// The instance, from its record until its tree is gone.
    pub instance: Option<Instance>,
    /// The one beside it.
    pub second: Second,
    /// The next instance's launch, where it is begun.
    pub early: Option<Early>,
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
    /// Its turn in the restart that was last asked for.
    pub turn: super::waiters::Turn,
    /// Its next turn is a gapless one.
    pub gapless: bool,
    /// The next spawn is one that was asked for.
    pub fresh_start: bool,
    /// When the old tree was gone, of the command under way: a second attempt does not move it.
    pub old_gone: Option<Instant>,
    /// The state that the history says last, also one of before this daemon.
    pub told: Status,
    /// Since when the history says so.
    pub status_since: SystemTime,
    /// How its instance is looked at until it serves.
    pub looks: Looks,
}

/// What a clean removed and ended.
#[derive(Debug, Clone, Default)]
pub struct CleanReport {
    /// Dentries.
    pub removed: Vec<String>,
    /// Processes outside the instance.
    pub killed: Vec<i32>,
    /// Listeners of the mode `activate`, and the one that each path had before.
    pub listeners: Vec<(Kept, Option<ListenerId>)>,
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
    /// It was let go, as far as the store knew when it was found; true of one that was spawned here.
    pub begun: bool,
}

impl Service {
    /// A service that was just registered or read from the store.
    pub fn new(spec: Arc<Spec>, spec_json: Arc<str>, machine: Machine, root: &std::path::Path) -> Self {
        Service {
            told: machine.status(),
            name: Arc::from(spec.name.as_str()),
            sockets: declared(&spec, root, &[]),
            spec,
            spec_json,
            machine,
            trouble: None,
            generation: 0,
            current: 0,
            restarts: 0,
            instance: None,
            second: Second::default(),
            early: None,
            notified: false,
            intent: None,
            times: Times::default(),
            cleaned: CleanReport::default(),
            turn: super::waiters::Turn::default(),
            gapless: false,
            fresh_start: true,
            old_gone: None,
            status_since: SystemTime::now(),
            looks: Looks::default(),
        }
    }

    /// The spec that counts now: the instance's own while one lives.
    pub fn live_spec(&self) -> &Arc<Spec> {
        self.instance.as_ref().map_or(&self.spec, |i| &i.spec)
    }

    /// Where it is said why an effect failed: for the service, or for the instance that was to come beside.
    pub fn why(&mut self, second: bool) -> &mut Option<String> {
        if second { &mut self.second.failed } else { &mut self.trouble }
    }

    /// What the machine needs to know of the spec.
    pub fn policy(&self) -> Policy {
        let spec = self.live_spec();
        Policy { restart: spec.restart.policy, limit: spec.restart.limit }
    }

    /// What an audit is to expect of each socket. `trusted`: a listener that was seen `ok` and lives is
    /// taken as the instance's without a look at its processes. `some`: of these alone, by their place in the spec.
    pub fn expects(&self, trusted: bool, some: Option<&BTreeSet<usize>>) -> Vec<(usize, Expect)> {
        let mut expects = self.expects_unowned(trusted, some);
        if expects.iter().any(|(_, e)| matches!(e.owner, Owner::Pids(_))) {
            let pids = Owners::of(self).pids_now();
            for (_, expect) in &mut expects {
                if let Owner::Pids(owner) = &mut expect.owner {
                    owner.clone_from(&pids);
                }
            }
        }
        expects
    }

    /// The same, but the owners' processes are left for the audit to fill in.
    pub fn expects_unowned(&self, trusted: bool, some: Option<&BTreeSet<usize>>) -> Vec<(usize, Expect)> {
        let trusted = trusted && self.instance.is_some();
        let owner = |s: &Socket| match s.known {
            // What became of a lost one, to which no hold was kept, its process can tell.
            Some(_) if trusted && (s.witness.is_some() || s.is_ok()) => Owner::Trusted,
            _ => Owner::Pids(Vec::new()),
        };
        let expect = |s: &Socket| Expect {
            path: s.place().to_owned(),
            kind: Some(audit_kind(s.kind)),
            known: s.known,
            owner: owner(s),
            witness: s.witness.clone(),
            peers: s.peers.clone(),
        };
        let wanted = |place: &usize| some.is_none_or(|some| some.contains(place));
        let sockets = self.sockets.iter().enumerate().filter(|(place, _)| wanted(place));
        sockets.map(|(place, socket)| (place, expect(socket))).collect()
    }

    /// Lets go of the dentries: nothing of the service lives, nor is about to be cleaned.
    pub fn drop_witnesses(&mut self) {
        self.sockets.iter_mut().for_each(|socket| socket.witness = None);
    }

    /// Whether an instance lives that has come up, whatever has become of it since: a gapless restart leaves it alone until the
    /// next one is up. Of an instance that this daemon did not spawn it is taken for granted.
    pub fn has_come_up(&self) -> bool {
        let never = self.times.spawned.is_some() && self.times.serving.is_none();
        match self.machine.phase {
            Phase::Running => true,
            Phase::Impaired => !never,
            _ => false,
        }
    }

    /// Whether clients can reach it: every socket, and the readiness that the spec asks for.
    pub fn serves(&self, root: &std::path::Path) -> bool {
        self.sockets.iter().all(Socket::is_ok)
            && self.said_ready(root)
            && outlived(self.live_spec(), self.times.spawned)
    }

    fn said_ready(&self, root: &std::path::Path) -> bool {
        // Once it has served, a marker that was tidied away does not make it unready.
        let served =
            matches!(self.machine.phase, Phase::Running | Phase::Impaired) && self.times.serving.is_some();
        served || said_ready(self.live_spec(), self.notified, root)
    }

    /// Why the service is not green, in words; `None` where it is, and where it was told to stop.
    pub fn health_reason(&self, root: &std::path::Path) -> Option<String> {
        match self.machine.phase {
            Phase::Running => None,
            Phase::Impaired | Phase::Verifying | Phase::Publishing { .. } => {
                self.unreached(root).or_else(|| self.trouble.clone())
            }
            _ => self.trouble.clone(),
        }
    }

    fn unreached(&self, root: &std::path::Path) -> Option<String> {
        unreached(&self.sockets, self.said_ready(root), self.live_spec(), self.notified, root)
    }

    /// Whether an entry of this name in one of its folders is one that it is judged by.
    pub fn looks_at(&self, name: &std::ffi::OsStr, root: &std::path::Path) -> bool {
        let is_own = |s: &Socket| s.own.as_ref().is_some_and(|own| own.path.file_name() == Some(name));
        self.sockets.iter().any(|s| s.place().file_name() == Some(name) || is_own(s))
            || self.live_spec().ready.marker.is_some()
                && self.live_spec().marker_path(root).file_name() == Some(name)
    }

    /// An entry of one of its folders changed. Which sockets have this name.
    pub fn saw(&mut self, name: &std::ffi::OsStr, kind: Change) -> Vec<usize> {
        let mut concerned = Vec::new();
        for (place, socket) in self.sockets.iter_mut().enumerate() {
            if socket.place().file_name() != Some(name) {
                continue;
            }
            match kind {
                Change::MovedIn => socket.moved_in = true,
                Change::Added | Change::Removed => socket.moved_in = false,
                Change::Attributes | Change::Folder => {}
            }
            if matches!(kind, Change::Added | Change::MovedIn) {
                // Whatever was lost has come right; what is missing from now on is another loss. A server that reloads
                // again at once may have been without its file at each single look.
                (socket.missed, socket.care.lost) = (None, None);
            }
            concerned.push(place);
        }
        concerned
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
