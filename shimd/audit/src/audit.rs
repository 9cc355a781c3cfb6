//! The audit: looks and dumps until every path has a verdict that can be stood by.
//!
//! One round looks at all open paths, then takes one dump, then judges. In this order, since then a listener in
//! the dump was alive *after* the look: what is at the path and who listens held at one moment. Findings that
//! rest on presence settle at once: `ok`, a live listener without its dentry, a stranger at the path. A finding
//! that rests on absence is a suspicion, for a dump misses live sockets while others come and go, and lists
//! neither datagram sockets with a peer (unless asked) nor other network namespaces. So the suspects, and only
//! they, get further rounds that ask for all of these. A suspicion is a verdict once two such rounds agree,
//! nothing having come or gone on the machine between them; on a machine that never rests, once all rounds have
//! been used. A listener that was known is also asked for by itself, which is proof; and where a witness proves that the
//! file at the path was its, or nothing lies there, all that is left to look for is who has lost this path: for that, two
//! quick dumps that agree will do.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::access::Peers;
use crate::bridge::Bridge;
use crate::cause::{Cause, cause, guess};
use crate::dentry::{Dentry, DentryKind, Mounts};
use crate::diag::Diag;
use crate::error::AuditError;
use crate::inquiry::{Case, Evidence, Inquiry, Sight};
use crate::listener::{Listener, ListenerId, ListenerState, SocketKind};
use crate::locate::locate;
use crate::netns::Abroad;
use crate::procfs::{self, Census, Process, foremost};
use crate::queue::Waiting;
use crate::reach::is_writable;
use crate::reason;
use crate::snapshot::Snapshot;
use crate::turns::Turns;
use crate::verdict::{At, Stage, There, Verdict, decide};
use crate::whereabouts::same_view;
use crate::witness::Witness;

/// How many rounds suspects get on a machine where sockets never stop to come and go.
const ROUNDS: u32 = 7;

/// Whose listener a path is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Any process's: the path is judged for itself.
    Anyone,
    /// That of these processes: the whole instance, the one to name first. A listener that only others hold is foreign.
    Pids(Vec<i32>),
    /// The known one is the instance's, which is not checked: no look into `/proc` while it lives and is where
    /// it should be. Of any other listener it is not known whose it is, so a verdict that is neither `ok` nor
    /// `dangling` is a suspicion: ask again with the instance's processes.
    Trusted,
}

/// What a path should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The path; `@name` for an abstract socket.
    pub path: PathBuf,
    /// The declared type; `None` if any will do.
    pub kind: Option<SocketKind>,
    /// The listener that was last seen in order there.
    pub known: Option<ListenerId>,
    /// Whose it is to be.
    pub owner: Owner,
    /// A hold on the dentry that was last in order there: it tells what became of it.
    pub witness: Option<Arc<Witness>>,
    /// Who is to be able to connect.
    pub peers: Peers,
}

impl Expect {
    /// Any listener of any type, for the peers of its owner.
    pub fn path(path: impl Into<PathBuf>) -> Expect {
        Expect {
            path: path.into(),
            kind: None,
            known: None,
            owner: Owner::Anyone,
            witness: None,
            peers: Peers::Owner,
        }
    }
}

/// A listener and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The listener.
    pub listener: Listener,
    /// The process to name: a parent rather than the workers that inherited it.
    pub holder: Option<Process>,
    /// Every process that holds it, as far as this user may know.
    pub pids: Vec<i32>,
}

/// What an audit found at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The path as it was asked for.
    pub path: PathBuf,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in words; empty for a plain `ok`.
    pub reason: Cow<'static, str>,
    /// What became of the live listener's dentry, where that is known; `reason` begins with it.
    pub cause: Option<Cause>,
    /// The service's own listener, wherever it is bound; if none lives, the one at the path.
    pub listener: Option<Listener>,
    /// Who holds `listener`. `None` for a trusted one.
    pub holder: Option<Process>,
    /// Listeners outside the service, the one at the path first; then any that was bound to this very path and
    /// lives on without a dentry, whose exit may remove a successor's file. Not looked for where all is `ok`.
    pub others: Vec<Party>,
    /// What lies at the path itself.
    pub dentry: Option<Dentry>,
    /// The socket at the path is bound and does not listen yet: neither `ok` nor ever to be removed.
    pub bound_not_listening: bool,
}

/// Judges paths. Keep one: it remembers the table of mounts and its conversation with the kernel.
#[derive(Debug)]
pub struct Auditor {
    pub(crate) diag: Diag,
    pub(crate) mounts: Mounts,
    turns: Turns,
}

/// A path without a verdict yet, and what the last round thought of it.
struct Open<'a> {
    index: usize,
    expect: &'a Expect,
    before: Option<Box<Evidence>>,
    /// Its listener is proven gone.
    proven: bool,
}

