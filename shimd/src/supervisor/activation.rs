//! Sockets of the mode `activate`: which listeners the daemon keeps, from when to when. What binds, hands over and takes
//! back is [`activation`](crate::sys::activation).
//!
//! | moment | a listener |
//! | --- | --- |
//! | the clean before a spawn | is bound where none is kept |
//! | … its dentry is lost | is linked back from its pin; without one, bound anew |
//! | … it was shut down by an instance, or is to be of another type | is bound anew |
//! | … the spec names another owner or umask, or no longer the path | gets them; is closed |
//! | a spawn | is handed over, with the spec's backlog and as it was when it was fresh |
//! | an instance ends, backoff, failed, `restart`, `--clean` | is kept, with its dentry and its pin |
//! | a stop: down is wanted and nothing lives | is closed, its dentry and its pin removed |
//! | the daemon ends | stays with the instance, and in systemd's store |
//! | the daemon's start | is taken back: from that store, from the daemon that it replaces, else from the instance |
//!
//! A listener that is bound anew leaves behind whoever waited in the old one's queue: that is an event (`listener`), as
//! is one that was not taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shimd_api::event::{EventDetail, EventKind};
use shimd_api::spec::{SocketMode, SocketSpec, Spec};
use socket_audit::{Auditor, Diag, Expect, ListenerId, Owner, Verdict};

use super::Supervisor;
use super::service::{CleanReport, Service};
use super::sweep::{self, Sweep, SweepError};
use crate::core::machine::{Phase, Want};
use crate::store::Write;
use crate::sys::activation::{self, FdStore, Held, Wanted};
use crate::sys::pin::Pin;
use crate::sys::spawn::Listen;
use crate::sys::tree::Tree;
use crate::sys::users;

/// A listener that the daemon keeps.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The socket as declared.
    declared: String,
    held: Arc<Held>,
    /// Why it was bound anew, where clients may have waited in another's queue.
    anew: Option<String>,
}

/// The listeners that the daemon keeps.
pub struct Activation {
    kept: BTreeMap<Arc<str>, Vec<Kept>>,
    /// Those that could not be taken back, and why.
    missed: BTreeMap<(Arc<str>, PathBuf), String>,
    store: Option<FdStore>,
}

impl Activation {
    /// None yet. `notify_socket`: of the daemon's own service manager.
    pub fn new(notify_socket: Option<&std::ffi::OsStr>) -> Activation {
        Activation { kept: BTreeMap::new(), missed: BTreeMap::new(), store: FdStore::of(notify_socket) }
    }

    /// Tells the daemon's own service manager, if there is one, that requests are served and every instance is found again.
    pub fn say_ready(&self) {
        if let Some(Err(errno)) = self.store.as_ref().map(FdStore::say_ready) {
            tracing::warn!("the service manager is not told that shimd is up: {errno}");
        }
    }

    /// Whether a listener of this service is kept for a path.
    pub fn keeps(&self, service: &str, path: &Path) -> bool {
        self.held(service, path).is_some()
    }

    fn held(&self, service: &str, path: &Path) -> Option<&Arc<Held>> {
        self.kept.get(service)?.iter().map(|kept| &kept.held).find(|held| held.path() == path)
    }

    /// Takes a listener away from those that are kept.
    fn release(&mut self, service: &str, keep: impl Fn(&Kept) -> bool) -> Vec<Kept> {
        let Some(kept) = self.kept.get_mut(service) else { return Vec::new() };
        let gone: Vec<Kept> = kept.extract_if(.., |kept| !keep(kept)).collect();
        if kept.is_empty() {
            self.kept.remove(service);
        }
        for kept in &gone {
            self.forget(service, &kept.declared);
        }
        gone
    }

    fn store(&self, service: &str, kept: &Kept) {
        let stored = self.store.as_ref().map(|store| store.keep(service, &kept.declared, &kept.held));
        if let Some(Err(errno)) = stored {
            tracing::warn!(service, socket = %kept.declared, "the service manager does not keep it: {errno}");
        }
    }

