//! Who removed or replaced a dentry: fanotify tells which process did it, while it does.
//!
//! Folders are marked, each with the names in it that matter; what happens to any other name is dropped before anybody
//! is looked at. For the rest the process is looked up at once, by threads that run before all ordinary ones: most
//! who unlink are gone within a millisecond. What is known is kept in a ring.
//!
//! | part | does |
//! | --- | --- |
//! | `event` | takes apart what the kernel writes |
//! | `marks` | folders, their handles, their names |
//! | `deeds` | which event is which deed; the ring |
//! | `who` | names the process |
//! | `reader` | the threads |
//!
//! A chmod of a folder is told on `.` in it, never on its name in its parent: so does the kernel.
//!
//! Limits. A deed through another path (a hard link elsewhere, for `chmod`) or before the mark was set is nobody's. A
//! process that runs another program right after its deed may be named by that one.
//!
//! Needs Linux 5.15 and CAP_SYS_ADMIN in the first user namespace: without it the kernel would not say who.

mod deeds;
mod event;
mod marks;
mod reader;
mod who;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

use deeds::Ring;
use marks::{Known, Marks};
use reader::Turn;

use super::pidfd::errno_of;

/// How often a folder is looked at again that changes while its mark is set.
const SETTLE_TRIES: usize = 8;
/// The stack of a thread: they are many, and need little.
const STACK: usize = 256 * 1024;

/// What somebody did to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// When it was read, which is microseconds after it was done.
    pub at: Instant,
    /// What was done.
    pub kind: DeedKind,
    /// The folder, as it was given to [`Blame::set`].
    pub folder: PathBuf,
    /// The name in it; `.` where the attributes of the folder itself were changed.
    pub name: OsString,
    /// Who did it.
    pub who: Who,
}

/// The ways to take a dentry away, replace it, or make it useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeedKind {
    /// Unlinked (or the folder of this name was removed).
    Removed,
    /// Renamed to another name or folder.
    MovedAway {
        /// Where to: folder and name, if that folder is marked too.
        to: Option<(PathBuf, OsString)>,
    },
    /// Something was renamed to this name, in place of what had it.
    MovedIn {
        /// Where from: folder and name, if that folder is marked too.
        from: Option<(PathBuf, OsString)>,
    },
    /// Made: bound, linked, opened anew.
    Created,
    /// Mode, owner or times were changed.
    Attributes,
}

impl DeedKind {
    /// True for all that change what lies at the name.
    pub fn replaces(&self) -> bool {
        *self != DeedKind::Attributes
    }
}

/// A process, as it was known when it acted. What could not be had any more is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its number (of the process, not of the thread), in the daemon's pid namespace; 0 outside it. A deed of the
    /// daemon itself has the daemon's own.
    pub pid: i32,
    /// Its command name (`/proc/<pid>/comm`). Empty where it was reaped before it could be asked: nobody is guessed.
    pub name: String,
    /// The path of its executable; `None` for a zombie and a kernel thread.
    pub exe: Option<String>,
    /// Its effective uid.
    pub uid: Option<u32>,
    /// The value of `SHIMD_INSTANCE` in its environ (see [`tree::mark`](super::tree::mark)); `None` for a zombie.
    pub mark: Option<String>,
}

/// Why nobody can be blamed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot tell who removes a socket: {action}: {}; {}", errno.desc(), help(*errno))]
pub struct BlameError {
    /// What was tried.
    pub action: &'static str,
    /// What the kernel answered.
    pub errno: Errno,
}

impl BlameError {
    /// What to do, or what to expect.
    pub fn help(&self) -> &'static str {
        help(self.errno)
    }
}

/// What is missing, for `proc doctor`.
fn help(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "it needs CAP_SYS_ADMIN in the first user namespace: run shimd as root, outside of an unprivileged container"
        }
        Errno::EINVAL => "this kernel is too old: it needs Linux 5.15 or newer (FAN_REPORT_PIDFD)",
        Errno::ENOSYS => "this kernel, or the sandbox, has no fanotify (CONFIG_FANOTIFY)",
        Errno::EMFILE | Errno::ENFILE => {
            "out of descriptors or of fanotify groups: see ulimit -n and fs.fanotify.max_user_groups"
        }
        Errno::ENOMEM | Errno::EAGAIN => "out of memory or threads",
        _ => "verdicts come without a culprit",
    }
}

