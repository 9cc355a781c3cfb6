//! Which folders changed: one inotify descriptor for them all, and `/proc/self/mountinfo` for mounts.
//!
//! A folder is watched along its path. Where it exists it is the *lowest* component that does; where it is
//! missing, its nearest existing ancestor is.
//!
//! | component | watched for | because |
//! | --- | --- | --- |
//! | the folder itself | its entries, their attributes, itself | sockets come and go |
//! | the lowest that exists, and its parent | their entries, themselves | `rm -rf` of a folder gives no DELETE_SELF while a listener bound inside is open, only a DELETE in its parent; a missing one comes back here |
//! | all above | themselves only | a rename of one takes the folder along without an event inside; its mode shuts clients out |
//!
//! One inode has one watch: paths that lead to the same folder share a descriptor and its mask. After any
//! event on a component, everything at and below it is looked at again (`add_watch` on an inode that is
//! still the same gives the same descriptor). A mount over a folder raises no inotify event: the mount
//! table does, and then every path is looked at again.
//!
//! Events say *look again*, no more: IN_CREATE comes before `listen`, which raises none.

#![allow(unsafe_code)] // registering a descriptor with tokio is unsafe

mod plan;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags as Mask, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use plan::{Uses, below, lowest_existing, roles};

/// How many reads (4 KiB of events each) are made before other tasks get their turn.
const READS_AT_ONCE: usize = 64;
/// How often a path is looked at again that changes while its watches are set.
const SETTLE_TRIES: usize = 8;

/// What happened, to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Something in a watched folder.
    Folder {
        /// The folder, as it was given to [`Watcher::set`].
        folder: PathBuf,
        /// The entry; `None` where it is the folder itself.
        name: Option<OsString>,
        /// What happened to it.
        kind: Change,
    },
    /// Events were lost: look at everything.
    Overflow,
    /// The mount table changed: any path may lead elsewhere now. Look at everything.
    Mounts,
}

/// What happened to an entry or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// An entry was made.
    Added,
    /// An entry was renamed to this name, over whatever had it.
    MovedIn,
    /// An entry was unlinked or renamed away.
    Removed,
    /// Permissions, owner or link count.
    Attributes,
    /// The folder itself came, went, or is another than before: look at all of it.
    Folder,
}

/// A folder that is not, or not wholly, watched: only the periodic audit sees to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: not watched ({}); its sockets are looked at every few seconds only", path.display(), errno.desc())]
pub struct Unwatched {
    /// The folder or the ancestor that could not be watched.
    pub path: PathBuf,
    /// `ENOSPC`: `fs.inotify.max_user_watches` is reached; `EMFILE`: `fs.inotify.max_user_instances`;
    /// `EACCES`: it may not be read.
    pub errno: Errno,
}

/// A component of some watched path.
#[derive(Debug, Default)]
struct Node {
    uses: Uses,
    wd: Option<WatchDescriptor>,
}

