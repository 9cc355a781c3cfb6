//! `on_missing`: what follows when a live listener has lost its dentry.
//!
//! | verdict | what lies there | done by | with a pin |
//! | --- | --- | --- | --- |
//! | dangling | nothing | another process | linked back at once |
//! | dangling | nothing | the service itself, or nobody known | linked back after `settle`: it may be a reload |
//! | replaced | a socket that nobody listens on | the same | exchanged for it in one step |
//! | replaced | anything else | | left alone, and said |
//! | any other | | | nothing to put back |
//!
//! Only while the instance is to live: its own stop and clean are no loss, and its pins go before either begins. A
//! dentry that is lost again and again is put back ever more rarely ([`Patience`]). Without a pin, or where it cannot be
//! linked back (another mount), `relink` falls to `restart`; where the file system is full or read-only, a restart could
//! not bind either, so it is tried again and said.
//!
//! An instance that was never in order has no pin, and nothing of it is put back: its start fails as it always did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use shimd_api::event::{DoctorRow, EventDetail, EventKind};
use shimd_api::spec::OnMissing;
use shimd_api::wire::Culprit;
use socket_audit::{Finding, Verdict};

use super::Supervisor;
use super::culprits;
use super::patience::Patience;
use super::pins::nobody_listens;
use super::reasons::Reason;
use super::service::{Instance, Service};
use super::settling::is_own;
use super::socket::Socket;
use crate::core::machine::{Event, Phase};
use crate::sys::blame::{Deed, DeedKind};
use crate::sys::clean;
use crate::sys::pin::{LinkError, LinkedBack, Pin, PinError};

/// How long what cannot be put back now (a full disk) waits for the next attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// What is done for one socket's dentry.
#[derive(Debug, Clone, Default)]
pub struct Care {
    /// The second link, while the socket is in order or lost.
    pub pin: Option<Arc<Pin>>,
    /// Why there is none, where there should be one.
    pub unpinned: Option<PinError>,
    /// Since when its dentry is lost.
    pub lost: Option<Instant>,
    /// How often it was put back, in all generations.
    pub relinked: u64,
    /// How often it may be put back.
    pub patience: Patience,
    /// Why it was not put back.
    pub trouble: Option<String>,
    /// Put back before the kernel was asked whether anybody listens: by whom it had been removed.
    pub early: Option<Culprit>,
}

impl Care {
    /// What goes on with the next instance; a pin that is left is of a listener that does.
    pub fn of_the_next(&self) -> Care {
        Care { relinked: self.relinked, patience: self.patience, pin: self.pin.clone(), ..Care::default() }
    }

    /// The inode to be pinned, of a socket that was just found in order; `None` where its pin is there.
    pub fn to_pin(&self, finding: &Finding) -> Option<u32> {
        let ino = finding.listener.as_ref()?.vfs?.ino;
        let pinned = self.pin.as_ref().is_some_and(|pin| pin.is_of(ino) && pin.holds());
        (!pinned).then_some(ino)
    }

    /// Why a lost dentry is not back, to be added to the reason.
    pub fn in_the_way(&self) -> Option<String> {
        let trouble = self.trouble.as_ref().map(|trouble| format!("; {trouble}"));
        trouble.or_else(|| {
            (self.lost.is_some() && self.patience.is_worn()).then(|| {
                format!("; removed again and again, put back {} times so far and now ever more rarely: stop whoever does it", self.relinked)
            })
        })
    }
}

/// What to do about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heal {
    /// Nothing.
    No,
    /// Put it back.
    Now,
    /// Look again then.
    Later(Instant),
}

/// What was put back, and how.
enum Done {
    Linked(LinkedBack),
    Exchanged,
}

/// Why a dentry was not linked back.
#[derive(Debug, thiserror::Error)]
pub enum NotLinked {
    /// There is nothing to link it back from.
    #[error("{0}")]
    NoPin(String),
    /// It could not be.
    #[error(transparent)]
    Refused(LinkError),
}

/// Whether a finding is one that can be healed.
pub fn is_lost(finding: &Finding) -> bool {
    match finding.verdict {
        Verdict::Dangling => true,
        Verdict::Replaced => is_dead_file(finding),
        _ => false,
    }
}