impl Auditor {
    /// An auditor of this process's mounts and network namespace.
    ///
    /// # Errors
    /// [`AuditError::Diag`] where sock_diag is forbidden.
    pub fn new() -> Result<Auditor, AuditError> {
        Ok(Auditor { diag: Diag::open()?, mounts: Mounts::new(), turns: Turns::default() })
    }

    /// A finding for each expectation, in order. Costs one look at each path and one dump; more only for those
    /// that are not in order, and a walk over `/proc` only if there are processes to name.
    pub fn audit(&mut self, expects: &[Expect]) -> Vec<Finding> {
        let mut done: Vec<(usize, Finding)> = Vec::with_capacity(expects.len());
        let mut settled = Vec::new();
        let mut open: Vec<Open> = expects
            .iter()
            .enumerate()
            .map(|(index, expect)| Open { index, expect, before: None, proven: false })
            .collect();
        let (mut abroad, mut census, mut last) = (None, None, None);
        for round in 0..=ROUNDS {
            if open.is_empty() {
                break;
            }
            self.mounts.refresh();
            let sights: Vec<_> = open.iter().map(|path| self.sight(&path.expect.path)).collect();
            let again = round > 0;
            let deep = again && !open.iter().all(|path| path.proven);
            let (snapshot, fingerprint) = match self.dump(deep, &mut abroad) {
                Ok(dump) => dump,
                Err(error) => {
                    settled
                        .extend(open.iter().map(|path| (path.index, path.expect, Case::unanswered(&error))));
                    break;
                }
            };
            let calm = again && last == Some((deep, fingerprint));
            last = Some((deep, fingerprint));
            let mut inquiry = Inquiry::new(self, &snapshot, abroad.as_mut(), expects);
            let mut suspects = Vec::new();
            for (path, sight) in open.into_iter().zip(sights) {
                if let Some(finding) = plainly_ok(path.expect, &sight, &mut inquiry, path.index) {
                    done.push((path.index, finding));
                    continue;
                }
                let case = inquiry.judge(path.expect, sight);
                let evidence = case.evidence();
                // Of a proven one nothing is at stake but a name in the list of others.
                let agreed = (calm || path.proven) && path.before.as_deref() == Some(&evidence);
                if agreed || round == ROUNDS || case.rests_on_presence() {
                    settled.push((path.index, path.expect, case));
                } else {
                    let proven = inquiry.proves_gone(path.expect, &case);
                    let before = (deep || proven).then(|| Box::new(evidence));
                    suspects.push(Open { before, proven, ..path });
                }
            }
            census = inquiry.into_census();
            open = suspects;
        }
        done.extend(findings(settled, census, &mut self.mounts));
        done.sort_by_key(|(index, _)| *index);
        self.turns.pass_on(expects.len());
        done.into_iter().map(|(_, finding)| finding).inspect(|finding| self.turns.note(finding)).collect()
    }

    /// One finding by the shortest way: the known listener is asked for by itself, and no dump is taken unless
    /// that leaves something open.
    pub fn confirm(&mut self, expect: &Expect) -> Finding {
        if let Some(known) = expect.known {
            self.mounts.refresh();
            let sight = self.sight(&expect.path);
            if let Ok(Some(listener)) = self.diag.query(known.inode, known.cookie) {
                let snapshot = Snapshot::new(vec![listener]);
                let mut inquiry = Inquiry::new(self, &snapshot, None, std::slice::from_ref(expect));
                let case = inquiry.judge(expect, sight);
                // Another socket at the path would be unknown to this snapshot.
                let whole = case.facts.at != At::Socket || case.there.is_some();
                if whole && case.rests_on_presence() {
                    let census = inquiry.into_census();
                    if let Some((_, finding)) =
                        findings(vec![(0, expect, case)], census, &mut self.mounts).pop()
                    {
                        self.turns.note(&finding);
                        return finding;
                    }
                }
            }
        }
        let found = self.audit(std::slice::from_ref(expect)).pop();
        found.unwrap_or_else(|| {
            let trouble = AuditError::Malformed("an audit without a finding");
            finding(expect, Case::unanswered(&trouble), &mut Names::new(Census::default()), &mut self.mounts)
        })
    }

    /// Lets a witness say whose file it holds: that of `listener`, if that one lives and its file is this one. Ask while it
    /// is in order there; see [`Witness`].
    pub fn vouch(&mut self, witness: &Witness, listener: ListenerId) {
        if witness.listener().is_none()
            && let Ok(Some(found)) = self.diag.query(listener.inode, listener.cookie)
        {
            witness.is_of(&found);
        }
    }

