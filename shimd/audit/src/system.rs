//! Every named listener of the machine that clients cannot reach by its name, or that takes no connections there.
//!
//! Each listener is judged where its own process sees it: in that process's root, mounts and folder. What cannot
//! be judged so is not guessed at but told of as a blind spot. Of a listener that is where it should be, its queue
//! and the way there are judged as for any path that no service declares: for the peers of its owner.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::access::{Peers, Refusal};
use crate::audit::{Auditor, Expect, Finding, Names, finding};
use crate::dentry::{Dentry, DentryKind};
use crate::error::AuditError;
use crate::inquiry::{Case, Sight};
use crate::listener::{Listener, ListenerState, Name};
use crate::locate::locate;
use crate::netns::Abroad;
use crate::procfs::{Census, all_stopped, foremost};
use crate::reach::Reach;
use crate::snapshot::Snapshot;
use crate::verdict::{Access, At, Away, Stage, There, Verdict, decide};
use crate::whereabouts::{Place, Whereabouts, is_private, same_view, whereabouts};
use crate::witness::Account;

/// What [`Auditor::system`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemReport {
    /// The listeners that are not in order, `dangling`, `replaced`, `wedged` or `denied`, by path.
    pub findings: Vec<Finding>,
    /// What could not be seen, in words.
    pub blind: Vec<String>,
}

impl Auditor {
    /// Looks at every named listener that can be found, other network namespaces included where this user may
    /// enter them. Walks `/proc` only if there are suspects.
    ///
    /// # Errors
    /// [`AuditError`] if the kernel lists no sockets or `/proc` cannot be read.
    pub fn system(&mut self) -> Result<SystemReport, AuditError> {
        self.mounts.refresh();
        let mut abroad = Abroad::find();
        let mut listeners = self.diag.dump()?;
        abroad.dump_into(&mut listeners);
        let snapshot = Snapshot::new(listeners);
        let mut reach = Reach::default();
        let mut suspects: Vec<_> =
            snapshot.listeners().iter().filter_map(|found| self.suspect(found, &mut reach)).collect();
        suspects.sort_by_key(|(listener, _)| listener.inode);
        suspects.dedup_by_key(|(listener, _)| listener.inode);
        let wanted: HashSet<u64> = suspects.iter().map(|(listener, _)| listener.inode).collect();
        let census = if wanted.is_empty() { Census::default() } else { Census::take(None)? };
        let mut names = Names::new(census);
        let mut report = SystemReport { findings: Vec::new(), blind: Vec::new() };
        for (listener, suspicion) in suspects {
            let judged = match suspicion {
                Suspicion::Lost => self.judge_where_it_is(listener, &names, &mut reach),
                Suspicion::Unwell(target) => Judged::Reachable { path: None, target },
            };
            if matches!(judged, Judged::Reachable { target: None, .. }) && !listener.is_waited_for() {
                continue;
            }
            let alive = self.diag.query(listener.inode, listener.cookie).ok().flatten();
            let Some(now) = alive.or_else(|| abroad.query(listener.inode, listener.cookie)) else { continue };
            let holder = foremost(names.holders(listener.inode));
            let (path, case, strange) = match judged {
                Judged::Reachable { path, target } => {
                    let path = path.or_else(|| path_of(listener, holder)).unwrap_or_default();
                    let Some(case) = self.unwell(now, &path, target, &names, &mut reach) else {
                        if listener.is_waited_for() && holder.is_none() {
                            let why = "connections wait, and the process that listens cannot be seen";
                            report.blind.push(format!("{}: {why}", path.display()));
                        }
                        continue;
                    };
                    (path, case, holder.and_then(same_view) == Some(false))
                }
                Judged::Lost { path, dentry, strange } => (path, lost(listener, dentry, &snapshot), strange),
                Judged::Shut(refusal) => {
                    (path_of(listener, holder).unwrap_or_default(), shut(listener, refusal), false)
                }
                Judged::Blind(why) => {
                    let name = listener.path().unwrap_or(Path::new("")).display();
                    report.blind.push(format!("{name}: {why}"));
                    continue;
                }
            };
            let mut found = finding(&Expect::path(path), case, &mut names, &mut self.mounts);
            if strange && let Some(holder) = &found.holder {
                found.reason = format!("{} (in the file system that {holder} sees)", found.reason).into();
            }
            report.findings.push(found);
        }
        report.findings.sort_by(|one, other| one.path.cmp(&other.path));
        report.blind.sort();
        report.blind.extend(abroad.blind());
        Ok(report)
    }

