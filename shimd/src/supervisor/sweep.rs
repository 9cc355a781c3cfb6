//! What comes before a spawn: folders made, holders ended, stale dentries and the ready marker removed.
//!
//! ```text
//! at a declared path                         without --clean                     with --clean
//! a socket, its listener is held by          ended                               ended
//!   a leftover of this service
//! a socket, a bridge of ours listens         ended                               ended
//! a socket, a process outside listens        refused, the pid named              ended
//!   … on a path that kill_other names        ended                               ended
//! nothing, a listener bound this name once   left alone                          ended
//!   … on a path that kill_other names        ended                               ended
//! a socket that nobody listens on            removed                             removed
//! a link to where somebody listens           refused, the pid named              refused: never removed, nobody ended
//! a file, a folder, a link, …                refused: never removed              refused: never removed
//! nothing                                    nothing                             nothing
//! ```
//! What is refused is so before anything is removed or anybody ended, for all sockets of a service. An abstract name
//! (`@name`) has no dentry: who is bound to it is at it.
//!
//! Process 1 and `shimd` itself are never ended. A name counts only where its holder sees the same
//! files as we do: a container's `/run/x.sock` is not ours.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shimd_api::place::generation_of;
use shimd_api::spec::Spec;
use socket_audit::bridge::Bridge;
use socket_audit::{
    Auditor, DentryKind, Expect, Finding, ListenerId, Owner, Party, SocketKind, Witness, procfs,
};

use super::activation;
use super::dead::Dead;
use super::ending;
use super::pins::{is_proven_free, nobody_listens};
use super::service::CleanReport;
use crate::bridge;
use crate::sys::clean::{self, Cleaned};
use crate::sys::folder::{self};
use crate::sys::tree;
use crate::sys::users;

pub use error::SweepError;

mod error;

/// Who is ended may have forked meanwhile: so often it is looked again.
const ROUNDS: u32 = 5;

/// What a sweep is to do.
pub struct Sweep {
    sockets: Vec<Declared>,
    kill_other: Vec<PathBuf>,
    /// What this service's own instances have listened on.
    past: Vec<Past>,
    marker: PathBuf,
    owner: Option<(u32, u32)>,
    force: bool,
    signal: i32,
    timeout: Duration,
    mark: String,
    /// Listeners that the daemon itself keeps.
    held: Vec<ListenerId>,
    /// Those that stay where they are.
    stay: Vec<(PathBuf, ListenerId)>,
    /// As [`foresee`] has said.
    foreseen: bool,
}

/// A kernel socket that an instance of the service has listened on, and the hold on its file, where one was kept. With
/// that it is proven that nobody listens on a file that a dead instance has left: no dump is needed.
#[derive(Debug, Clone)]
pub struct Past {
    /// The declared path.
    pub path: PathBuf,
    /// The declared type.
    pub kind: SocketKind,
    /// The kernel socket.
    pub listener: ListenerId,
    /// The hold.
    pub witness: Option<Arc<Witness>>,
}

struct Declared {
    field: String,
    path: PathBuf,
    optional: bool,
}

impl Sweep {
    /// The sweep that a spec asks for.
    pub fn plan(spec: &Spec, root: &Path, tag: &str, past: Vec<Past>, force: bool) -> Sweep {
        let declared = |(i, s): (usize, &shimd_api::spec::SocketSpec)| Declared {
            field: format!("sockets[{i}] ({})", s.path),
            path: spec.socket_path(root, s),
            optional: s.optional,
        };
        let user = users::resolve(spec.user.as_deref(), spec.group.as_deref()).ok().flatten();
        Sweep {
            sockets: spec.sockets.iter().enumerate().map(declared).collect(),
            kill_other: spec.kill_other_paths(root),
            past,
            marker: spec.marker_path(root),
            // Who is not root cannot give a folder away; the spawn then says that it cannot become that user.
            owner: user.filter(|_| nix::unistd::geteuid().is_root()).map(|u| (u.ids.uid, u.ids.gid)),
            force,
            signal: spec.stop.signal,
            timeout: spec.stop.timeout,
            mark: format!("{tag}/{}/", spec.name),
            held: Vec::new(),
            stay: Vec::new(),
            foreseen: false,
        }
    }

    /// These listeners are the daemon's own, and those of them that are at their paths stay there.
    pub fn leave(&mut self, held: Vec<ListenerId>, stay: Vec<(PathBuf, ListenerId)>) {
        (self.held, self.stay) = (held, stay);
    }

    /// What [`foresee`] has said of the same service a moment ago.
    pub fn is_foreseen(&mut self, alone: bool) {
        self.foreseen = alone;
    }