    /// Whether the kernel has this listener, in this network namespace.
    ///
    /// # Errors
    /// As [`Diag::query`].
    pub fn lives(&mut self, listener: ListenerId) -> Result<bool, AuditError> {
        Ok(self.diag.query(listener.inode, listener.cookie)?.is_some())
    }

    /// The queue of a listener of this network namespace, as [`Diag::waiting`].
    ///
    /// # Errors
    /// As [`Diag::waiting`].
    pub fn waiting(&mut self, listener: ListenerId) -> Result<Option<Waiting>, AuditError> {
        self.diag.waiting(listener.inode, listener.cookie)
    }

    /// The listeners of this network namespace that connections wait for, by one dump.
    ///
    /// # Errors
    /// [`AuditError`] if the kernel lists no sockets.
    pub fn waited_for(&mut self) -> Result<Vec<ListenerId>, AuditError> {
        self.diag.waited_for()
    }

    pub(crate) fn sight(&mut self, path: &Path) -> Sight {
        let seen =
            |at, dentry: Option<Dentry>, target: Option<Dentry>| Sight { at, dentry, target, trouble: None };
        let hidden =
            |dentry, trouble| Sight { trouble: Some(Box::new(trouble)), ..seen(At::Hidden, dentry, None) };
        if abstract_name(path).is_some() {
            return seen(At::Nothing, None, None);
        }
        let dentry = match self.mounts.look(path) {
            Ok(Some(dentry)) => dentry,
            Ok(None) => return seen(At::Nothing, None, None),
            Err(trouble) => return hidden(None, trouble),
        };
        match dentry.kind {
            DentryKind::Socket => seen(At::Socket, Some(dentry), Some(dentry)),
            DentryKind::Symlink => match self.mounts.follow(path) {
                Ok(Some(target)) if target.kind == DentryKind::Socket => {
                    seen(At::Link, Some(dentry), Some(target))
                }
                Ok(_) => seen(At::Other, Some(dentry), None),
                Err(trouble) => hidden(Some(dentry), trouble),
            },
            _ => seen(At::Other, Some(dentry), None),
        }
    }

    /// A dump and its fingerprint; `deep`, one of everything and of everywhere.
    pub(crate) fn dump(
        &mut self,
        deep: bool,
        abroad: &mut Option<Abroad>,
    ) -> Result<(Snapshot, u64), AuditError> {
        if !deep {
            let dump = self.diag.dump_quick()?;
            return Ok((Snapshot::new(dump.listeners), dump.fingerprint));
        }
        let mut dump = self.diag.dump_deep()?;
        abroad.get_or_insert_with(Abroad::find).dump_into(&mut dump.listeners);
        Ok((Snapshot::new(dump.listeners), dump.fingerprint))
    }
}

/// `@name` names an abstract socket.
pub(crate) fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"@")
}

/// Who holds what, asked for once for all findings.
pub(crate) struct Names {
    census: Census,
    described: HashMap<i32, Option<Process>>,
}

impl Names {
    pub(crate) fn new(census: Census) -> Names {
        Names { census, described: HashMap::new() }
    }

    pub(crate) fn holders(&self, socket_inode: u64) -> &[i32] {
        self.census.holders(socket_inode)
    }

    fn describe(&mut self, pid: Option<i32>) -> Option<Process> {
        let pid = pid?;
        self.described.entry(pid).or_insert_with(|| procfs::describe(pid)).clone()
    }

    fn party(&mut self, listener: Listener) -> Party {
        let pids = self.holders(listener.inode).to_vec();
        let holder = self.describe(foremost(&pids));
        Party { listener, holder, pids }
    }
}

/// The short way for most paths of most audits: the trusted listener is at its path, has room, and its owner's peers
/// may connect.
pub(crate) fn plainly_ok(
    expect: &Expect,
    sight: &Sight,
    inquiry: &mut Inquiry,
    index: usize,
) -> Option<Finding> {
    let known = expect.known.filter(|_| expect.owner == Owner::Trusted && sight.at == At::Socket)?;
    let target = sight.target.filter(|_| expect.peers == Peers::Owner)?;
    let fits = |found: &&Listener| {
        found.id() == known
            && found.state == ListenerState::Listening
            && expect.kind.is_none_or(|kind| kind == found.kind)
            && !found.is_full()
    };
    let listener = inquiry.snapshot.at(target.vfs()).find(fits)?;
    let Auditor { mounts, turns, .. } = &mut *inquiry.auditor;
    let closely = turns.has(index, inquiry.expects.len()) || turns.was_denied(&expect.path);
    let open =
        is_writable(&target) && (!closely || inquiry.reach.is_plainly_open(mounts, &expect.path, &target));
    if !open {
        return None;
    }
    Some(Finding {
        path: expect.path.clone(),
        verdict: Verdict::Ok,
        reason: Cow::Borrowed(""),
        cause: None,
        listener: Some(listener.clone()),
        holder: None,
        others: Vec::new(),
        dentry: sight.dentry,
        bound_not_listening: false,
    })
}