/// A socket file on which, as far as the audit saw, nobody listens.
fn is_dead_file(finding: &Finding) -> bool {
    finding.others.is_empty()
        && !finding.bound_not_listening
        && finding.dentry.is_some_and(|d| d.kind == socket_audit::DentryKind::Socket)
}

/// Weighs a finding, by the module's table. `by`: `None` where nobody can be known, else the deed that was seen.
pub fn weigh(
    socket: &mut Socket,
    finding: &Finding,
    instance: Option<&Instance>,
    phase: Phase,
    by: Option<Option<&Deed>>,
    now: Instant,
) -> Heal {
    if finding.verdict == Verdict::Ok {
        (socket.care.lost, socket.care.trouble) = (None, None);
        return Heal::No;
    }
    let lives = matches!(phase, Phase::Verifying | Phase::Running | Phase::Impaired);
    let Some(instance) = instance.filter(|i| i.main_lives && lives && is_lost(finding)) else {
        socket.care.lost = None;
        return Heal::No;
    };
    if instance.spec.on_missing == OnMissing::Report {
        return Heal::No;
    }
    // What may have been a reload has been waited for already.
    let lost = *socket.care.lost.get_or_insert(socket.missed.unwrap_or(now));
    let by_another = by.flatten().is_some_and(|deed| !is_own(deed, instance));
    let from = if by_another { lost } else { lost + instance.spec.settle };
    let from = socket.care.patience.until(now).map_or(from, |at| at.max(from));
    if from <= now { Heal::Now } else { Heal::Later(from) }
}

impl Supervisor {
    /// Pins a socket that was just found in order; `ino`: as [`Pin::make`].
    pub(super) fn pin(&mut self, name: &Arc<str>, index: usize, ino: u32) {
        let Some(service) = self.services.get_mut(name) else { return };
        let relinks = service.live_spec().on_missing == OnMissing::Relink && service.instance.is_some();
        let Some(socket) = service.sockets.get_mut(index) else { return };
        if !relinks || !socket.path.is_absolute() {
            return;
        }
        // The socket was bound anew: the pin moves to the new inode.
        if let Some(old) = socket.care.pin.take().and_then(Arc::into_inner) {
            old.remove();
        }
        match self.pins.make(name, &socket.path, ino) {
            Ok(pin) => {
                (socket.care.pin, socket.care.unpinned) = (Some(Arc::new(pin)), None);
                self.guard(name, index);
            }
            // It went just now: the next audit sees what there is.
            Err(e) if matches!(e.errno, Errno::ENOENT | Errno::ESTALE) => {}
            Err(e) => {
                if socket.care.unpinned.as_ref() != Some(&e) {
                    tracing::warn!(service = %name, "{e}");
                }
                socket.care.unpinned = Some(e);
            }
        }
    }

    /// Puts a lost dentry back, or falls to the next means. True if clients can connect again.
    pub(super) fn heal(&mut self, name: &Arc<str>, index: usize, finding: &Finding) -> bool {
        let Some(service) = self.services.get(name) else { return false };
        if service.live_spec().on_missing == OnMissing::Restart {
            self.lost(name, index, "on_missing: restart");
            return false;
        }
        match self.link_back(name, index, finding) {
            Ok(()) => true,
            Err(NotLinked::NoPin(why)) => {
                self.lost(name, index, &why);
                false
            }
            Err(NotLinked::Refused(e)) => {
                self.not_healed(name, index, &e);
                false
            }
        }
    }