    fn forget(&self, service: &str, declared: &str) {
        // A manager that cannot be reached gives it back at the next start, where nobody wants it.
        let _ = self.store.as_ref().map(|store| store.forget(service, declared));
    }
}

/// Whose a service's listeners may be.
#[derive(Default)]
pub struct Owners {
    tree: Option<Tree>,
    /// The daemon itself, where it keeps some of them.
    keeper: Option<i32>,
}

impl Owners {
    /// Of a service as it is now.
    pub fn of(service: &Service) -> Owners {
        let activates = service.live_spec().sockets.iter().any(is_activated);
        Owners {
            tree: service.instance.as_ref().map(|i| i.tree.clone()),
            keeper: activates.then(|| std::process::id() as i32),
        }
    }

    /// Their processes; that of the instance's to be named comes first.
    pub fn pids_now(&self) -> Vec<i32> {
        let mut pids = self.tree.as_ref().map_or_else(Vec::new, Tree::pids_now);
        pids.extend(self.keeper);
        pids
    }
}

/// The paths of a spec's sockets of the mode `publish`.
fn published_paths(spec: &Spec, root: &Path) -> Vec<PathBuf> {
    let published = spec.sockets.iter().filter(|socket| socket.mode == SocketMode::Publish);
    published.map(|socket| spec.socket_path(root, socket)).collect()
}

/// The socket that an instance of `spec` would have to take over from one of `live`, which has bound it itself: two cannot
/// have it at a time.
pub fn taken_over<'a>(spec: &'a Spec, live: &Spec, root: &Path) -> Option<&'a SocketSpec> {
    let published = published_paths(live, root);
    let mut activated = spec.sockets.iter().filter(|socket| is_activated(socket));
    activated.find(|socket| published.contains(&spec.socket_path(root, socket)))
}

/// Whether the daemon binds it.
pub fn is_activated(socket: &SocketSpec) -> bool {
    socket.mode == SocketMode::Activate
}

/// What the clean before a spawn has to see to.
pub struct Plan {
    sweep: Sweep,
    wants: Vec<Listener>,
    /// For a second instance.
    beside: bool,
}

/// One socket of it.
struct Listener {
    field: String,
    declared: String,
    wanted: Wanted,
    held: Option<Arc<Held>>,
    pin: Option<Arc<Pin>>,
    /// The instance that serves has bound it, and put its own socket there.
    published: bool,
    /// Why none is held, though there was one.
    missed: Option<String>,
}

impl Plan {
    /// As [`sweep::run_if_clear`]: what takes next to no time.
    pub fn run_if_clear(&self) -> Option<(CleanReport, Result<(), SweepError>)> {
        self.wants.is_empty().then(|| sweep::run_if_clear(&self.sweep)).flatten()
    }
}