/// Watches who does what to names in folders, until it is dropped.
#[derive(Debug)]
pub struct Blame {
    shared: Arc<Shared>,
    /// One [`Blame::set`] at a time.
    setting: Mutex<()>,
    mask: MaskFlags,
    end: Arc<EventFd>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    fanotify: Fanotify,
    /// Readable while a thread reads and looks.
    looking: EventFd,
    marks: Mutex<Marks>,
    ring: Mutex<Ring>,
}

/// What a thread that panicked left behind is still a table of marks or a ring of deeds.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Blame {
    /// Opens fanotify and starts the threads. `notify` is called on one of them after new deeds can be had: it must
    /// return at once, for nobody else is looked up meanwhile, and must not drop the `Blame`.
    ///
    /// # Errors
    /// [`BlameError`]; as an ordinary user always.
    pub fn start(notify: impl Fn() + Send + 'static) -> Result<Blame, BlameError> {
        let fail = |action| move |errno| BlameError { action, errno };
        let fanotify = Fanotify::init(init_flags(), EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)
            .map_err(fail("fanotify_init"))?;
        let eventfd = || EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let end = Arc::new(eventfd().map_err(fail("eventfd"))?);
        let looking = eventfd().map_err(fail("eventfd"))?;
        let mask = mask(&fanotify);
        let shared = Arc::new(Shared { fanotify, looking, marks: Mutex::default(), ring: Mutex::default() });
        let turn = Arc::new(Mutex::new(Turn::new(notify)));
        let mut blame = Blame { shared, setting: Mutex::default(), mask, end, threads: Vec::new() };
        for processor in [None].into_iter().chain(reader::processors().into_iter().map(Some)) {
            let (shared, end, turn) = (Arc::clone(&blame.shared), Arc::clone(&blame.end), Arc::clone(&turn));
            let thread = std::thread::Builder::new().name("blame".into()).stack_size(STACK);
            match thread.spawn(move || reader::run(&shared, &end, &turn, processor)) {
                Ok(thread) => blame.threads.push(thread),
                Err(e) if processor.is_none() => return Err(fail("start a thread")(errno_of(&e))),
                // One reads: that is enough, if not as sure.
                Err(_) => break,
            }
        }
        Ok(blame)
    }

    /// Says which folders to mark from now on, and which names in each matter; the name `.` stands for the
    /// attributes of the folder itself. Marks that are set stay, those that failed are tried again, a folder that was made
    /// again gets a new one. A folder that is not there is passed over: call again once it is.
    pub fn set(&self, wanted: &BTreeMap<PathBuf, BTreeSet<OsString>>) {
        let _one = lock(&self.setting);
        let besides = lock(&self.shared.marks).besides(wanted);
        for folder in besides {
            self.give_up_one(&folder);
        }
        for (folder, names) in wanted {
            self.put_one(folder, names);
        }
    }

    /// Marks one folder, or says anew which names in it matter; the others stay as they are.
    pub fn put(&self, folder: &Path, names: &BTreeSet<OsString>) {
        let _one = lock(&self.setting);
        self.put_one(folder, names);
    }

    /// Takes the mark off one folder.
    pub fn give_up(&self, folder: &Path) {
        let _one = lock(&self.setting);
        self.give_up_one(folder);
    }

    fn put_one(&self, folder: &Path, names: &BTreeSet<OsString>) {
        match self.place(folder, names) {
            Ok(()) => drop(lock(&self.shared.marks).unmarked.remove(folder)),
            Err(errno) => {
                let mut marks = lock(&self.shared.marks);
                marks.forget(folder);
                if !matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) {
                    marks.unmarked.insert(folder.into(), errno);
                }
            }
        }
    }

    /// The folders that exist and cannot be marked, and why (`EOPNOTSUPP`, `ENODEV` and `EXDEV`: their file system
    /// has no file handles or no id). What is done there is nobody's.
    pub fn unmarked(&self) -> Vec<(PathBuf, Errno)> {
        lock(&self.shared.marks).unmarked.iter().map(|(folder, errno)| (folder.clone(), *errno)).collect()
    }

    /// The newest deed since then that changed what lies at this name: see [`DeedKind::replaces`].
    pub fn latest(&self, folder: &Path, name: &OsStr, since: Instant) -> Option<Deed> {
        let ring = lock(&self.shared.ring);
        let of_it = |deed: &&Deed| deed.folder == folder && deed.name == name && deed.kind.replaces();
        ring.newest(since).find(of_it).cloned()
    }

    /// All deeds since then, the oldest first. Only the last few thousand are kept.
    pub fn deeds_since(&self, since: Instant) -> Vec<Deed> {
        lock(&self.shared.ring).newest(since).rev().cloned().collect()
    }

    /// Marks what lies at `folder`. It is in the table before it is marked, so that no event is of an unknown folder.
    fn place(&self, folder: &Path, names: &BTreeSet<OsString>) -> Result<(), Errno> {
        let mut before = lock(&self.shared.marks).known(folder).cloned();
        for _ in 0..SETTLE_TRIES {
            let now = Known::look(folder, before.as_ref())?;
            let other = lock(&self.shared.marks).enter(folder, &now, names);
            // Also where it is the same: an unmount takes the marks along, and what is mounted again looks as before.
            self.mark(MarkFlags::FAN_MARK_ADD, folder)?;
            if !other {
                return Ok(());
            }
            before = Some(now);
        }
        Err(Errno::EAGAIN)
    }

    /// Takes a folder out of the table, and its mark off if it is still there.
    fn give_up_one(&self, folder: &Path) {
        let before = lock(&self.shared.marks).known(folder).cloned();
        let last = lock(&self.shared.marks).forget(folder);
        if let (Some(before), Some(id)) = (before, last)
            && Known::look(folder, Some(&before)).is_ok_and(|now| now.id == id)
        {
            // ENOENT: another folder has just come there. Its mark, if any, is set by its own path.
            let _ = self.mark(MarkFlags::FAN_MARK_REMOVE, folder);
        }
    }

    fn mark(&self, what: MarkFlags, folder: &Path) -> Result<(), Errno> {
        self.shared.fanotify.mark(what | MarkFlags::FAN_MARK_ONLYDIR, self.mask, AT_FDCWD, Some(folder))
    }
}

