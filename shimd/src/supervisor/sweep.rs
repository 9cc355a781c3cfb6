//! What comes before a spawn: folders made, holders ended, stale dentries and the ready marker removed.
//!
//! ```text
//! at a declared path                         without --clean                     with --clean
//! a socket, its listener is held by          ended                               ended
//!   a leftover of this service
//! a socket, a process outside listens        refused, the pid named              ended
//!   … on a path that kill_other names        ended                               ended
//! nothing, a listener bound this name once   left alone                          ended
//!   … on a path that kill_other names        ended                               ended
//! a socket that nobody listens on            removed                             removed
//! a file, a folder, a link, …                refused: never removed              refused: never removed
//! nothing                                    nothing                             nothing
//! ```
//! Process 1 and `shimd` itself are never ended. A name counts only where its holder sees the same
//! files as we do: a container's `/run/x.sock` is not ours.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shimd_api::spec::Spec;
use socket_audit::{Auditor, DentryKind, Listener, ListenerId, procfs};

use super::ending::end_processes;
use super::service::CleanReport;
use crate::sys::clean::{self, CleanError, Cleaned};
use crate::sys::folder::{self, FolderError};
use crate::sys::tree;
use crate::sys::users;

/// What a sweep is to do.
pub struct Sweep {
    sockets: Vec<Declared>,
    kill_other: Vec<PathBuf>,
    /// Kernel sockets that this service's own instances have listened on.
    known: Vec<ListenerId>,
    marker: PathBuf,
    owner: Option<(u32, u32)>,
    force: bool,
    signal: i32,
    timeout: Duration,
    mark: String,
}

struct Declared {
    field: String,
    path: PathBuf,
    optional: bool,
}

/// Why the way is not free.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Somebody else serves the path.
    #[error("{field}: foreign: {who} listens on {}; stop it, or end it with proc restart --clean (or kill_other)", path.display())]
    Foreign {
        /// The spec's field.
        field: String,
        /// The path.
        path: PathBuf,
        /// Its process, in words.
        who: String,
    },
    /// A holder is not to be ended, or does not end.
    #[error("{field}: {who} listens on {} and {why}", path.display())]
    Stays {
        /// The spec's field.
        field: String,
        /// The path.
        path: PathBuf,
        /// Its process, in words.
        who: String,
        /// Why it stays, and what to do.
        why: String,
    },
    /// What lies at the path is not a socket, or cannot be removed.
    #[error("{field}: {source}")]
    Dentry {
        /// The spec's field.
        field: String,
        /// Why.
        source: CleanError,
    },
    /// The socket's folder cannot be made.
    #[error("{field}: {source}")]
    Folder {
        /// The spec's field.
        field: String,
        /// Why.
        source: FolderError,
    },
    /// The kernel could not be asked.
    #[error("cannot ask the kernel who listens: {0}")]
    Audit(#[from] socket_audit::AuditError),
    /// The task that swept ended by itself.
    #[error("the clean ended by itself: {0}; this is a bug of shimd")]
    Task(String),
}

impl Sweep {
    /// The sweep that a spec asks for.
    pub fn plan(spec: &Spec, root: &Path, tag: &str, known: Vec<ListenerId>, force: bool) -> Sweep {
        let declared = |(i, s): (usize, &shimd_api::spec::SocketSpec)| Declared {
            field: format!("sockets[{i}] ({})", s.path),
            path: spec.socket_path(root, s),
            optional: s.optional,
        };
        let user = users::resolve(spec.user.as_deref(), spec.group.as_deref()).ok().flatten();
        Sweep {
            sockets: spec.sockets.iter().enumerate().map(declared).collect(),
            kill_other: spec.kill_other_paths(root),
            known,
            marker: spec.marker_path(root),
            owner: user.map(|u| (u.ids.uid, u.ids.gid)),
            force,
            signal: spec.stop.signal,
            timeout: spec.stop.timeout,
            mark: format!("{tag}/{}/", spec.name),
        }
    }

    fn folders(&self) -> impl Iterator<Item = (&Declared, &Path)> {
        self.sockets.iter().filter_map(|s| Some((s, s.path.parent()?))).filter(|(s, _)| s.path.is_absolute())
    }
}

/// Sweeps. The report holds what was done, also where the sweep then failed.
pub fn run(plan: &Sweep) -> (CleanReport, Result<(), SweepError>) {
    let mut report = CleanReport::default();
    let result = sweep(plan, &mut report);
    (report, result)
}

fn sweep(plan: &Sweep, report: &mut CleanReport) -> Result<(), SweepError> {
    for (socket, parent) in plan.folders() {
        folder::ensure_folder(parent, plan.owner, 0o755)
            .map_err(|source| SweepError::Folder { field: socket.field.clone(), source })?;
    }
    let mut auditor = Auditor::new()?;
    end_holders(plan, &mut auditor, report)?;
    for socket in plan.sockets.iter().filter(|s| s.path.is_absolute()) {
        remove_stale(socket, &mut auditor, report)?;
    }
    let marker = clean::remove_marker(&plan.marker)
        .map_err(|source| SweepError::Dentry { field: "ready.marker".into(), source })?;
    if let Cleaned::Removed(_) = marker {
        report.removed.push(plan.marker.display().to_string());
    }
    Ok(())
}