/// Sweeps, then sees to it that everything that is wanted listens. The report holds the listeners; where it failed, no
/// new one is left.
pub fn prepare(mut plan: Plan) -> (CleanReport, Result<(), SweepError>) {
    if plan.wants.is_empty() {
        return if plan.beside { sweep::run_beside(&plan.sweep) } else { sweep::run(&plan.sweep) };
    }
    let asked = Auditor::new().and_then(|auditor| Ok((auditor, Diag::open()?)));
    let (mut auditor, mut diag) = match asked {
        Ok(both) => both,
        Err(e) => return (CleanReport::default(), Err(e.into())),
    };
    // The way to the path would be over the instance that serves.
    if let Some(want) = plan.wants.iter().find(|want| plan.beside && want.published) {
        let source = activation::BindError::InUse {
            path: want.wanted.path.clone(),
            what: "the instance that serves has this socket in the mode publish".into(),
            fix: "restart it without --gapless",
        };
        let error = SweepError::Listener { field: want.field.clone(), source };
        return (CleanReport::default(), Err(error));
    }
    let (mut held, mut fit) = (Vec::new(), Vec::new());
    for want in &mut plan.wants {
        let Some(old) = &want.held else { continue };
        held.push(old.id());
        if plan.beside {
            fit.push((want.wanted.path.clone(), old.id()));
            continue;
        }
        let why = if !old.will_do(&want.wanted) {
            "it is to be of another type"
        } else if old.listening(&mut diag).is_none() {
            "an instance had shut it down"
        } else {
            fit.push((want.wanted.path.clone(), old.id()));
            continue;
        };
        want.missed = Some(why.to_owned());
        // What cannot be removed stops the sweep, which says so.
        let _ = old.unlink(&mut diag);
        want.held = None;
    }
    plan.sweep.leave(held, fit);
    let (mut report, swept) = if plan.beside {
        let (beside, left) = sweep::run_beside(&plan.sweep);
        // The way is made for what the instance that serves does not have yet.
        let new: Vec<&Path> =
            plan.wants.iter().filter(|w| w.held.is_none()).map(|w| w.wanted.path.as_path()).collect();
        plan.sweep.only(&new);
        let (mut report, swept) = sweep::run(&plan.sweep);
        report.removed.extend(beside.removed);
        (report, left.and(swept))
    } else {
        sweep::run(&plan.sweep)
    };
    let result = swept.and_then(|()| {
        for want in plan.wants {
            let (field, old) = (want.field.clone(), want.held.as_ref().map(|held| held.id()));
            match listen(want, &mut auditor) {
                Ok(kept) => report.listeners.push((kept, old)),
                Err(source) => return Err(SweepError::Listener { field, source }),
            }
        }
        Ok(())
    });
    if result.is_err() {
        for (kept, old) in report.listeners.drain(..) {
            if Some(kept.held.id()) != old {
                let _ = kept.held.unlink(&mut diag);
            }
        }
    }
    (report, result)
}

/// The listener of one socket: the old one where that can be, else one that is bound now.
fn listen(want: Listener, auditor: &mut Auditor) -> Result<Kept, activation::BindError> {
    let Listener { declared, wanted, held, pin, mut missed, .. } = want;
    if let Some(held) = held {
        if !held.will_do(&wanted) {
            return Err(activation::BindError::InUse {
                path: wanted.path,
                what: "the instance that serves has a socket of another type here".into(),
                fix: "restart it without --gapless",
            });
        }
        let linked_back = || pin.as_ref().is_some_and(|pin| pin.link_back(&wanted.path).is_ok());
        if !is_at(auditor, &wanted.path, held.id()) && !linked_back() {
            missed = Some("its dentry was lost, and there was no pin to put it back from".into());
        } else if let Ok(held) = held.owned_as(&wanted) {
            return Ok(Kept { declared, held: Arc::new(held), anew: None });
        } else {
            missed = Some("it could not be given to its new owner".into());
            let _ = Diag::open().map(|mut diag| held.unlink(&mut diag));
        }
    }
    let held = Arc::new(Held::bind(&wanted)?);
    Ok(Kept { declared, held, anew: missed })
}

/// Whether clients find this listener at the path.
pub fn is_at(auditor: &mut Auditor, path: &Path, listener: ListenerId) -> bool {
    let expect = Expect { owner: Owner::Trusted, known: Some(listener), ..Expect::path(path) };
    let finding = auditor.confirm(&expect);
    matches!(finding.verdict, Verdict::Ok | Verdict::Wedged | Verdict::Denied)
        && finding.listener.is_some_and(|found| found.id() == listener)
}

impl Supervisor {
    /// Lets go of the listeners that the spec no longer names, of the instance if one lives.
    pub(super) fn release_unwanted(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let spec = service.live_spec();
        let activated = spec.sockets.iter().filter(|s| is_activated(s));
        let paths: BTreeSet<PathBuf> = activated.map(|socket| spec.socket_path(&self.root, socket)).collect();
        let gone = self.activation.release(name, |kept| paths.contains(kept.held.path()));
        if !gone.is_empty() {
            self.drop_pins(name);
        }
        close(&gone);
    }