impl Drop for Blame {
    fn drop(&mut self) {
        // Cannot fail: the counter of an eventfd is full after 2^64 writes.
        let _ = self.end.write(1);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The queue and the marks are without limit: what overflows is lost, and asking for it is what keeps those out who
/// would not be told the process.
fn init_flags() -> InitFlags {
    InitFlags::FAN_CLASS_NOTIF
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_QUEUE
        | InitFlags::FAN_UNLIMITED_MARKS
        | InitFlags::FAN_REPORT_PIDFD
        | InitFlags::from_bits_retain(libc::FAN_REPORT_DFID_NAME)
}

/// What is marked: with RENAME, which has both ends in one event, where the kernel knows it.
fn mask(fanotify: &Fanotify) -> MaskFlags {
    let common = MaskFlags::FAN_DELETE
        | MaskFlags::FAN_CREATE
        | MaskFlags::FAN_ATTRIB
        | MaskFlags::FAN_ONDIR
        | MaskFlags::FAN_EVENT_ON_CHILD;
    let rename = common | MaskFlags::FAN_RENAME;
    // The mask is checked before the path, of which there is none.
    match fanotify.mark(MarkFlags::FAN_MARK_ADD, rename, AT_FDCWD, Some("")) {
        Err(Errno::EINVAL) => common | MaskFlags::FAN_MOVED_FROM | MaskFlags::FAN_MOVED_TO,
        _ => rename,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_is_missing() {
        let told = |errno| BlameError { action: "fanotify_init", errno }.to_string();
        assert!(told(Errno::EPERM).contains("needs CAP_SYS_ADMIN"), "{}", told(Errno::EPERM));
        assert!(told(Errno::EINVAL).contains("needs Linux 5.15"));
        assert!(told(Errno::ENOSYS).contains("no fanotify"));
        assert!(told(Errno::EMFILE).contains("max_user_groups"));
    }
}
