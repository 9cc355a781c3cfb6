//! The sockets of one service: looked at, pinned, put back.
//!
//! What is to be done is [`care`](super::care)'s to say; here it is done. Who took a dentry away is known as root only
//! (fanotify); else whoever it was has [`Plan::settle`] to bring it back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;
use socket_audit::{AuditError, Auditor, DentryKind, Expect, Finding, ListenerId, Owner, Verdict, Witness};

use super::args::{Declared, Plan};
use super::care::{Care, Doer, Sight, Step};
use super::sweep::{self, SweepError};
use super::tell;
use crate::supervisor::culprits::{self, Wanted};
use crate::supervisor::pins::{Pins, nobody_listens};
use crate::supervisor::prevention::Guards;
use crate::sys::blame::{Blame, Deed};
use crate::sys::pin::{LinkError, Pin};
use crate::sys::tree;
use crate::sys::watch::WatchEvent;

/// What has no event is looked at so often.
const PERIOD: Duration = Duration::from_secs(5);
/// A socket that is not there yet: the first pause, which then doubles …
const FIRST: Duration = Duration::from_millis(1);
/// … up to this.
const LONGEST: Duration = Duration::from_millis(200);
/// What cannot be put back now (a full disk) is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// One socket.
struct Kept {
    declared: Declared,
    /// Where the service binds in this generation.
    bound: PathBuf,
    published: bool,
    care: Care,
    known: Option<ListenerId>,
    witness: Option<Arc<Witness>>,
    pin: Option<Pin>,
    verdict: Option<Verdict>,
    reason: String,
    /// When the last look that found it `ok` began.
    well_at: Instant,
    look_at: Instant,
    pause: Duration,
    /// What was said last, so that it is not said again.
    said: Option<String>,
}

/// All of them.
pub struct Sockets {
    plan: Arc<Plan>,
    list: Vec<Kept>,
    auditor: Auditor,
    pins: Pins,
    guards: Guards,
    blame: Option<Blame>,
    wanted: Wanted,
    /// `SHIMD_INSTANCE` of the service's processes.
    mark: String,
}

impl Sockets {
    /// Of a plan.
    ///
    /// # Errors
    /// Where the kernel cannot be asked about sockets.
    pub fn new(plan: &Arc<Plan>) -> Result<Sockets, AuditError> {
        let now = Instant::now();
        let kept = |declared: &Declared| Kept {
            bound: declared.path.clone(),
            declared: declared.clone(),
            published: false,
            care: Care::default(),
            known: None,
            witness: None,
            pin: None,
            verdict: None,
            reason: String::new(),
            well_at: now,
            look_at: now,
            pause: FIRST,
            said: None,
        };
        let list: Vec<Kept> = plan.sockets.iter().map(kept).collect();
        let mut wanted = Wanted::new();
        for socket in list.iter().filter(|socket| !socket.declared.is_abstract()) {
            culprits::names_on(&socket.declared.path, &mut wanted);
        }
        // No service of another user's home has its sockets below our root; without one, there is none.
        let env = |name: &str| std::env::var_os(name);
        let root = shimd_api::paths::socket_root(&env).unwrap_or_else(|_| "/dev/null".into());
        let mark = std::env::var(crate::sys::spawn::MARK_VARIABLE).unwrap_or_else(|_| plan.mark.clone());
        let tag = tree::home_tag(Path::new(&plan.mark.rsplit_once('/').map_or("", |(ours, _)| ours)));
        let pins = Pins::new(&root, &tag);
        let auditor = Auditor::new()?;
        Ok(Sockets {
            plan: plan.clone(),
            list,
            auditor,
            pins,
            guards: Guards::new(),
            blame: None,
            wanted,
            mark,
        })
    }

    /// Looks from now on who takes a dentry away; as an ordinary user nobody is known. `seen` is called when it may be.
    pub fn watch_doers(&mut self, seen: impl Fn() + Send + 'static) {
        if !self.wanted.is_empty() {
            self.blame = Blame::start(seen).ok();
            self.mark_folders();
        }
    }