    /// What a listener may be found to be by a closer look; `None` if it is in order at first sight.
    fn suspect<'a>(
        &mut self,
        listener: &'a Listener,
        reach: &mut Reach,
    ) -> Option<(&'a Listener, Suspicion)> {
        let suspicion = |unwell: bool, target| unwell.then_some((listener, Suspicion::Unwell(target)));
        if listener.state != ListenerState::Listening {
            return None;
        }
        let (Some(name), Some(vfs)) = (listener.path(), listener.vfs) else {
            return suspicion(listener.is_waited_for(), None); // abstract: no name to lose
        };
        let found = if name.is_absolute() { self.mounts.look(name).ok().flatten() } else { None };
        match found.filter(|found| found.vfs() == vfs) {
            Some(target) => {
                let open = reach.is_plainly_open(&mut self.mounts, name, &target);
                suspicion(!open || listener.is_waited_for(), Some(target))
            }
            None => Some((listener, Suspicion::Lost)),
        }
    }

    /// The case of a listener that is reachable and that no client gets an answer from. `listener` is as it is now;
    /// `target` is known where its name is this process's too.
    fn unwell(
        &mut self,
        listener: Listener,
        path: &Path,
        target: Option<Dentry>,
        names: &Names,
        reach: &mut Reach,
    ) -> Option<Case> {
        let holders = names.holders(listener.inode);
        let mut case = Case::new(Sight { at: At::Socket, dentry: target, target, trouble: None });
        case.pid = foremost(holders);
        case.facts.there = There::Own(Stage::Listening);
        case.facts.queue = listener.queue_state(|| all_stopped(holders));
        case.refusal =
            target.and_then(|target| reach.refusal(&mut self.mounts, path, target, &Peers::Owner, case.pid));
        case.facts.access = if case.refusal.is_some() { Access::Closed } else { Access::Open };
        case.there = Some(listener);
        (decide(&case.facts) != Verdict::Ok).then_some(case)
    }

    fn judge_where_it_is(&mut self, listener: &Listener, names: &Names, reach: &mut Reach) -> Judged {
        let reachable = |path| Judged::Reachable { path, target: None };
        let Some(name) = listener.path() else { return reachable(None) };
        let Some(holder) = foremost(names.holders(listener.inode)) else {
            return Judged::Blind("the process that listens cannot be seen");
        };
        let Some(same_view) = same_view(holder) else {
            return Judged::Blind("the file system that its process sees cannot be known");
        };
        let dentry = match whereabouts(listener, Some(holder), &mut self.mounts) {
            Whereabouts::Reachable => return reachable(None),
            Whereabouts::Unknown if same_view && listener.uid == Some(geteuid().as_raw()) => {
                let refusal = path_of(listener, Some(holder))
                    .and_then(|path| reach.own_refusal(&mut self.mounts, &path));
                return refusal.map_or(Judged::Blind("its folder cannot be searched"), Judged::Shut);
            }
            Whereabouts::Unknown => return Judged::Blind("its folder cannot be searched"),
            Whereabouts::Lost(dentry) => dentry,
        };
        match locate(holder, listener.inode).and_then(|witness| witness.account()) {
            Some(Account::At(path)) => reachable(Some(path)),
            Some(Account::Removed(path)) if same_view => {
                let dentry = self.mounts.look(&path).ok().flatten();
                if dentry.is_some_and(|dentry| Some(dentry.vfs()) == listener.vfs) {
                    return Judged::Reachable { path: Some(path), target: dentry }; // linked back
                }
                Judged::Lost { path, dentry, strange: false }
            }
            Some(Account::Removed(path)) => Judged::Lost { path, dentry, strange: true },
            None if is_private(name) => Judged::Blind("bound by a name that only its process understands"),
            None if !same_view => Judged::Blind("its process sees another file system"),
            None => Judged::Lost { path: name.to_owned(), dentry, strange: false },
        }
    }
}

/// Why a listener gets a closer look.
enum Suspicion {
    /// It was not found at its name.
    Lost,
    /// It was, or has none to lose; connections wait, or the mode bits shut somebody out.
    Unwell(Option<Dentry>),
}

/// What can be said of one suspect.
enum Judged {
    Reachable { path: Option<PathBuf>, target: Option<Dentry> },
    Lost { path: PathBuf, dentry: Option<Dentry>, strange: bool },
    Shut(Refusal),
    Blind(&'static str),
}

/// The path of a listener by its name.
fn path_of(listener: &Listener, holder: Option<i32>) -> Option<PathBuf> {
    match listener.name.as_ref()? {
        Name::Abstract(name) => Some(OsStr::from_bytes(&[b"@", name.as_ref()].concat()).into()),
        Name::Path(name) if !is_private(name) => Some(name.to_path_buf()),
        Name::Path(name) => match Place::of_name(name, holder) {
            Some(place) => Some(place.folder.join(place.base)),
            None => Some(name.to_path_buf()),
        },
    }
}

/// The case of a listener of this user's, in a folder that this user may not search.
fn shut(listener: &Listener, refusal: Refusal) -> Case {
    let mut case = Case::new(Sight { at: At::Shut, dentry: None, target: None, trouble: None });
    (case.away, case.refusal) = (Some(listener.clone()), Some(refusal));
    case.facts.away = Away::Unclear;
    case
}

/// The case of a listener that is away from its path.
fn lost(listener: &Listener, dentry: Option<Dentry>, snapshot: &Snapshot) -> Case {
    let at = match dentry.map(|dentry| dentry.kind) {
        None => At::Nothing,
        Some(DentryKind::Socket) => At::Socket,
        Some(_) => At::Other,
    };
    let mut case = Case::new(Sight { at, dentry, target: None, trouble: None });
    let taker = dentry.and_then(|dentry| snapshot.at(dentry.vfs()).next()).cloned();
    case.facts.there = match taker.as_ref().map(|taker| taker.state) {
        Some(ListenerState::Listening) => There::Others(Stage::Listening),
        Some(ListenerState::Bound) => There::Others(Stage::Soon),
        Some(ListenerState::Shut) | None => There::Nobody,
    };
    case.there = taker.filter(|_| case.facts.there != There::Nobody);
    case.facts.away = Away::Yes;
    case.away = Some(listener.clone());
    case
}