/// Watches folders; see the module's rules.
#[derive(Debug)]
pub struct Watcher {
    inotify: Option<AsyncFd<Descriptor>>,
    mounts: Option<AsyncFd<File>>,
    /// Each wanted folder, with the lowest component of its path that exists.
    folders: BTreeMap<PathBuf, PathBuf>,
    nodes: BTreeMap<PathBuf, Node>,
    paths: HashMap<WatchDescriptor, BTreeSet<PathBuf>>,
    unwatched: BTreeMap<PathBuf, Errno>,
    /// Why there is no inotify at all.
    blind: Option<Errno>,
    queue: VecDeque<WatchEvent>,
}

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watcher {
    /// Opens the descriptors. What cannot be had is left out and told by [`Watcher::unwatched`].
    ///
    /// Call it within a tokio runtime.
    pub fn new() -> Watcher {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .and_then(|inotify| register(Descriptor(inotify), Interest::READABLE).ok_or(Errno::EMFILE));
        let mounts = File::open("/proc/self/mountinfo").ok();
        let mounts = mounts.and_then(|file| register(file, Interest::PRIORITY));
        Watcher {
            blind: inotify.as_ref().err().copied(),
            inotify: inotify.ok(),
            mounts,
            folders: BTreeMap::new(),
            nodes: BTreeMap::new(),
            paths: HashMap::new(),
            unwatched: BTreeMap::new(),
            queue: VecDeque::new(),
        }
    }

    /// Says which folders to watch from now on: absolute paths, which need not exist. Watches that are
    /// already set stay as they are, and those that failed are tried again. Look at a folder once after it was
    /// added: what happened before gives no event.
    pub fn set(&mut self, folders: &BTreeSet<PathBuf>) {
        let gone: Vec<_> = self.folders.keys().filter(|f| !folders.contains(*f)).cloned().collect();
        for folder in gone {
            if let Some(lowest) = self.folders.remove(&folder) {
                self.release(&folder, &lowest);
            }
        }
        for folder in folders {
            if !self.folders.contains_key(folder) {
                self.place(folder);
            }
        }
        for path in self.unwatched.keys().cloned().collect::<Vec<_>>() {
            self.look_again(&path);
        }
    }

    /// What is not watched, and why.
    pub fn unwatched(&self) -> Vec<Unwatched> {
        let tell = |(path, errno): (&PathBuf, &Errno)| Unwatched { path: path.clone(), errno: *errno };
        match self.blind {
            Some(errno) => self.folders.keys().map(|folder| tell((folder, &errno))).collect(),
            None => self.unwatched.iter().map(tell).collect(),
        }
    }

    /// Whether mounts raise an event.
    pub fn sees_mounts(&self) -> bool {
        self.mounts.is_some()
    }

    /// The next event. Cancel-safe: an event that was not returned is returned by the next call.
    pub async fn next(&mut self) -> WatchEvent {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            self.wait().await;
        }
    }

    /// Waits for an event and appends all that are there. Cancel-safe, as [`Watcher::next`].
    pub async fn next_batch(&mut self, events: &mut Vec<WatchEvent>) {
        events.push(self.next().await);
        events.extend(self.queue.drain(..));
    }

    /// Waits until either descriptor has something, and takes it in. Nothing is lost between two awaits.
    async fn wait(&mut self) {
        let inotify = async {
            match &self.inotify {
                Some(fd) => fd.readable().await.ok().map_or_else(Vec::new, |mut guard| {
                    let (events, drained) = read_all(&guard.get_inner().0);
                    if drained {
                        guard.clear_ready();
                    }
                    events
                }),
                None => std::future::pending().await,
            }
        };
        let mounts = async {
            match &self.mounts {
                // The poll that woke us took the news; there is nothing to read.
                Some(fd) => match fd.ready(Interest::PRIORITY).await {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            events = inotify => self.take_in(events),
            () = mounts => {
                self.queue.push_back(WatchEvent::Mounts);
                self.look_again(Path::new("/"));
            }
        }
    }

    fn take_in(&mut self, events: Vec<InotifyEvent>) {
        for event in events {
            if event.mask.contains(Mask::IN_Q_OVERFLOW) {
                self.queue.push_back(WatchEvent::Overflow);
                self.look_again(Path::new("/"));
                continue;
            }
            // Unknown: an event that was queued before its watch was given up.
            let Some(paths) = self.paths.get(&event.wd).cloned() else { continue };
            if event.mask.contains(Mask::IN_IGNORED) {
                self.forget(event.wd);
            }
            for path in paths {
                self.happened(&path, &event);
            }
        }
    }

    fn happened(&mut self, path: &Path, event: &InotifyEvent) {
        let own = Mask::IN_DELETE_SELF | Mask::IN_MOVE_SELF | Mask::IN_UNMOUNT | Mask::IN_IGNORED;
        if event.mask.intersects(own) {
            return self.look_again(path);
        }
        let kind = if event.mask.contains(Mask::IN_CREATE) {
            Change::Added
        } else if event.mask.contains(Mask::IN_MOVED_TO) {
            Change::MovedIn
        } else if event.mask.intersects(Mask::IN_DELETE | Mask::IN_MOVED_FROM) {
            Change::Removed
        } else {
            Change::Attributes
        };
        if kind == Change::Attributes && event.name.is_none() {
            // Of a folder itself: whoever may search it may reach what is below.
            let folders: Vec<_> = below(&self.folders, path).map(|(folder, _)| folder.clone()).collect();
            for folder in folders {
                let event = WatchEvent::Folder { folder, name: None, kind };
                if !self.queue.contains(&event) {
                    self.queue.push_back(event);
                }
            }
        } else if self.folders.contains_key(path) {
            let event = WatchEvent::Folder { folder: path.into(), name: event.name.clone(), kind };
            if self.queue.back() != Some(&event) {
                self.queue.push_back(event);
            }
        }
        if kind != Change::Attributes
            && let Some(name) = &event.name
        {
            self.look_again(&path.join(name));
        }
    }

    /// Looks again at every component at or below `path`, and reports the folders that are others than before.
    fn look_again(&mut self, path: &Path) {
        let folders: Vec<_> = below(&self.folders, path).map(|(folder, _)| folder.clone()).collect();
        if folders.is_empty() {
            return;
        }
        let nodes: Vec<_> = below(&self.nodes, path).map(|(node, _)| node.clone()).collect();
        let changed: Vec<_> = nodes.into_iter().filter(|node| self.watch(node)).collect();
        for folder in folders {
            let before = self.folders.get(&folder).cloned();
            self.place(&folder);
            if before.as_ref() != self.folders.get(&folder)
                || changed.iter().any(|node| folder.starts_with(node))
            {
                let event = WatchEvent::Folder { folder, name: None, kind: Change::Folder };
                if !self.queue.contains(&event) {
                    self.queue.push_back(event);
                }
            }
        }
    }

    /// Sets the watches of one folder by what exists now; again, if that changed meanwhile.
    fn place(&mut self, folder: &Path) {
        for _ in 0..SETTLE_TRIES {
            let lowest = lowest_existing(folder);
            let before = self.folders.insert(folder.into(), lowest.clone());
            if before.as_ref() != Some(&lowest) {
                for (component, role) in roles(folder, &lowest) {
                    let node = self.nodes.entry(component.clone()).or_default();
                    let mask = node.uses.mask();
                    node.uses.add(role);
                    if node.wd.is_none() || node.uses.mask() != mask {
                        self.watch(&component);
                    }
                }
                if let Some(before) = before {
                    self.release(folder, &before);
                }
            }
            if lowest_existing(folder) == lowest {
                return;
            }
        }
    }

    /// Gives up what `folder` needed while `lowest` was the lowest that existed.
    fn release(&mut self, folder: &Path, lowest: &Path) {
        for (component, role) in roles(folder, lowest) {
            let Some(node) = self.nodes.get_mut(&component) else { continue };
            let mask = node.uses.mask();
            node.uses.remove(role);
            if node.uses.none() || node.uses.mask() != mask {
                self.watch(&component);
            }
        }
    }

    /// Brings the watch of one component in line with its uses and with the inode that lies there now.
    /// True where that is another inode than before, or none.
    fn watch(&mut self, path: &Path) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let Some(node) = self.nodes.get(path) else { return false };
        let before = node.wd;
        if node.uses.none() {
            self.nodes.remove(path);
            self.unwatched.remove(path);
            self.unlink(path, before);
            return false;
        }
        let inotify = &inotify.get_ref().0;
        let mask = node.uses.mask();
        let mut result = inotify.add_watch(path, mask | Mask::IN_ONLYDIR);
        // That replaced the mask of any other path to the same inode: what all of them want together.
        if let Ok(wd) = result
            && let Some(others) = self.paths.get(&wd)
        {
            let of = |other: &PathBuf| self.nodes.get(other).map_or(Mask::empty(), |node| node.uses.mask());
            let all = others.iter().map(of).fold(mask, Mask::union);
            if all != mask {
                result = inotify.add_watch(path, all | Mask::IN_ONLYDIR);
            }
        }
        match result {
            Ok(_) => self.unwatched.remove(path),
            // Not there: told by what comes next, and watched from above.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => self.unwatched.remove(path),
            Err(errno) => self.unwatched.insert(path.into(), errno),
        };
        let now = result.ok();
        if before == now {
            return false;
        }
        self.unlink(path, before);
        if let Some(wd) = now {
            self.paths.entry(wd).or_default().insert(path.into());
        }
        if let Some(node) = self.nodes.get_mut(path) {
            node.wd = now;
        }
        true
    }

    /// Takes `path` off a descriptor; the last path takes the watch along.
    fn unlink(&mut self, path: &Path, wd: Option<WatchDescriptor>) {
        let Some(wd) = wd else { return };
        let Some(paths) = self.paths.get_mut(&wd) else { return };
        paths.remove(path);
        if paths.is_empty() {
            self.paths.remove(&wd);
            if let Some(inotify) = &self.inotify {
                // EINVAL: the kernel has already dropped it with its inode.
                let _ = inotify.get_ref().0.rm_watch(wd);
            }
        }
    }

    /// The kernel has dropped this watch.
    fn forget(&mut self, wd: WatchDescriptor) {
        for path in self.paths.remove(&wd).into_iter().flatten() {
            if let Some(node) = self.nodes.get_mut(&path) {
                node.wd = None;
            }
        }
    }
}

impl Default for Watcher {
    fn default() -> Watcher {
        Watcher::new()
    }
}

/// Ties a descriptor to the runtime; `None` where epoll takes no more.
fn register<T: AsRawFd>(owned: T, interest: Interest) -> Option<AsyncFd<T>> {
    // SAFETY: both callers hand over a value that owns its descriptor and never exchanges it.
    unsafe { AsyncFd::register_with_interest(owned, interest) }.ok()
}

/// All events that are queued, and whether that was really all.
fn read_all(inotify: &Inotify) -> (Vec<InotifyEvent>, bool) {
    let mut all = Vec::new();
    for _ in 0..READS_AT_ONCE {
        match inotify.read_events() {
            Ok(events) => all.extend(events),
            Err(Errno::EINTR) => {}
            Err(_) => return (all, true),
        }
    }
    (all, false)
}

#[cfg(test)]
mod tests;