    /// Links a lost dentry back from its pin.
    pub(super) fn link_back(
        &mut self,
        name: &Arc<str>,
        index: usize,
        finding: &Finding,
    ) -> Result<(), NotLinked> {
        let none = || NotLinked::NoPin("it has no pin".to_owned());
        let service = self.services.get_mut(name).ok_or_else(none)?;
        let socket = service.sockets.get_mut(index).ok_or_else(none)?;
        let ino = finding.listener.as_ref().and_then(|l| l.vfs).map(|vfs| vfs.ino);
        if socket.care.pin.is_none() {
            // Lost while no daemon ran: the last one's pin is there.
            let found = ino.and_then(|ino| self.pins.found(name, &socket.path, ino));
            socket.care.pin = found.map(Arc::new);
        }
        let pin = socket.care.pin.clone().filter(|pin| ino.is_some_and(|ino| pin.is_of(ino)));
        let Some(pin) = pin else {
            let why = socket.care.unpinned.as_ref().map(ToString::to_string);
            return Err(why.map_or_else(none, NotLinked::NoPin));
        };
        socket.care.patience.used(Instant::now());
        let put_back = match finding.verdict {
            Verdict::Replaced => {
                let auditor = &mut self.auditor;
                let dead = &mut |path: &std::path::Path| nobody_listens(auditor, path);
                pin.exchange_dead(&socket.path, dead).map(|()| Done::Exchanged)
            }
            _ => pin.link_back(&socket.path).map(Done::Linked),
        };
        self.healed(name, index, &put_back.map_err(NotLinked::Refused)?);
        Ok(())
    }

    /// The short way for the plain case: the file of a socket that was in order is gone, and fanotify says that another
    /// process unlinked it. The pin is linked back first and the kernel asked afterwards, for one question is a scan of
    /// all sockets of the machine; were nobody to listen any more, [`Self::tell_early`] takes the file away again.
    pub(super) fn heal_early(&mut self, name: &Arc<str>, index: usize) {
        let (Ok(blame), Some(service)) = (&self.blame, self.services.get_mut(name)) else { return };
        let runs =
            service.machine.phase == Phase::Running && service.live_spec().on_missing == OnMissing::Relink;
        let Some(instance) = service.instance.as_ref().filter(|i| i.main_lives && runs) else { return };
        let Some(socket) = service.sockets.get_mut(index).filter(|s| s.verdict == Some(Verdict::Ok)) else {
            return;
        };
        let (Some(pin), Some(well_at)) = (&socket.care.pin, socket.well_at) else { return };
        let now = Instant::now();
        if socket.care.patience.until(now).is_some() {
            return;
        }
        let deed = culprits::last(blame, &socket.path, well_at, |deed| deed.kind.replaces());
        let unlinked = |deed: &Deed| {
            deed.kind == DeedKind::Removed
                && socket.path == deed.folder.join(&deed.name)
                && !is_own(deed, instance)
        };
        let Some(deed) = deed.filter(unlinked) else { return };
        if pin.link_back(&socket.path).is_ok() {
            socket.care.patience.used(now);
            socket.care.relinked += 1;
            socket.care.early = Some(culprits::named(&deed));
        }
    }

    /// An audit has seen what was put back early: its loss is told now, or, where nobody listens, the file is removed.
    pub(super) fn tell_early(&mut self, name: &Arc<str>, findings: &[(usize, Finding)]) {
        for (index, finding) in findings {
            let Some(service) = self.services.get_mut(name) else { return };
            let Some(socket) = service.sockets.get_mut(*index) else { continue };
            let Some(culprit) = socket.care.early.take() else { continue };
            match finding.verdict {
                Verdict::Ok => {
                    socket.verdict = Some(Verdict::Dangling);
                    socket.reason = Reason::unlinked();
                    socket.culprit = Some(culprit);
                    self.record_verdict(name, *index);
                    self.record_healed(name, *index, false);
                }
                Verdict::Stale => {
                    // With its pin, the removal below would be answered like the one before.
                    if let Some(pin) = socket.care.pin.take().and_then(Arc::into_inner) {
                        pin.remove();
                    }
                    let (auditor, path) = (std::cell::RefCell::new(&mut self.auditor), socket.path.clone());
                    let dead = |seen: &clean::Seen| nobody_listens(&mut auditor.borrow_mut(), &seen.path);
                    if let Err(e) = clean::remove_socket(&path, &dead) {
                        tracing::warn!(service = %name, "{e}");
                    }
                    self.dirty.insert(name.clone(), None);
                }
                _ => {}
            }
        }
    }