    /// What the clean before a spawn has to see to, beside the sweep.
    /// `beside`: of an instance that serves, which is not to be touched.
    pub(super) fn activation_plan(&mut self, name: &Arc<str>, sweep: Sweep, beside: bool) -> Plan {
        let none = Vec::new();
        let Some(service) = self.services.get(name) else { return Plan { sweep, wants: none, beside } };
        let spec = service.spec.clone();
        let published = published_paths(service.live_spec(), &self.root);
        let sockets = spec.sockets.iter().enumerate().filter(|(_, socket)| is_activated(socket));
        let wants = sockets.map(|(i, socket)| {
            let path = spec.socket_path(&self.root, socket);
            let pinned = service.sockets.iter().find(|s| s.path == path);
            Listener {
                field: format!("sockets[{i}] ({})", socket.path),
                declared: socket.path.clone(),
                held: self.activation.held(name, &path).cloned(),
                pin: pinned.and_then(|s| s.care.pin.clone()),
                published: published.contains(&path),
                missed: self.activation.missed.get(&(name.clone(), path.clone())).cloned(),
                wanted: activation::wanted(&spec, socket, path, owner_of(&spec)),
            }
        });
        Plan { wants: wants.collect(), sweep, beside }
    }

    /// Keeps the listeners that a clean gave.
    pub(super) fn keep_listeners(&mut self, name: &Arc<str>, listeners: Vec<(Kept, Option<ListenerId>)>) {
        for (kept, old) in &listeners {
            self.activation.missed.remove(&(name.clone(), kept.held.path().to_owned()));
            if *old != Some(kept.held.id()) {
                self.activation.forget(name, &kept.declared);
                self.activation.store(name, kept);
            }
            if let Some(why) = &kept.anew {
                let reason = format!("bound anew: {why}; clients that waited in the old queue were refused");
                self.record_listener(name, &kept.declared, kept.held.path(), reason);
            }
        }
        if !listeners.is_empty() {
            let kept = self.activation.kept.entry(name.clone()).or_default();
            kept.retain(|old| listeners.iter().all(|(new, _)| new.held.path() != old.held.path()));
            kept.extend(listeners.into_iter().map(|(kept, _)| Kept { anew: None, ..kept }));
        }
    }

    /// What an instance is handed, in the spec's order. `beside` one that serves: as that one has left them.
    pub(super) fn listeners_of(
        &self,
        name: &Arc<str>,
        beside: bool,
    ) -> Result<Vec<(Listen, Arc<Held>)>, String> {
        let Some(service) = self.services.get(name) else { return Ok(Vec::new()) };
        let activated = service.spec.sockets.iter().filter(|s| is_activated(s));
        let handed = activated.map(|socket| {
            let path = service.spec.socket_path(&self.root, socket);
            let held = self.activation.held(name, &path);
            let held =
                held.ok_or_else(|| format!("{}: nothing was bound here; start it again", path.display()))?;
            if !beside {
                held.refresh(socket.backlog).map_err(|errno| format!("{}: {errno}", path.display()))?;
            }
            Ok((Listen { name: activation::fd_name(&socket.path), backlog: socket.backlog }, held.clone()))
        });
        handed.collect()
    }

    /// Closes the listeners of a service that is down and is to be.
    pub(super) fn close_unwanted(&mut self, name: &Arc<str>) {
        let down = self.services.get(name).is_none_or(|s| {
            s.machine.want == Want::Down && s.machine.phase == Phase::Inactive && s.machine.beside.is_none()
        });
        let gone = if down { self.activation.release(name, |_| false) } else { Vec::new() };
        if !gone.is_empty() {
            self.drop_pins(name);
            self.pins.tidy();
            close(&gone);
            // A later daemon has nothing to take back.
            let none = Write::Listeners { name: name.to_string(), listeners: Vec::new() };
            self.store.note(none);
            self.dirty.insert(name.clone(), None);
        }
    }

