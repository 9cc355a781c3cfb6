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
use socket_audit::{Auditor, Diag, Expect, ListenerId, Owner, Party, Verdict, procfs};

use super::ending::end_processes;
use super::service::CleanReport;
use crate::sys::clean::{self, CleanError, Cleaned};
use crate::sys::folder::{self, FolderError};
use crate::sys::tree;
use crate::sys::users;

/// Who is ended may have forked meanwhile: so often it is looked again.
const ROUNDS: u32 = 5;

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
            // Who is not root cannot give a folder away; the spawn then says that it cannot become that user.
            owner: user.filter(|_| nix::unistd::geteuid().is_root()).map(|u| (u.ids.uid, u.ids.gid)),
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
    let listed = |path: &PathBuf| plan.kill_other.contains(path);
    let sockets = plan.sockets.iter().map(|s| (s.field.as_str(), &s.path, plan.force || listed(&s.path)));
    let others = plan.kill_other.iter().map(|p| ("kill_other.socket", p, true));
    // Nothing to see, and nobody to be ended unseen: most starts.
    let looked_at = |(_, path, end): &(&str, &PathBuf, bool)| *end || path.symlink_metadata().is_ok();
    let paths: Vec<_> = sockets.chain(others).filter(looked_at).collect();
    if paths.is_empty() {
        return Ok(());
    }
    for _round in 0..ROUNDS {
        let expects: Vec<Expect> = paths
            .iter()
            .map(|(_, path, _)| Expect { owner: Owner::Pids(Vec::new()), ..Expect::path(path.as_path()) })
            .collect();
        let mut victims = Vec::new();
        for ((field, path, end), finding) in paths.iter().zip(auditor.audit(&expects)) {
            for party in &finding.others {
                let at_path = finding.dentry.as_ref().is_some_and(|d| party.listener.vfs == Some(d.vfs()));
                judge(plan, field, path, *end, party, at_path, &mut victims)?;
            }
        }
        victims.extend(known_holders(plan)?);
        victims.sort_unstable();
        victims.dedup();
        if victims.is_empty() {
            return Ok(());
        }
        for pid in end_processes(&victims, plan.signal, plan.timeout) {
            if !report.killed.contains(&pid) {
                report.killed.push(pid);
            }
        }
    }
    Ok(())
}

/// With `--clean`: who holds a kernel socket that an instance of ours has listened on, whatever its name. A
/// descriptor passed on, a child that got away.
fn known_holders(plan: &Sweep) -> Result<Vec<i32>, SweepError> {
    if !plan.force || plan.known.is_empty() {
        return Ok(Vec::new());
    }
    let mut diag = Diag::open()?;
    let mut alive = HashSet::new();
    for id in &plan.known {
        if diag.query(id.inode, id.cookie)?.is_some() {
            alive.insert(id.inode);
        }
    }
    if alive.is_empty() {
        return Ok(Vec::new());
    }
    let census = procfs::holders(&alive)?;
    let pids = alive.iter().flat_map(|inode| census.holders(*inode)).copied();
    Ok(pids.filter(|pid| !is_untouchable(*pid)).collect())
}

fn is_untouchable(pid: i32) -> bool {
    pid == 1 || pid == std::process::id() as i32
}

fn judge(
    plan: &Sweep,
    field: &str,
    path: &Path,
    end: bool,
    party: &Party,
    at_path: bool,
    victims: &mut Vec<i32>,
) -> Result<(), SweepError> {
    let who = || party.holder.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
    let stays = |why: &str| SweepError::Stays {
        field: field.to_owned(),
        path: path.to_owned(),
        who: who(),
        why: why.to_owned(),
    };
    if party.pids.is_empty() && at_path {
        return Err(stays(
            "cannot be seen from here, so cannot be ended: it is another user's, or in another pid namespace; stop it there",
        ));
    }
    for &pid in &party.pids {
        let leftover = tree::environ_mark(pid).is_some_and(|m| m.starts_with(&plan.mark));
        if !(end || leftover) {
            if at_path {
                return Err(SweepError::Foreign {
                    field: field.to_owned(),
                    path: path.to_owned(),
                    who: who(),
                });
            }
            continue;
        }
        if is_untouchable(pid) {
            return Err(stays(match pid {
                1 => "is never ended: stop the socket unit that holds it",
                _ => "is shimd itself: declare another path",
            }));
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
        let expect = Expect { owner: Owner::Pids(Vec::new()), ..Expect::path(seen.path.as_path()) };
        auditor.borrow_mut().confirm(&expect).verdict == Verdict::Stale
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
