//! When sockets are audited, and what follows from the findings.
//!
//! Events make it fast: a change in a watched folder audits the services that have a socket there, at
//! once and on this task while they are few (one `lstat` and one query each), in one dump on the audit
//! thread where they are many. The period makes it sure: everything, every 5 s, on the thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use socket_audit::{Auditor, Expect, Finding, Owner, Verdict};
use tokio::sync::mpsc;

use super::activation::Owners;
use super::culprits;
use super::healing::{self, Heal};
use super::publish::Anew;
use super::queues;
use super::reasons::{self, Circumstances};
use super::service::Service;
use super::settling;
use super::socket::Socket;
use super::{BuildError, Message, Supervisor};
use crate::core::machine::{Event, Phase, Timer};
use crate::store::{ListenerRecord, Write};
use crate::sys::tree;

/// So many sockets are audited on the supervisor's own task; more go to the thread.
const FEW: usize = 8;
/// A starting instance that listens, and has had no file for this long, has lost it. Some servers bind twice.
const LOST: Duration = Duration::from_secs(1);
/// Every so many periods (five minutes) a trusted listener's owner is looked up anew: that is dear, for it reads the open
/// files of every instance, and an owner that ends is told by other means.
const OWNERS_EVERY: u64 = 60;

/// What an audit was asked about: a spawn of the service, and whether its instance was known by then. Between the
/// two there is a listener already that belongs to no process we know of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    generation: u64,
    lives: bool,
}

impl Subject {
    pub(super) fn of(service: &Service) -> Subject {
        Subject { generation: service.current, lives: service.instance.is_some() }
    }
}

/// One service's part of a batch.
struct Item {
    name: Arc<str>,
    subject: Subject,
    owners: Owners,
    /// Each with the socket's place in the spec.
    expects: Vec<(usize, Expect)>,
}

/// Findings, each with the socket's place in the spec.
pub(super) type Found = Vec<(usize, Finding)>;

/// What has to be audited: services, and of each these sockets, or all.
pub type Dirty = BTreeMap<Arc<str>, Option<BTreeSet<usize>>>;

/// What the thread found.
pub struct Report {
    /// Before its first look.
    asked: Instant,
    findings: Vec<(Arc<str>, Subject, Found)>,
}

/// The thread that audits many sockets at once.
pub struct AuditThread {
    jobs: std_mpsc::Sender<Job>,
    /// One job at a time: what becomes dirty meanwhile goes into the next.
    pub(super) busy: bool,
}

/// What the thread is asked for.
enum Job {
    Audit(Vec<Item>),
    /// Which listeners somebody waits for.
    Waiting,
}