    /// After the daemon's own start: takes back what the last one kept. `inherited`: what the service manager handed over.
    pub(super) fn take_listeners_back(&mut self, mut inherited: Vec<(String, OwnedFd)>) {
        let names: Vec<Arc<str>> = self.services.keys().cloned().collect();
        for name in names {
            let Some(service) = self.services.get(&name) else { continue };
            let spec = service.live_spec().clone();
            let instances = [service.instance.as_ref(), service.second.instance.as_ref()];
            let owners: Vec<i32> = instances.into_iter().flatten().flat_map(|i| i.tree.pids_now()).collect();
            let wanted_up = service.machine.want == Want::Up;
            let mut kept = Vec::new();
            for socket in spec.sockets.iter().filter(|s| is_activated(s)) {
                let path = spec.socket_path(&self.root, socket);
                let known = service.sockets.iter().find(|s| s.path == path).and_then(|s| s.known);
                let wanted = activation::wanted(&spec, socket, path, owner_of(&spec));
                match back(&wanted, known, &owners, &mut inherited) {
                    Ok(held) => {
                        let held = Arc::new(held);
                        kept.push(Kept { declared: socket.path.clone(), held, anew: None });
                    }
                    Err(Some(why)) if wanted_up => {
                        self.activation.missed.insert((name.clone(), wanted.path), why);
                    }
                    Err(_) => {}
                }
            }
            if !kept.is_empty() {
                kept.iter().for_each(|kept| self.activation.store(&name, kept));
                self.activation.kept.insert(name, kept);
            }
        }
        if let Some(store) = &self.activation.store {
            // Of services that are no longer registered. What has no name is not from there.
            for (name, _) in inherited.iter().filter(|(name, _)| !name.is_empty()) {
                let _ = store.forget_named(name);
            }
        }
        let missed: Vec<_> = self.activation.missed.clone().into_iter().collect();
        for ((name, path), why) in missed {
            self.record_listener(&name, &path.display().to_string(), &path, format!("not taken back: {why}"));
        }
    }

    fn record_listener(&mut self, name: &Arc<str>, declared: &str, path: &Path, reason: String) {
        tracing::warn!(service = %name, path = %path.display(), "{reason}");
        let detail = EventDetail {
            socket: Some(declared.to_owned()),
            path: Some(path.display().to_string()),
            reason: Some(reason),
            ..EventDetail::default()
        };
        self.record(Some(name), EventKind::Listener, detail);
    }
}

/// One listener after the daemon's own start; or why the one that there was is lost to us.
fn back(
    wanted: &Wanted,
    known: Option<ListenerId>,
    pids: &[i32],
    inherited: &mut Vec<(String, OwnedFd)>,
) -> Result<Held, Option<String>> {
    let found = inherited.iter().enumerate().find_map(|(place, (_, fd))| {
        let copy = fd.try_clone().ok()?;
        Some((place, Held::adopt(copy, wanted, None).ok()?))
    });
    if let Some((place, held)) = found {
        inherited.remove(place);
        return Ok(held);
    }
    match activation::retake(wanted, known, pids) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(known.map(|_| "no process of the service held it any more".to_owned())),
        Err(e) => Err(Some(e.to_string())),
    }
}

/// Removes their dentries, and closes them.
fn close(gone: &[Kept]) {
    if gone.is_empty() {
        return;
    }
    let Ok(mut diag) = Diag::open() else { return };
    for kept in gone {
        if let Err(e) = kept.held.unlink(&mut diag) {
            tracing::warn!("{e}");
        }
    }
}

/// Whom the dentry is given: nobody else, where the daemon is not root.
fn owner_of(spec: &Spec) -> Option<(u32, u32)> {
    let user = users::resolve(spec.user.as_deref(), spec.group.as_deref()).ok().flatten();
    user.filter(|_| nix::unistd::geteuid().is_root()).map(|u| (u.ids.uid, u.ids.gid))
}
