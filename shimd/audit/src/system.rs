//! Every named listener of the machine that clients cannot reach by its name.
//!
//! Each listener is judged where its own process sees it: in that process's root, mounts and folder. What cannot
//! be judged so is not guessed at but told of as a blind spot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::audit::{Auditor, Expect, Finding, Names, finding};
use crate::dentry::{Dentry, DentryKind};
use crate::diag::Diag;
use crate::error::AuditError;
use crate::inquiry::{Case, Sight};
use crate::listener::{Listener, ListenerState};
use crate::locate::{Located, locate};
use crate::netns::Abroad;
use crate::procfs::{Census, foremost};
use crate::snapshot::Snapshot;
use crate::verdict::{At, Away, Stage, There};
use crate::whereabouts::{Whereabouts, is_private, same_view, whereabouts};

/// What [`Auditor::system`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemReport {
    /// The listeners that are not in order, `dangling` or `replaced`, by path.
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
        let mut suspects: Vec<&Listener> =
            snapshot.listeners().iter().filter(|listener| !self.is_plainly_reachable(listener)).collect();
        suspects.sort_by_key(|listener| listener.inode);
        suspects.dedup_by_key(|listener| listener.inode);
        let wanted: HashSet<u64> = suspects.iter().map(|listener| listener.inode).collect();
        let census = if wanted.is_empty() { Census::default() } else { Census::take(None)? };
        let mut names = Names::new(census);
        let mut report = SystemReport { findings: Vec::new(), blind: Vec::new() };
        for listener in suspects {
            let judged = self.judge_where_it_is(listener, &names);
            let alive = |diag: &mut Diag| diag.query(listener.inode, listener.cookie).ok().flatten();
            if judged == Judged::Reachable
                || (alive(&mut self.diag).is_none()
                    && abroad.query(listener.inode, listener.cookie).is_none())
            {
                continue;
            }
            match judged {
                Judged::Reachable => {}
                Judged::Lost { path, dentry, strange } => {
                    let case = lost(listener, dentry, &snapshot);
                    let mut found = finding(&Expect::path(path), case, &mut names);
                    if strange && let Some(holder) = &found.holder {
                        found.reason =
                            format!("{} (in the file system that {holder} sees)", found.reason).into();
                    }
                    report.findings.push(found);
                }
                Judged::Blind(why) => {
                    let name = listener.path().unwrap_or(Path::new("")).display();
                    report.blind.push(format!("{name}: {why}"));
                }
            }
        }
        report.findings.sort_by(|one, other| one.path.cmp(&other.path));
        report.blind.sort();
        report.blind.extend(abroad.blind());
        Ok(report)
    }

    /// Whether a listener has no name to lose, or is found at it at first sight.
    fn is_plainly_reachable(&mut self, listener: &Listener) -> bool {
        let (Some(name), Some(vfs)) = (listener.path(), listener.vfs) else { return true };
        listener.state != ListenerState::Listening
            || (name.is_absolute()
                && self.mounts.look(name).is_ok_and(|found| found.is_some_and(|found| found.vfs() == vfs)))
    }

    fn judge_where_it_is(&mut self, listener: &Listener, names: &Names) -> Judged {
        let Some(name) = listener.path() else { return Judged::Reachable };
        let Some(holder) = foremost(names.holders(listener.inode)) else {
            return Judged::Blind("the process that listens cannot be seen");
        };
        let Some(same_view) = same_view(holder) else {
            return Judged::Blind("the file system that its process sees cannot be known");
        };
        let dentry = match whereabouts(listener, Some(holder), &mut self.mounts) {
            Whereabouts::Reachable => return Judged::Reachable,
            Whereabouts::Unknown => return Judged::Blind("its folder cannot be searched"),
            Whereabouts::Lost(dentry) => dentry,
        };
        match locate(holder, listener.inode) {
            Some(Located::At(_)) => Judged::Reachable,
            Some(Located::Removed(path)) if same_view => {
                let dentry = self.mounts.look(&path).ok().flatten();
                if dentry.is_some_and(|dentry| Some(dentry.vfs()) == listener.vfs) {
                    return Judged::Reachable; // linked back
                }
                Judged::Lost { path, dentry, strange: false }
            }
            Some(Located::Removed(path)) => Judged::Lost { path, dentry, strange: true },
            None if is_private(name) => Judged::Blind("bound by a name that only its process understands"),
            None if !same_view => Judged::Blind("its process sees another file system"),
            None => Judged::Lost { path: name.to_owned(), dentry, strange: false },
        }
    }
}

/// What can be said of one suspect.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Reachable,
    Lost { path: PathBuf, dentry: Option<Dentry>, strange: bool },
    Blind(&'static str),
}

/// The case of a listener that is away from its path.
fn lost(listener: &Listener, dentry: Option<Dentry>, snapshot: &Snapshot) -> Case {
    let at = match dentry.map(|dentry| dentry.kind) {
        None => At::Nothing,
        Some(DentryKind::Socket) => At::Socket,
        Some(_) => At::Other,
    };
    let mut case = Case::new(Sight { at, dentry, vfs: None, ambiguous: false, trouble: None });
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