impl AuditThread {
    /// Starts it.
    pub fn start(sender: mpsc::UnboundedSender<Message>) -> Result<AuditThread, BuildError> {
        let mut auditor = Auditor::new()?;
        let (jobs, queue) = std_mpsc::channel::<Job>();
        let work = move || {
            while let Ok(job) = queue.recv() {
                let message = match job {
                    Job::Audit(batch) => Message::Audited(audit(&mut auditor, batch)),
                    Job::Waiting => {
                        // Of this thread's own time: a busy machine does not make a look dear.
                        let began = spent();
                        let waited_for = auditor.waited_for().unwrap_or_default();
                        Message::Waiting(waited_for, spent().saturating_sub(began))
                    }
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("audit".into())
            .stack_size(512 * 1024)
            .spawn(work)
            .map_err(BuildError::Thread)?;
        Ok(AuditThread { jobs, busy: false })
    }
}

/// How soon a published socket that was bound anew, and does not listen yet, is looked at again: listen() raises no event.
const LISTENS: Duration = Duration::from_millis(20);

/// The processor time of this thread.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn audit(auditor: &mut Auditor, batch: Vec<Item>) -> Report {
    let asked = Instant::now();
    let mut expects = Vec::new();
    let mut parts = Vec::with_capacity(batch.len());
    for item in batch {
        // Only where somebody's processes are asked for: to list them costs more than the audit itself.
        let asks = item.expects.iter().any(|(_, e)| matches!(e.owner, Owner::Pids(_)));
        let pids = asks.then(|| item.owners.pids_now());
        let places: Vec<usize> = item.expects.iter().map(|(place, _)| *place).collect();
        parts.push((item.name, item.subject, places, item.owners));
        expects.extend(item.expects.into_iter().map(|(_, mut e)| {
            if let (Owner::Pids(owner), Some(pids)) = (&mut e.owner, &pids) {
                owner.clone_from(pids);
            }
            e
        }));
    }
    let mut findings = auditor.audit(&expects);
    // What is not ok on trust is asked again with the instance's processes.
    let mut owners =
        parts.iter().flat_map(|(_, _, places, owners)| std::iter::repeat_n(owners, places.len()));
    for (expect, finding) in expects.into_iter().zip(&mut findings) {
        let owners = owners.next();
        if is_suspicion(&expect, finding) {
            let pids = owners.map(Owners::pids_now).unwrap_or_default();
            *finding = auditor.confirm(&Expect { owner: Owner::Pids(pids), ..expect });
        }
    }
    let mut findings = findings.into_iter();
    let mut of_part = |places: Vec<usize>| places.into_iter().zip(findings.by_ref()).collect();
    let findings = parts.into_iter().map(|(n, s, places, _)| (n, s, of_part(places))).collect();
    Report { asked, findings }
}

/// On trust nobody's processes were looked at: what is neither well nor plainly lost is asked again with them.
fn is_suspicion(expect: &Expect, finding: &Finding) -> bool {
    expect.owner == Owner::Trusted && !matches!(finding.verdict, Verdict::Ok | Verdict::Dangling)
}

/// Of which service and generation the first stranger's process is, if it bears a mark of this daemon's.
fn strangers_mark(finding: &Finding, tag: &str) -> Option<(String, u64)> {
    let stranger = finding.others.first()?;
    let marked = |pid: &i32| tree::service_of(&tree::environ_mark(*pid)?, tag);
    stranger.pids.iter().find_map(marked)
}

impl Supervisor {
    /// Audits what has become dirty: here while it is little, else on the thread.
    pub(super) fn audit_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.retain(|name, _| self.services.contains_key(name));
        self.dirty = dirty.extract_if(.., |name, _| self.is_making_way(name)).collect();
        self.glance_at_starting(&mut dirty);
        let all = |name| self.services.get(name).map_or(0, |s| s.sockets.len());
        let sockets: usize =
            dirty.iter().map(|(n, some)| some.as_ref().map_or_else(|| all(n), BTreeSet::len)).sum();
        if sockets <= FEW {
            for (name, some) in std::mem::take(&mut dirty) {
                self.audit_one(&name, some.as_ref(), true);
            }
        }
        if self.audit_thread.busy {
            self.dirty.append(&mut dirty);
        } else {
            dirty.append(&mut self.close_looks);
            if !dirty.is_empty() {
                self.audit_there(dirty, true);
            }
        }
    }

    /// What its own clean does at its paths is no loss, and until its instance is known nobody's listener is: what comes
    /// after either is looked at.
    fn is_making_way(&self, name: &Arc<str>) -> bool {
        let phase = self.services.get(name).map(|service| service.machine.phase);
        matches!(phase, Some(Phase::Preparing { .. } | Phase::Spawning))
    }

    /// Audits one service on this task, for somebody who wants to know how it stands now.
    pub(super) fn audit_here(&mut self, name: &Arc<str>) {
        self.audit_one(name, None, false);
    }

    pub(super) fn audit_one(&mut self, name: &Arc<str>, some: Option<&BTreeSet<usize>>, patient: bool) {
        let Some(service) = self.services.get(name) else { return };
        let asked = Instant::now();
        let expects = service.expects(true, some);
        let subject = Subject::of(service);
        let mut findings: Found =
            expects.iter().map(|(place, e)| (*place, self.auditor.confirm(e))).collect();
        let unsure = expects.iter().zip(&findings).any(|((place, expect), (_, finding))| {
            // On trust the process is not looked up: after the daemon's own start it is not known yet.
            let nameless = finding.listener.is_some()
                && finding.holder.is_none()
                && service.sockets.get(*place).is_some_and(|s| s.pid.is_none());
            nameless || is_suspicion(expect, finding)
        });
        if unsure {
            let expects = service.expects(false, some);
            findings = expects.iter().map(|(place, e)| (*place, self.auditor.confirm(e))).collect();
        }
        self.take_findings(name, subject, asked, findings, patient);
    }

    fn audit_there(&mut self, dirty: Dirty, trusted: bool) {
        let item = |(name, some): (Arc<str>, Option<BTreeSet<usize>>)| {
            let service = self.services.get(&name)?;
            // The thread asks for their processes.
            let owners = Owners::of(service);
            let expects = service.expects_unowned(trusted, some.as_ref());
            Some(Item { subject: Subject::of(service), name, owners, expects })
        };
        let batch: Vec<Item> = dirty.into_iter().filter_map(item).collect();
        self.give(Job::Audit(batch));
    }

    pub(super) fn ask_who_waits(&mut self) {
        self.give(Job::Waiting);
    }

    fn give(&mut self, job: Job) {
        self.audit_thread.busy = self.audit_thread.jobs.send(job).is_ok();
        if !self.audit_thread.busy {
            self.troubles.insert("audit", "the audit thread has ended; this is a bug of shimd".into());
        }
    }

    pub(super) fn all_dirty(&mut self) {
        self.dirty.extend(self.services.keys().map(|name| (name.clone(), None)));
    }

    /// The period: everything.
    pub(super) fn audit_all(&mut self) {
        if self.audit_thread.busy {
            self.all_dirty();
            return;
        }
        self.period += 1;
        // A watch that was refused may be had by now.
        self.watch_changed |= !self.watcher.unwatched().is_empty();
        // Those that have just been started are looked at all the time.
        let with_sockets =
            self.services.iter().filter(|(_, s)| !s.sockets.is_empty() && !s.is_just_starting());
        let all = with_sockets.map(|(name, _)| (name.clone(), None)).collect();
        self.audit_there(all, !self.period.is_multiple_of(OWNERS_EVERY));
    }

    pub(super) fn on_report(&mut self, report: Report) {
        self.audit_thread.busy = false;
        for (name, subject, findings) in report.findings {
            self.take_findings(&name, subject, report.asked, findings, true);
        }
    }

    /// `patient`: nobody waits for the answer.
    pub(super) fn take_findings(
        &mut self,
        name: &Arc<str>,
        subject: Subject,
        asked: Instant,
        mut findings: Found,
        patient: bool,
    ) {
        let Some(service) = self.services.get_mut(name) else { return };
        // A batch that was on its way while the service changed says nothing of what it is now.
        // Between the fork and its report the new instance's listener belongs to nobody that is known.
        if service.machine.phase == Phase::Spawning {
            return;
        }
        let same = Subject::of(service) == subject
            && findings
                .iter()
                .all(|(place, f)| service.sockets.get(*place).is_some_and(|s| s.place() == f.path));
        if !same {
            self.dirty.insert(name.clone(), None);
            return;
        }
        // A batch takes its time, and what it saw of a socket is over where a later look was taken meanwhile.
        let is_over = |(place, _): &mut (usize, Finding)| {
            service.sockets.get(*place).and_then(|s| s.looked).is_some_and(|looked| looked > asked)
        };
        let over: BTreeSet<usize> = findings.extract_if(.., is_over).map(|(place, _)| place).collect();
        if !over.is_empty()
            && let Some(some) = self.dirty.entry(name.clone()).or_insert_with(|| Some(BTreeSet::new()))
        {
            some.extend(over);
        }
        self.tell_early(name, &findings);
        let anew = self.publish_anew(name);
        if anew == Anew::Done {
            return;
        }
        let Some(service) = self.services.get_mut(name) else { return };
        let known: Vec<_> = service.sockets.iter().map(|s| s.known).collect();
        let mut news = Vec::new();
        let mut lost = Vec::new();
        let mut well = Vec::new();
        let phase = service.machine.phase;
        let wedged_after = service.live_spec().wedged_after;
        for (index, mut finding) in findings {
            // Between the two calls of our own that bind an `activate` socket.
            if matches!(phase, Phase::Preparing { .. }) && finding.bound_not_listening {
                continue;
            }
            let Some(socket) = service.sockets.get_mut(index) else { continue };
            let finding = &mut finding;
            socket.again = queues::weigh(&mut self.auditor, socket, finding, wedged_after);
            let done = self.blame.as_ref().map(|blame| culprits::deed(blame, socket, finding.verdict));
            let by = done.as_ref().ok().map(Option::as_ref);
            let settles = settling::settles(socket, finding, service.instance.as_ref(), by, !patient);
            if let Some(until) = settles.filter(|until| *until > asked) {
                socket.again = Some(until);
                continue;
            }
            // Before it is published there is no name to lose.
            let phase = if socket.is_private() { Phase::Spawning } else { phase };
            match healing::weigh(socket, finding, service.instance.as_ref(), phase, by, asked) {
                Heal::Now => lost.push((index, finding.clone())),
                Heal::Later(at) => {
                    socket.again = Some(socket.again.map_or(at, |again| again.min(at)));
                    self.waiting_to_heal.insert(name.clone());
                }
                Heal::No if finding.verdict == Verdict::Ok && !socket.is_private() => {
                    well.extend(socket.care.to_pin(finding).map(|ino| (index, ino)));
                }
                Heal::No => {}
            }
            let culprit = done.ok().flatten().map(|deed| culprits::named(&deed));
            let mark = strangers_mark(finding, &self.tag);
            let circumstances = Circumstances {
                lives: subject.lives,
                was_there: socket.served == Some(service.current),
                moved_in: socket.moved_in,
                mark: mark.as_ref().map(|(service, generation)| (service.as_str(), *generation)),
                service: name,
            };
            let reason = reasons::reason(finding, &circumstances);
            socket.take(finding, reason, asked, service.current);
            if finding.bound_not_listening && subject.lives {
                socket.look_for_listen();
            }
            if self.holds {
                socket.hold();
            }
            if socket.is_news(finding.verdict) {
                socket.culprit = culprit;
                news.push(index);
            }
        }
        // Before anything else: clients wait.
        let lost: Vec<_> =
            lost.into_iter().filter(|(index, finding)| self.heal(name, *index, finding)).collect();
        for (index, ino) in well {
            self.pin(name, index, ino);
        }
        let Some(service) = self.services.get_mut(name) else { return };
        let moved = service.sockets.iter().map(|s| s.known).ne(known);
        let next = service.sockets.iter().filter_map(|s| s.again);
        let next = next.chain((anew == Anew::Soon).then(|| Instant::now() + LISTENS)).min();
        if moved && service.instance.is_some() {
            self.store_listeners(name);
        }
        self.follow_queue(name, next);
        for index in news {
            self.record_verdict(name, index);
            self.wait_for_culprit(name, index);
        }
        if lost.is_empty() {
            return self.tell_serving(name);
        }
        for (index, finding) in &lost {
            self.record_healed(name, *index, finding.verdict == Verdict::Replaced);
        }
        // What was put back is in order before anybody hears that it was not. What is lost again at once is no longer
        // looked at in the same breath: others wait for their answers.
        let places = lost.into_iter().map(|(index, _)| index).collect();
        if std::mem::replace(&mut self.healing, true) {
            self.dirty.entry(name.clone()).or_insert(Some(places));
            let _ = self.sender.send(Message::Deeds);
        } else {
            self.audit_one(name, Some(&places), patient);
            self.healing = false;
        }
    }

    pub(super) fn store_listeners(&self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let record = |s: &Socket| {
            let id = s.known?;
            let boot_id = self.boot_id.clone();
            Some(ListenerRecord { path: s.path.clone(), inode: id.inode, cookie: id.cookie, boot_id })
        };
        let listeners = service.sockets.iter().filter_map(record).collect();
        self.store.note(Write::Listeners { name: name.to_string(), listeners });
    }

    fn tell_serving(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let serves = service.serves(&self.root);
        if service.machine.phase == Phase::Verifying && service.sockets.iter().any(|s| s.lost_for(LOST)) {
            // It has bound and lost its file: no waiting brings that back. The start has failed now.
            self.queue.push_back((name.clone(), Event::Timer(Timer::Start)));
            return;
        }
        let news = match service.machine.phase {
            Phase::Verifying | Phase::Impaired => serves,
            Phase::Running => !serves,
            _ => false,
        };
        if news {
            self.queue.push_back((name.clone(), Event::Serving(serves)));
        }
    }

    /// Before an answer that shows states: whatever `lstat` says has moved is audited first, so that no
    /// answer shows green for a dentry that is already gone.
    pub(super) fn refresh(&mut self, names: &[Arc<str>]) {
        // A report that came just now may be about to make one of them green.
        self.settle_queue();
        let moved =
            |s: &Service| s.machine.phase == Phase::Running && s.sockets.iter().any(Socket::has_moved);
        for name in names {
            if self.services.get(name).is_some_and(moved) {
                self.audit_here(name);
            }
        }
        self.settle_queue();
    }
}