    fn healed(&mut self, name: &Arc<str>, index: usize, done: &Done) {
        let Some(socket) = self.services.get_mut(name).and_then(|s| s.sockets.get_mut(index)) else { return };
        socket.care.relinked += 1;
        (socket.care.lost, socket.care.trouble) = (None, None);
        if let Done::Linked(LinkedBack { folder_made: true }) = done {
            self.watch_changed = true;
        }
    }

    /// The event of a dentry that was put back: after that of its loss.
    pub(super) fn record_healed(&mut self, name: &Arc<str>, index: usize, exchanged: bool) {
        let Some(socket) = self.services.get(name).and_then(|s| s.sockets.get(index)) else { return };
        let worn = match socket.care.patience.is_worn() {
            true => {
                "; it is removed again and again, so it is put back ever more rarely: stop whoever does it"
            }
            false => "",
        };
        let (done, how) = match exchanged {
            true => ("replaced", "exchanged for the dead socket file"),
            false => ("removed", "linked back"),
        };
        let reason = Reason {
            done: Some(done.into()),
            stands: format!("{how} from its pin, no connection was dropped{worn}"),
        };
        let detail = EventDetail {
            socket: Some(socket.name.clone()),
            path: Some(socket.path.display().to_string()),
            reason: Some(reason.words(socket.culprit.as_ref())),
            pid: socket.pid,
            culprit: socket.culprit.clone(),
            ..EventDetail::default()
        };
        self.record(Some(name), EventKind::Relinked, detail);
    }

    fn not_healed(&mut self, name: &Arc<str>, index: usize, error: &LinkError) {
        let next_means = match error {
            // It changed under the look: the next one sees what it is.
            LinkError::Occupied { .. } => {
                self.dirty.insert(name.clone(), None);
                return;
            }
            LinkError::NoPin { .. } => true,
            LinkError::Refused { errno, .. } => matches!(errno, Errno::EXDEV | Errno::EPERM),
            LinkError::Folder(_) => false,
        };
        if next_means {
            self.lost(name, index, &error.to_string());
            return;
        }
        if let Some(socket) = self.services.get_mut(name).and_then(|s| s.sockets.get_mut(index)) {
            socket.care.trouble = Some(format!("not linked back: {error}"));
            socket.again = Some(Instant::now() + AGAIN);
        }
    }

    /// Nothing can be put back: the service is restarted cleanly, within its limits.
    fn lost(&mut self, name: &Arc<str>, index: usize, why: &str) {
        let Some(service) = self.services.get_mut(name) else { return };
        let Some(socket) = service.sockets.get_mut(index) else { return };
        socket.care.trouble = Some(format!("not linked back: {why}"));
        self.queue.push_back((name.clone(), Event::Lost));
    }

    /// `proc doctor`: whether every socket that should have a pin has one.
    pub(super) fn pins_row(&self) -> DoctorRow {
        let sockets = || self.services.values().flat_map(|s| &s.sockets);
        let pinned = sockets().filter(|s| s.care.pin.is_some()).count();
        let without: Vec<&PinError> = sockets().filter_map(|s| s.care.unpinned.as_ref()).collect();
        match without.first() {
            None => super::doctor::well(
                "pins",
                format!("sockets that have a pin, from which a lost one is put back: {pinned}"),
            ),
            Some(first) => super::doctor::ill(
                "pins",
                format!(
                    "sockets that have no pin, so that a lost one is restarted: {}; the first: {first}",
                    without.len()
                ),
                first.help,
            ),
        }
    }

    /// Looks again at what is lost, now that somebody was seen who may have done it.
    pub(super) fn heal_seen(&mut self) {
        let Ok(blame) = &self.blame else { return };
        let lost = |service: &Service| {
            service.sockets.iter().any(|s| {
                s.care.lost.is_some()
                    && s.verdict.is_some_and(|verdict| culprits::deed(blame, s, verdict).is_some())
            })
        };
        let seen: Vec<_> = self
            .waiting_to_heal
            .iter()
            .filter(|n| self.services.get(*n).is_some_and(lost))
            .cloned()
            .collect();
        for name in seen {
            self.waiting_to_heal.remove(&name);
            self.dirty.insert(name, None);
        }
    }
}