    /// The folders to watch.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let of = |socket: &Kept| socket.declared.path.parent().map(Path::to_owned);
        self.list.iter().filter(|socket| !socket.declared.is_abstract()).filter_map(of).collect()
    }

    /// Clears the way for a spawn.
    ///
    /// # Errors
    /// Why it is not free.
    pub fn sweep(&mut self) -> Result<(), SweepError> {
        for path in sweep::sweep(&self.plan, &mut self.auditor)? {
            tell(format_args!("{}: removed a stale socket", path.display()));
        }
        Ok(())
    }

    /// A generation is about to be spawned.
    pub fn begin(&mut self, generation: u32) {
        self.guards.drop_all();
        for socket in &mut self.list {
            socket.care.begin();
            socket.bound = socket.declared.bound(generation);
            socket.published = socket.declared.private.is_none();
            (socket.known, socket.witness, socket.verdict, socket.said) = (None, None, None, None);
            socket.reason.clear();
            (socket.look_at, socket.pause) = (Instant::now(), FIRST);
        }
    }

    /// Whether clients can connect to each.
    pub fn all_ok(&self) -> bool {
        self.list.iter().all(|socket| socket.published && socket.verdict == Some(Verdict::Ok))
    }

    /// One line for a person to read.
    pub fn status(&self) -> String {
        let ill = self.list.iter().find(|socket| socket.verdict != Some(Verdict::Ok) || !socket.published);
        match ill {
            None if self.list.len() == 1 => "the socket is ok".into(),
            None => format!("all {} sockets are ok", self.list.len()),
            Some(socket) => {
                let verdict = socket.verdict.map_or("not looked at yet", Verdict::as_str);
                let reason =
                    if socket.reason.is_empty() { String::new() } else { format!(": {}", socket.reason) };
                format!("{}: {verdict}{reason}", socket.declared.path.display())
            }
        }
    }

    /// When to look next.
    pub fn next_look(&self) -> Option<Instant> {
        self.list.iter().map(|socket| socket.look_at).min()
    }

    /// Something happened in a folder.
    pub fn on_event(&mut self, event: &WatchEvent) {
        let now = Instant::now();
        match event {
            WatchEvent::Folder { folder, name, kind } => {
                if *kind == crate::sys::watch::Change::Folder {
                    self.mark_folders();
                }
                for socket in &mut self.list {
                    let name = name.as_deref();
                    let ours = |path: &Path| {
                        path.parent() == Some(folder) && name.is_none_or(|n| path.file_name() == Some(n))
                    };
                    if ours(&socket.declared.path) || ours(&socket.bound) {
                        (socket.look_at, socket.pause) = (now, FIRST);
                    }
                }
            }
            WatchEvent::Overflow | WatchEvent::Mounts => {
                self.mark_folders();
                for socket in &mut self.list {
                    socket.look_at = now;
                }
            }
        }
    }

    /// It may be known by now who took a dentry away.
    pub fn on_deeds(&mut self) {
        let now = Instant::now();
        for socket in self.list.iter_mut().filter(|socket| socket.care.missed().is_some()) {
            socket.look_at = now;
        }
    }

    /// Looks at each whose time has come, and does what is to be done. True if one can only be had back by a restart.
    pub fn look(&mut self, pids: &dyn Fn() -> Vec<i32>) -> bool {
        let now = Instant::now();
        let due: Vec<usize> = (0..self.list.len())
            .filter(|at| self.list.get(*at).is_some_and(|socket| socket.look_at <= now))
            .collect();
        due.into_iter().any(|at| self.look_at(at, pids))
    }

    fn look_at(&mut self, at: usize, pids: &dyn Fn() -> Vec<i32>) -> bool {
        let began = Instant::now();
        if self.is_not_there_yet(at, began) {
            return false;
        }
        let Some(finding) = self.find(at, pids) else { return false };
        if finding.verdict == Verdict::Ok && self.list.get(at).is_some_and(|socket| !socket.published) {
            return self.publish(at) && self.look_at(at, pids);
        }
        let deed = self.deed(at, finding.verdict);
        let by_other = deed.as_ref().is_some_and(|deed| self.is_others(deed, pids));
        let Some(socket) = self.list.get_mut(at) else { return false };
        let sight = Sight {
            verdict: finding.verdict,
            dead_in_place: finding.others.is_empty()
                && !finding.bound_not_listening
                && finding.dentry.is_some_and(|dentry| dentry.kind == DentryKind::Socket),
            doer: if by_other { Doer::Other } else { Doer::Unsure },
            pinned: socket.pin.as_ref().is_some_and(|pin| is_of(pin, &finding)),
        };
        socket.verdict = Some(finding.verdict);
        socket.reason = finding.reason.clone().into_owned();
        let step = socket.care.step(sight, self.plan.on_missing, self.plan.settle, began);
        match step {
            Step::Keep => {
                self.keep(at, &finding, began);
                self.mind_guards();
            }
            Step::Await => {
                socket.look_at = Instant::now() + socket.pause;
                socket.pause = (socket.pause * 2).min(LONGEST);
                if socket.care.was_well() || !matches!(finding.verdict, Verdict::Absent | Verdict::Unknown) {
                    self.say_verdict(at, deed.as_ref());
                }
            }
            Step::Settle(until) => socket.look_at = until,
            Step::LinkBack | Step::Exchange => {
                return self.put_back(at, step == Step::Exchange, deed.as_ref(), pids);
            }
            Step::Restart => {
                self.say_verdict(at, deed.as_ref());
                return true;
            }
            Step::Say => {
                socket.look_at = Instant::now() + PERIOD;
                self.say_verdict(at, deed.as_ref());
            }
        }
        false
    }

    /// Whether nothing has been bound yet: one lstat(2), and no audit of what nobody has missed.
    fn is_not_there_yet(&mut self, at: usize, now: Instant) -> bool {
        let Some(socket) = self.list.get_mut(at) else { return true };
        let path = if socket.published { &socket.declared.path } else { &socket.bound };
        if socket.known.is_some() || socket.declared.is_abstract() || path.symlink_metadata().is_ok() {
            return false;
        }
        socket.verdict = Some(Verdict::Absent);
        socket.reason = "the service has not bound it yet".into();
        socket.look_at = now + socket.pause;
        socket.pause = (socket.pause * 2).min(LONGEST);
        true
    }

    /// The shortest way that tells: the known listener by itself, else all of the service's processes.
    fn find(&mut self, at: usize, pids: &dyn Fn() -> Vec<i32>) -> Option<Finding> {
        let socket = self.list.get(at)?;
        let path = if socket.published { &socket.declared.path } else { &socket.bound };
        let mut expect = Expect {
            known: socket.known,
            owner: Owner::Trusted,
            witness: socket.witness.clone(),
            ..Expect::path(path)
        };
        if expect.known.is_some() {
            let finding = self.auditor.confirm(&expect);
            if matches!(finding.verdict, Verdict::Ok | Verdict::Dangling) {
                return Some(finding);
            }
        }
        expect.owner = Owner::Pids(pids());
        Some(self.auditor.confirm(&expect))
    }

    /// It is `ok`: known, held and pinned.
    fn keep(&mut self, at: usize, finding: &Finding, began: Instant) {
        let Some(socket) = self.list.get_mut(at) else { return };
        (socket.well_at, socket.look_at, socket.pause) = (began, Instant::now() + PERIOD, FIRST);
        if socket.said.take().is_some() {
            tell(format_args!("{}: ok", socket.declared.path.display()));
        }
        let Some(listener) = &finding.listener else { return };
        if socket.known != Some(listener.id()) {
            socket.known = Some(listener.id());
            socket.witness = Witness::of(&socket.declared.path).ok().map(Arc::new);
        }
        let Some(vfs) = listener.vfs.filter(|_| !socket.declared.is_abstract()) else { return };
        if socket.pin.as_ref().is_some_and(|pin| pin.is_of(vfs.ino) && pin.holds()) {
            return;
        }
        // It was bound anew: the pin moves to the new inode.
        if let Some(old) = socket.pin.take() {
            old.remove();
        }
        match self.pins.make("wrap", &socket.declared.path, vfs.ino) {
            Ok(pin) => socket.pin = Some(pin),
            Err(error) => {
                let words = error.to_string();
                if socket.said.as_ref() != Some(&words) {
                    tell(format_args!("{words}"));
                }
                socket.said = Some(words);
            }
        }
    }

    /// Keeps cleaners by age from the folders of what is served, and of its pins.
    fn mind_guards(&mut self) {
        let visited = |kept: &&Kept| {
            kept.known.is_some() && !kept.declared.is_abstract() && self.guards.visited(&kept.declared.path)
        };
        let served: Vec<&Kept> = self.list.iter().filter(visited).collect();
        let pins = served.iter().filter_map(|kept| kept.pin.as_ref()).map(|pin| pin.folder().path());
        let folders = served.iter().filter_map(|kept| kept.declared.path.parent()).chain(pins);
        let folders: BTreeSet<PathBuf> = folders.map(Path::to_owned).collect();
        let well = served.iter().filter(|kept| kept.verdict == Some(Verdict::Ok));
        self.guards.mind(&folders, well.map(|kept| kept.declared.path.as_path()));
    }

    /// Gives a socket that the service serves under a private name its public one; true if that was done.
    fn publish(&mut self, at: usize) -> bool {
        let Some(socket) = self.list.get_mut(at) else { return false };
        // A hard link, which replaces nothing; what lies there was cleaned before the spawn.
        match linkat(AT_FDCWD, &socket.bound, AT_FDCWD, &socket.declared.path, AtFlags::empty()) {
            Ok(()) => {
                socket.published = true;
                true
            }
            Err(errno) => {
                let path = socket.declared.path.display();
                let words = match errno {
                    Errno::EEXIST => format!(
                        "{path}: something came to lie here, and nothing is published over it; remove it"
                    ),
                    _ => format!(
                        "{path}: cannot be published: {}; let wrap's user write in the folder",
                        errno.desc()
                    ),
                };
                socket.look_at = Instant::now() + AGAIN;
                say(socket, words);
                false
            }
        }
    }

    /// Puts a lost dentry back; true if only a restart can.
    fn put_back(
        &mut self,
        at: usize,
        exchange: bool,
        deed: Option<&Deed>,
        pids: &dyn Fn() -> Vec<i32>,
    ) -> bool {
        let Some(socket) = self.list.get_mut(at) else { return false };
        let (now, path) = (Instant::now(), socket.declared.path.clone());
        let Some(pin) = &socket.pin else { return true };
        let auditor = &mut self.auditor;
        let done = match exchange {
            true => pin.exchange_dead(&path, &mut |path| nobody_listens(auditor, path)),
            false => pin.link_back(&path).map(drop),
        };
        socket.care.repaired(now);
        match done {
            Ok(()) => {
                let verdict = socket.verdict.map_or("", Verdict::as_str);
                let (how, by) =
                    (if exchange { "exchanged for a dead file" } else { "linked back" }, by(deed));
                let missed = socket.care.missed().map_or(Duration::ZERO, |missed| missed.elapsed());
                let worn = if socket.care.is_worn() {
                    "; removed again and again, it is put back ever more rarely: stop whoever does it"
                } else {
                    ""
                };
                tell(format_args!("{}: {verdict}{by}; {how} after {missed:.1?}{worn}", path.display()));
                socket.look_at = now;
                self.look_at(at, pids)
            }
            Err(LinkError::Occupied { .. }) => {
                // It changed under the look: the next one sees what it is.
                socket.look_at = now + FIRST;
                false
            }
            Err(error) => {
                say(socket, error.to_string());
                socket.look_at = now + AGAIN;
                match error {
                    LinkError::NoPin { .. } => true,
                    LinkError::Refused { errno, .. } => matches!(errno, Errno::EXDEV | Errno::EPERM),
                    LinkError::Occupied { .. } | LinkError::Folder(_) => false,
                }
            }
        }
    }

    /// Removes the pins: what goes now is to go.
    pub fn unpin(&mut self) {
        for pin in self.list.iter_mut().filter_map(|socket| socket.pin.take()) {
            pin.remove();
        }
        self.pins.tidy();
    }

    /// The service is gone: what it cannot have removed itself, since it never knew the name, is removed.
    pub fn end(&mut self) {
        self.unpin();
        for socket in self.list.iter().filter(|socket| socket.declared.private.is_some()) {
            sweep::remove_dead(&socket.bound, &mut self.auditor);
            sweep::remove_dead(&socket.declared.path, &mut self.auditor);
        }
    }

    fn say_verdict(&mut self, at: usize, deed: Option<&Deed>) {
        let Some(socket) = self.list.get_mut(at) else { return };
        let verdict = socket.verdict.map_or("", Verdict::as_str);
        let words = format!("{}: {verdict}: {}{}", socket.declared.path.display(), socket.reason, by(deed));
        say(socket, words);
    }

    fn mark_folders(&self) {
        if let Some(blame) = &self.blame {
            blame.set(&self.wanted);
        }
    }

    /// What took the dentry away, if it is known.
    fn deed(&self, at: usize, verdict: Verdict) -> Option<Deed> {
        let (blame, socket) = (self.blame.as_ref()?, self.list.get(at)?);
        if matches!(verdict, Verdict::Ok | Verdict::Unknown) || !socket.care.was_well() {
            return None;
        }
        culprits::last(blame, &socket.declared.path, socket.well_at, |deed| deed.kind.replaces())
    }

    /// Whether it was certainly none of the service's processes. One that was gone too soon may have been.
    fn is_others(&self, deed: &Deed, pids: &dyn Fn() -> Vec<i32>) -> bool {
        let who = &deed.who;
        // A zombie has neither an executable nor a mark.
        who.exe.is_some() && who.mark.as_ref() != Some(&self.mark) && !pids().contains(&who.pid)
    }
}

fn is_of(pin: &Pin, finding: &Finding) -> bool {
    finding.listener.as_ref().and_then(|listener| listener.vfs).is_some_and(|vfs| pin.is_of(vfs.ino))
}

fn by(deed: Option<&Deed>) -> String {
    let known = deed.filter(|deed| !deed.who.name.is_empty());
    known.map_or_else(String::new, |deed| format!(", by {} (pid {})", deed.who.name, deed.who.pid))
}

fn say(socket: &mut Kept, words: String) {
    if socket.said.as_ref() != Some(&words) {
        tell(format_args!("{words}"));
        socket.said = Some(words);
    }
}