    /// The same for these paths alone.
    pub fn only(&mut self, paths: &[&Path]) {
        self.sockets.retain(|s| paths.contains(&s.path.as_path()));
        self.kill_other.clear();
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

/// Whether the files at the paths will be all that is in the way of a clean that is to come, once the instance that serves is
/// gone: each path is that of a listener of its own, whose file is held, and nobody else is about who has lost one of them. So
/// all that the clean has to ask then is whether each file is dead. To be asked while the instance serves: the dump that it
/// takes costs the more the more sockets the machine has, and no client waits for it.
pub fn foresee(plan: &Sweep, auditor: &mut Auditor) -> bool {
    let own = |asked: &Asked| {
        plan.past.iter().any(|past| {
            let held = past.witness.as_ref().and_then(|witness| witness.listener());
            past.path == asked.path && past.kind != SocketKind::Dgram && held == Some(past.listener)
        })
    };
    let paths: Vec<&Path> = plan.asked().map(|asked| asked.path).collect();
    let known: Vec<ListenerId> = plan.past.iter().map(|past| past.listener).collect();
    plan.force
        && plan.asked().all(|asked| asked.path.is_absolute() && own(&asked))
        && auditor.are_alone(&paths, &known)
}

/// The sweep, where nobody is in the way: each path is proven free, and who was to be looked for beyond that is foreseen not
/// to be there. No dump is taken, and nobody has to be ended or waited for. `None` where it is not so; nothing was touched then.
pub fn run_if_clear(plan: &Sweep) -> Option<(CleanReport, Result<(), SweepError>)> {
    if !plan.foreseen && plan.asked().any(|asked| asked.end) {
        return None;
    }
    let mut auditor = Auditor::new().ok()?;
    let dead = Dead::of(&plan.past, &mut auditor);
    let clear =
        |asked: Asked| asked.path.is_absolute() && (dead.lies_at(asked.path) || is_proven_free(asked.path));
    if plan.force && !dead.is_all_of(&plan.past) || !plan.asked().all(clear) {
        return None;
    }
    let mut report = CleanReport::default();
    let result = make_way(plan, Found::default(), &dead, &mut auditor, &mut report);
    Some((report, result))
}

/// Why a start would be refused for somebody who listens on a path, at this moment. Nothing is touched.
pub fn refusal(plan: &Sweep) -> Option<SweepError> {
    let mut auditor = Auditor::new().ok()?;
    holders(plan, &mut auditor).err()
}

/// Sweeps for an instance beside one that serves: what dead generations have left, and the ready marker. Neither a
/// dentry of the one that serves is touched nor anybody's listener.
pub fn run_beside(plan: &Sweep) -> (CleanReport, Result<(), SweepError>) {
    let mut report = CleanReport::default();
    let mut sweep = || {
        let mut auditor = Auditor::new()?;
        for socket in plan.sockets.iter().filter(|s| s.path.is_absolute()) {
            remove_left(socket, &Dead::default(), &mut auditor, &mut report)?;
        }
        remove_marker(plan, &mut report)
    };
    let result = sweep();
    (report, result)
}

fn sweep(plan: &Sweep, report: &mut CleanReport) -> Result<(), SweepError> {
    let mut auditor = Auditor::new()?;
    // Whoever stays, and whatever is never removed, is told before anything is touched.
    let found = holders(plan, &mut auditor)?;
    make_way(plan, found, &Dead::default(), &mut auditor, report)
}

fn make_way(
    plan: &Sweep,
    found: Found,
    dead: &Dead,
    auditor: &mut Auditor,
    report: &mut CleanReport,
) -> Result<(), SweepError> {
    prepare_folders(plan)?;
    end_holders(plan, found, auditor, report)?;
    for socket in plan.sockets.iter().filter(|s| s.path.is_absolute()) {
        let kept = plan.stay.iter().find(|(path, _)| *path == socket.path);
        if kept.is_some_and(|(path, id)| activation::is_at(auditor, path, *id)) {
            continue;
        }
        remove_stale(socket, dead, auditor, report)?;
    }
    remove_marker(plan, report)
}

/// Sees to it that each socket has a folder in which it can be removed and bound. What cannot be put right by any clean (a link
/// for a folder, one that is immutable, a file at the path) is told, before anything is touched.
pub fn prepare_folders(plan: &Sweep) -> Result<(), SweepError> {
    for socket in plan.sockets.iter().filter(|s| !s.optional && s.path.is_absolute()) {
        clean::look_first(&socket.path)
            .map_err(|source| SweepError::Dentry { field: socket.field.clone(), source })?;
    }
    for (socket, parent) in plan.folders() {
        folder::ensure_folder(parent, plan.owner, 0o755)
            .map_err(|source| SweepError::Folder { field: socket.field.clone(), source })?;
    }
    Ok(())
}

fn remove_marker(plan: &Sweep, report: &mut CleanReport) -> Result<(), SweepError> {
    let marker = clean::remove_marker(&plan.marker)
        .map_err(|source| SweepError::Dentry { field: "ready.marker".into(), source })?;
    if let Cleaned::Removed(_) = marker {
        report.removed.push(plan.marker.display().to_string());
    }
    Ok(())
}

/// Ends whoever is to be ended, until nobody is left; a holder that was forked meanwhile is found by the
/// next round.
fn end_holders(
    plan: &Sweep,
    mut found: Found,
    auditor: &mut Auditor,
    report: &mut CleanReport,
) -> Result<(), SweepError> {
    for _round in 0..ROUNDS {
        for (bridge, listener) in &found.bridges {
            bridge::retire(bridge, *listener);
        }
        if found.victims.is_empty() {
            break;
        }
        let mut held = ending::hold(&found.victims);
        // One that was seen may have ended by itself before it was held, and its number be another's by now.
        let still = holders(plan, auditor)?.victims;
        held.retain(|process| still.contains(&process.pid()));
        for pid in ending::end_processes(&held, plan.signal, plan.timeout) {
            if !report.killed.contains(&pid) {
                report.killed.push(pid);
            }
        }
        found = holders(plan, auditor)?;
    }
    Ok(())
}

/// Who is in the way.
#[derive(Default)]
struct Found {
    /// Processes to be ended, in order.
    victims: Vec<i32>,
    /// Our own bridges to listeners that have lost their files, each with its listener.
    bridges: Vec<(Bridge, ListenerId)>,
}

/// Who is to be ended, in order.
fn holders(plan: &Sweep, auditor: &mut Auditor) -> Result<Found, SweepError> {
    let asked: Vec<Asked> = plan.asked().filter(Asked::has_something).collect();
    if asked.is_empty() {
        return Ok(Found::default());
    }
    let nobodys = |asked: &Asked| {
        let past = plan.past.iter().find(|past| past.path == asked.path && past.witness.is_some());
        Expect {
            owner: Owner::Pids(Vec::new()),
            kind: past.map(|past| past.kind),
            known: past.map(|past| past.listener),
            witness: past.and_then(|past| past.witness.clone()),
            ..Expect::path(asked.path)
        }
    };
    let findings = auditor.audit(&asked.iter().map(nobodys).collect::<Vec<_>>());
    let Found { mut victims, mut bridges } = Found::default();
    for (asked, finding) in asked.iter().zip(findings) {
        for party in &finding.others {
            if plan.held.contains(&party.listener.id()) {
                // Of one that we keep, only who else has it open is of interest.
                let pids = party.pids.iter().filter(|pid| !is_untouchable(**pid));
                victims.extend(pids.filter(|pid| asked.end || is_leftover(plan, **pid)));
            } else if let Some(bridge) = party.pids.iter().find_map(|pid| bridge::ours(*pid, asked.path)) {
                bridges.push((bridge, party.listener.id()));
            } else {
                judge(plan, asked, party, Place::of(party, &finding, asked.path), &mut victims)?;
            }
        }
    }
    victims.extend(known_holders(plan, auditor)?);
    victims.sort_unstable();
    victims.dedup();
    Ok(Found { victims, bridges })
}

/// A path, and what is to become of who listens there.
struct Asked<'a> {
    field: &'a str,
    path: &'a Path,
    /// Whoever it is, it is ended.
    end: bool,
    /// It is to be the service's.
    declared: bool,
}

impl Sweep {
    fn asked(&self) -> impl Iterator<Item = Asked<'_>> {
        let declared = |s: &'_ Declared| self.force || self.kill_other.contains(&s.path);
        let sockets = self.sockets.iter().map(move |s| Asked {
            field: &s.field,
            path: &s.path,
            end: declared(s),
            declared: true,
        });
        let others = self.kill_other.iter().map(|path| Asked {
            field: "kill_other.socket",
            path,
            end: true,
            declared: false,
        });
        sockets.chain(others)
    }
}