pub(crate) fn findings(
    settled: Vec<(usize, &Expect, Case)>,
    census: Option<Census>,
    mounts: &mut Mounts,
) -> Vec<(usize, Finding)> {
    let census = census.unwrap_or_else(|| {
        let wanted: HashSet<u64> = settled
            .iter()
            .flat_map(|(_, expect, case)| unnamed(expect, case))
            .map(|found| found.inode)
            .collect();
        if wanted.is_empty() { Census::default() } else { Census::take(Some(&wanted)).unwrap_or_default() }
    });
    let mut names = Names::new(census);
    settled
        .into_iter()
        .map(|(index, expect, case)| (index, finding(expect, case, &mut names, mounts)))
        .collect()
}

/// The listeners whose processes a finding has to name and no descriptor has told yet.
fn unnamed<'a>(expect: &Expect, case: &'a Case) -> impl Iterator<Item = &'a Listener> {
    let own = case.own().filter(|_| case.pid.is_none() && expect.owner == Owner::Anyone);
    own.into_iter().chain(case.stranger()).chain(&case.outsiders)
}

/// What became of the dentry of a listener that is away: by the witness kept since it was in order, else by the
/// listener's own file, where this user may ask for that.
fn fate(
    expect: &Expect,
    case: &Case,
    verdict: Verdict,
    holder: Option<&Process>,
    mounts: &mut Mounts,
) -> Option<Cause> {
    let lost = matches!(verdict, Verdict::Dangling | Verdict::Replaced);
    let away = case.away.as_ref().filter(|_| lost && abstract_name(&expect.path).is_none())?;
    if let Some(witness) = expect.witness.as_ref().filter(|_| expect.known == Some(away.id())) {
        return cause(&expect.path, witness, mounts);
    }
    let kin = holder.map(|holder| holder.pid).filter(|pid| same_view(*pid) == Some(true));
    match kin.and_then(|pid| locate(pid, away.inode)) {
        Some(witness) => cause(&expect.path, &witness, mounts),
        // What lies in its place says more than a guess.
        None if verdict == Verdict::Replaced => None,
        None => match guess(&expect.path, away.vfs?, mounts) {
            Some(Cause::Unmounted) if holder.is_some_and(|holder| same_view(holder.pid) == Some(false)) => {
                Some(Cause::OwnMount)
            }
            guessed => guessed,
        },
    }
}

/// The bridge that listens at the path, if what listens there is one.
fn bridge_there(case: &Case, verdict: Verdict, holder: Option<&Process>, others: &[Party]) -> Option<Bridge> {
    let at_path = match case.facts.there {
        There::Own(Stage::Listening) if verdict == Verdict::Ok => holder,
        There::Others(Stage::Listening) => others.first().and_then(|party| party.holder.as_ref()),
        _ => None,
    };
    at_path.and_then(|process| Bridge::of(process.pid))
}

pub(crate) fn finding(expect: &Expect, case: Case, names: &mut Names, mounts: &mut Mounts) -> Finding {
    let mut verdict = decide(&case.facts);
    let mut others: Vec<Party> = Vec::new();
    others.extend(case.stranger().map(|stranger| names.party(stranger.clone())));
    others.extend(case.outsiders.iter().map(|outsider| names.party(outsider.clone())));
    let (listener, holder) = match case.own() {
        Some(own) => {
            let seen = case.pid.or_else(|| foremost(names.holders(own.inode)));
            let holder = if expect.owner == Owner::Trusted { None } else { names.describe(seen) };
            (Some(own.clone()), holder)
        }
        None => match others.first() {
            Some(other) if case.there.is_some() => (Some(other.listener.clone()), other.holder.clone()),
            _ => (None, None),
        },
    };
    let bridge = bridge_there(&case, verdict, holder.as_ref(), &others);
    if bridge.is_some() && verdict == Verdict::Ok {
        // Where any listener will do: clients get through, and the file is still not the service's own.
        verdict = Verdict::Replaced;
    }
    let (cause, reason) = match &bridge {
        Some(bridge) => (None, bridge.words().into()),
        None => {
            let cause = fate(expect, &case, verdict, holder.as_ref(), mounts);
            let reason = reason::reason(expect, &case, verdict, cause.as_ref(), holder.as_ref(), &others);
            (cause, reason)
        }
    };
    Finding {
        path: expect.path.clone(),
        verdict,
        reason,
        cause,
        listener,
        holder,
        others,
        dentry: case.dentry,
        bound_not_listening: matches!(case.facts.there, There::Own(Stage::Soon) | There::Others(Stage::Soon)),
    }
}
