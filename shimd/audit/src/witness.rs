//! A hold on the inode that was at a path, by which it can be said later what became of its dentry.
//!
//! The hold is an `O_PATH` descriptor. Taken while the socket is at its path, it follows the dentry from then on: where
//! it was renamed to, whether it was removed, whether its mount still hangs in the tree. It needs no right but that of
//! searching the folder, keeps the inode's number from being given away, connects to nothing, and does not keep the
//! socket itself open.
//!
//! An inode is bound by one socket in all its life. So of a file that the hold is on, and whose listener is known and has
//! gone, it is *proven* that nobody listens on it: no dump is needed, which may miss a live one. For this the two must be
//! known to belong together: [`Auditor::vouch`](crate::Auditor::vouch) looks while the listener lives, and keeps its own
//! inode's number from being given away.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};

use crate::bound::is_bound;
use crate::dentry::{Dentry, encode, mount_of};
use crate::listener::{Listener, ListenerId};

/// The hold; see the module's rules.
#[derive(Debug)]
pub struct Witness {
    file: OwnedFd,
    /// Device and inode of the folder that the dentry was in, where that is known.
    folder: Option<(u64, u64)>,
    /// Whose file it is, once that is certain.
    listener: OnceLock<ListenerId>,
}

/// Two are the same only if they are one.
impl PartialEq for Witness {
    fn eq(&self, other: &Witness) -> bool {
        self.file.as_raw_fd() == other.file.as_raw_fd()
    }
}

impl Eq for Witness {}

/// Where the dentry is, by the kernel's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// It has this path. That another mount may cover.
    At(PathBuf),
    /// It was removed, and had this path.
    Removed(PathBuf),
}

impl Witness {
    /// Takes hold of what lies at `path` now, links not followed.
    ///
    /// # Errors
    /// What open(2) says; ENOENT if nothing lies there.
    pub fn of(path: &Path) -> Result<Witness, Errno> {
        let file = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Witness { file, folder: path.parent().and_then(identity), listener: OnceLock::new() })
    }

    /// Of a descriptor that the kernel gave of a listener's file.
    pub(crate) fn holding(file: OwnedFd) -> Witness {
        Witness { file, folder: None, listener: OnceLock::new() }
    }

    /// Where the dentry is now, or was last.
    pub fn account(&self) -> Option<Account> {
        let path = fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()?;
        Some(match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
            // A name may end so by itself.
            Some(_) if self.lies_at(&path) => Account::At(path),
            Some(removed) => Account::Removed(OsStr::from_bytes(removed).into()),
            None => Account::At(path),
        })
    }

    /// Whether any socket is bound to it; `Some(false)` proves that nobody listens on it, nor ever will. `None`
    /// where the kernel does not say: no right to write to the file, no `/proc`, or no socket file.
    pub fn is_bound(&self) -> Option<bool> {
        is_bound(&self.file)
    }

    /// Device and inode of the file, as stat(2) tells them.
    pub fn id(&self) -> Option<(u64, u64)> {
        fstat(&self.file).ok().map(|held| (held.st_dev, held.st_ino))
    }

    /// The listener whose file this is for certain.
    pub fn listener(&self) -> Option<ListenerId> {
        self.listener.get().copied()
    }

    /// This file is that listener's, which lived after the hold was taken.
    pub(crate) fn is_of(&self, listener: &Listener) {
        let held = fstat(&self.file).ok();
        // The kernel tells the low half of an inode's number.
        if held.is_some_and(|held| listener.vfs.is_some_and(|vfs| vfs.ino == held.st_ino as u32)) {
            self.listener.get_or_init(|| listener.id());
        }
    }

    /// Whether it holds the inode of a dentry.
    pub(crate) fn is_at(&self, dentry: &Dentry) -> bool {
        fstat(&self.file).is_ok_and(|held| {
            let dev = encode(libc::major(held.st_dev), libc::minor(held.st_dev));
            (dev, held.st_ino) == (dentry.stat_dev, dentry.ino)
        })
    }

    /// The id of the mount that the dentry is on.
    pub(crate) fn mount(&self) -> Option<u64> {
        mount_of(&self.file)
    }

    /// Whether `folder` is the one that the dentry was in; `None` where that was not kept.
    pub(crate) fn was_in(&self, folder: &Path) -> Option<bool> {
        Some(identity(folder) == Some(self.folder?))
    }

    fn lies_at(&self, path: &Path) -> bool {
        let held = fs::metadata(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        let there = fs::symlink_metadata(path);
        held.ok().zip(there.ok()).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
    }
}

/// Device and inode of a folder; links followed.
fn identity(folder: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(folder).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn it_follows_the_dentry_through_renames_to_its_removal() {
        let folder = std::env::temp_dir().join(format!("socket-audit-witness-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let folder = fs::canonicalize(folder).unwrap();
        let (first, second) = (folder.join("a.sock"), folder.join("b (deleted)"));
        let _listener = UnixListener::bind(&first).unwrap();
        let witness = Witness::of(&first).unwrap();
        assert_eq!(witness.account(), Some(Account::At(first.clone())));
        assert_eq!(witness.was_in(&folder), Some(true));
        assert_eq!(witness.was_in(Path::new("/")), Some(false));
        fs::rename(&first, &second).unwrap();
        assert_eq!(witness.account(), Some(Account::At(second.clone())));
        fs::remove_file(&second).unwrap();
        assert_eq!(witness.account(), Some(Account::Removed(second)));
        assert_eq!(Witness::of(&first), Err(Errno::ENOENT));
        fs::remove_dir(&folder).unwrap();
    }
}