impl Asked<'_> {
    /// With nothing to see but a dead socket's file, and nobody to be ended unseen, there is nobody to ask for: most
    /// starts.
    fn has_something(&self) -> bool {
        self.end || self.path.is_relative() || !is_proven_free(self.path)
    }
}

/// Where a listener outside the service is, as seen from a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There: its socket, or its abstract name.
    AtPath,
    /// Behind a symbolic link that lies there. It serves a path of its own.
    BehindLink,
    /// It bound this name once, and its dentry is gone.
    Lost,
}

impl Place {
    fn of(party: &Party, finding: &Finding, path: &Path) -> Place {
        match &finding.dentry {
            // An abstract name is its own place.
            None if path.is_relative() => Place::AtPath,
            Some(dentry) if dentry.kind == DentryKind::Symlink => Place::BehindLink,
            Some(dentry) if party.listener.vfs == Some(dentry.vfs()) => Place::AtPath,
            _ => Place::Lost,
        }
    }
}

/// With `--clean`: who holds a kernel socket that an instance of ours has listened on, whatever its name. A
/// descriptor passed on, a child that got away.
fn known_holders(plan: &Sweep, auditor: &mut Auditor) -> Result<Vec<i32>, SweepError> {
    if !plan.force || plan.past.is_empty() {
        return Ok(Vec::new());
    }
    let mut alive = HashSet::new();
    for id in plan.past.iter().map(|past| past.listener) {
        if auditor.lives(id)? {
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

/// A process that an earlier instance has left.
fn is_leftover(plan: &Sweep, pid: i32) -> bool {
    tree::environ_mark(pid).is_some_and(|mark| mark.starts_with(&plan.mark))
}

fn is_untouchable(pid: i32) -> bool {
    pid == 1 || pid == std::process::id() as i32
}

fn judge(
    plan: &Sweep,
    asked: &Asked<'_>,
    party: &Party,
    place: Place,
    victims: &mut Vec<i32>,
) -> Result<(), SweepError> {
    let (field, path) = (asked.field.to_owned(), asked.path.to_owned());
    let who = match (&party.holder, party.listener.uid) {
        (Some(holder), _) => holder.to_string(),
        (None, Some(uid)) => format!("a process of user {uid}, which cannot be seen from here,"),
        (None, None) => "a process that cannot be seen from here".to_owned(),
    };
    let leftover = |pid: &i32| is_leftover(plan, *pid);
    let strange = party.pids.is_empty() || !party.pids.iter().all(leftover);
    match place {
        Place::AtPath | Place::BehindLink if !asked.end && strange => {
            let link = place == Place::BehindLink;
            return Err(SweepError::Foreign { field, path, who, link });
        }
        // It does not have the path: the link is in the way, and no link is ever removed.
        Place::BehindLink if asked.declared => return Ok(()),
        Place::AtPath if party.pids.is_empty() => {
            let why =
                "cannot be ended from here: it is another user's, or in another pid namespace; stop it there";
            return Err(SweepError::Stays { field, path, who, why: why.to_owned() });
        }
        Place::AtPath | Place::BehindLink | Place::Lost => {}
    }
    for &pid in party.pids.iter().filter(|pid| asked.end || leftover(pid)) {
        if is_untouchable(pid) {
            let why = match pid {
                1 => "is never ended: stop the socket unit that holds it",
                _ => "is shimd itself: declare another path",
            };
            return Err(SweepError::Stays { field, path, who, why: why.to_owned() });
        }
        victims.push(pid);
    }
    Ok(())
}

fn remove_stale(
    socket: &Declared,
    dead: &Dead,
    auditor: &mut Auditor,
    report: &mut CleanReport,
) -> Result<(), SweepError> {
    remove_left(socket, dead, auditor, report)?;
    match clean::remove_socket(&socket.path, &is_dead(dead, &RefCell::new(auditor))) {
        Ok(Cleaned::Removed(_)) => report.removed.push(socket.path.display().to_string()),
        Ok(Cleaned::Nothing) => {}
        Err(_) if socket.optional => {}
        Err(source) => return Err(SweepError::Dentry { field: socket.field.clone(), source }),
    }
    Ok(())
}

/// Removes what a crash in the middle of an earlier removal has left aside, and the paths of their own that dead
/// generations have left: whatever the mode is now, a daemon that was killed may have had another one of it.
fn remove_left(
    socket: &Declared,
    dead: &Dead,
    auditor: &mut Auditor,
    report: &mut CleanReport,
) -> Result<(), SweepError> {
    let Some(folder) = socket.path.parent() else { return Ok(()) };
    let auditor = RefCell::new(auditor);
    let of_a_generation = |name: &OsStr| generation_of(&socket.path, name).is_some();
    let left = clean::sweep(folder, &of_a_generation, &is_dead(dead, &auditor))
        .map_err(|source| SweepError::Dentry { field: socket.field.clone(), source })?;
    report.removed.extend(left.iter().map(|p| p.display().to_string()));
    Ok(())
}

/// Asked by a removal before and after it has moved the socket aside: nobody may have begun to listen.
fn is_dead<'a>(dead: &'a Dead, auditor: &'a RefCell<&mut Auditor>) -> impl Fn(&clean::Seen) -> bool + 'a {
    |seen| dead.is(seen) || nobody_listens(&mut auditor.borrow_mut(), &seen.path)
}