/// Ends whoever is to be ended, until nobody is left; a holder that was forked meanwhile is found by the
/// next round.
fn end_holders(plan: &Sweep, auditor: &mut Auditor, report: &mut CleanReport) -> Result<(), SweepError> {
    for _round in 0..5 {
        let mut victims = Vec::new();
        let listeners = auditor.listeners()?;
        let paths = plan.sockets.iter().map(|s| (s.field.clone(), s.path.as_path(), plan.force));
        let others = plan.kill_other.iter().map(|p| ("kill_other.socket".to_owned(), p.as_path(), true));
        for (field, path, end) in paths.chain(others) {
            for claim in claims(path, &plan.known, &listeners, auditor) {
                judge(plan, &field, path, end, &claim, &mut victims)?;
            }
        }
        victims.sort_unstable();
        victims.dedup();
        if victims.is_empty() {
            return Ok(());
        }
        let ended = end_processes(&victims, plan.signal, plan.timeout);
        report
            .killed
            .extend(ended.iter().filter(|pid| !report.killed.contains(pid)).copied().collect::<Vec<_>>());
    }
    Ok(())
}

/// How a listener is tied to a path.
struct Claim<'a> {
    listener: &'a Listener,
    /// Its inode lies at the path: clients reach it. Otherwise it once bound the name, or was ours.
    at_path: bool,
}

/// By inode, by the sockets that this service was seen to listen on, by name last.
fn claims<'a>(
    path: &Path,
    known: &[ListenerId],
    all: &'a [Listener],
    auditor: &mut Auditor,
) -> Vec<Claim<'a>> {
    let dentry = auditor.look(path).ok().flatten().filter(|d| d.kind == DentryKind::Socket);
    let claim = |listener: &'a Listener| {
        let at_path = dentry.as_ref().is_some_and(|d| listener.is_at(d));
        let ours = known.contains(&listener.id());
        (at_path || ours || listener.is_named(path)).then_some(Claim { listener, at_path })
    };
    all.iter().filter_map(claim).collect()
}

fn judge(
    plan: &Sweep,
    field: &str,
    path: &Path,
    end: bool,
    claim: &Claim<'_>,
    victims: &mut Vec<i32>,
) -> Result<(), SweepError> {
    let inode = claim.listener.inode;
    let holders = procfs::holders(&HashSet::from([inode]))?.holders(inode).to_vec();
    let me = std::process::id() as i32;
    let stays = |who: String, why: &str| SweepError::Stays {
        field: field.to_owned(),
        path: path.to_owned(),
        who,
        why: why.to_owned(),
    };
    if holders.is_empty() && claim.at_path {
        return Err(stays(
            "a process that cannot be seen from here".into(),
            "so cannot be ended: it belongs to another user or another pid namespace; stop it there",
        ));
    }
    for pid in holders {
        let leftover = tree::environ_mark(pid).is_some_and(|m| m.starts_with(&plan.mark));
        if !claim.at_path && (!(end || leftover) || !socket_audit::same_view(pid)) {
            continue;
        }
        let who = procfs::describe(pid).map_or_else(|| format!("pid {pid}"), |p| p.to_string());
        if !(end || leftover) {
            return Err(SweepError::Foreign { field: field.to_owned(), path: path.to_owned(), who });
        }
        if pid == 1 {
            return Err(stays(who, "is never ended: stop the socket unit that holds it"));
        }
        if pid == me {
            return Err(stays(who, "is shimd itself: declare another path"));
        }
        victims.push(pid);
    }
    Ok(())
}

fn remove_stale(
    socket: &Declared,
    auditor: &mut Auditor,
    report: &mut CleanReport,
) -> Result<(), SweepError> {
    let path = &socket.path;
    let dentry = |source| SweepError::Dentry { field: socket.field.clone(), source };
    let auditor = RefCell::new(auditor);
    // Asked by the removal before and after it has moved the socket aside: nobody may have begun to listen.
    let dead = |seen: &clean::Seen| {
        let mut auditor = auditor.borrow_mut();
        let at = auditor.look(&seen.path).ok().flatten();
        let listeners = auditor.listeners();
        matches!((at, listeners), (Some(at), Ok(all)) if !all.iter().any(|l| l.is_at(&at)))
    };
    if let Some(folder) = path.parent() {
        // What a crash in the middle of an earlier removal has left aside.
        let left = clean::sweep_private(folder, &dead).map_err(dentry)?;
        report.removed.extend(left.iter().map(|p| p.display().to_string()));
    }
    match clean::remove_socket(path, &dead) {
        Ok(Cleaned::Removed(_)) => report.removed.push(path.display().to_string()),
        Ok(Cleaned::Nothing) => {}
        Err(_) if socket.optional => {}
        Err(e) => return Err(dentry(e)),
    }
    Ok(())
}
