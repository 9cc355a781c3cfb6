//! What became of a dentry that is lost while its listener lives.
//!
//! Two sides are compared: where the kernel says that the dentry is (its [`Witness`]), and what the path leads to now.
//!
//! | the dentry | and the path | cause |
//! | --- | --- | --- |
//! | removed | its folder is another, or gone | the folder was removed |
//! | removed | else | removed |
//! | on a mount that is gone from the tree | | unmounted |
//! | at this very path | | mounted over |
//! | at another path, same name | its folder is another, or gone | the folder was moved |
//! | at another path | else | renamed |
//! | unknown: nothing was kept, and the listener may not be asked | its folder is on another file system | mounted over, or unmounted |
//! | unknown | the same, in no tree but that of its process's mount namespace | bound where only that sees it |
//! | unknown | its folder is gone | the folder was removed or moved |
//! | unknown | else nothing lies there | removed or renamed |

use std::path::{Path, PathBuf};

use crate::dentry::Mounts;
use crate::listener::Vfs;
use crate::witness::{Account, Witness};

/// See the module's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Unlinked, or replaced by a rename.
    Removed,
    /// Renamed to this path.
    Renamed(PathBuf),
    /// The folder was removed with all in it.
    FolderRemoved,
    /// The folder, or one above it, was renamed: this is the folder's path now.
    FolderMoved(PathBuf),
    /// Another file system hides it.
    MountedOver {
        /// The mount point.
        at: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// Its file system was taken out of the tree.
    Unmounted,
    /// It was bound on a file system that only its process's mount namespace has.
    OwnMount,
    /// Its folder is not there any more.
    FolderLost,
    /// It is not in its folder any more.
    Lost,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Removed => f.write_str("removed"),
            Cause::Renamed(to) => write!(f, "renamed to {}", to.display()),
            Cause::FolderRemoved => f.write_str("its folder was removed"),
            Cause::FolderMoved(to) => write!(f, "its folder was moved to {}", to.display()),
            Cause::MountedOver { at, kind } => {
                write!(f, "mounted over by a {kind} mount at {}", at.display())
            }
            Cause::Unmounted => f.write_str("unmounted"),
            Cause::OwnMount => f.write_str(
                "bound on a file system that only its process sees, in a mount namespace of its own",
            ),
            Cause::FolderLost => f.write_str("its folder was removed or moved"),
            Cause::Lost => f.write_str("removed or renamed"),
        }
    }
}

/// The cause, for a path whose dentry is not there; `None` where the two sides do not tell.
pub(crate) fn cause(path: &Path, witness: &Witness, mounts: &mut Mounts) -> Option<Cause> {
    let folder = path.parent()?;
    let other_folder = || match witness.was_in(folder) {
        Some(same) => !same,
        None => !folder.is_dir(),
    };
    match witness.account()? {
        Account::Removed(_) if other_folder() => Some(Cause::FolderRemoved),
        Account::Removed(_) => Some(Cause::Removed),
        Account::At(now) => {
            if witness.mount().is_some_and(|mount| !mounts.has(mount)) {
                return Some(Cause::Unmounted);
            }
            let canonical =
                std::fs::canonicalize(folder).ok().map(|folder| folder.join(path.file_name()?).into());
            if now == path || canonical.flatten().is_some_and(|path: PathBuf| path == now) {
                let (at, kind) = mounts.covering(folder).or_else(|| mounts.covering(path))?;
                return Some(Cause::MountedOver { at, kind });
            }
            match now.parent() {
                Some(moved) if now.file_name() == path.file_name() && other_folder() => {
                    Some(Cause::FolderMoved(moved.to_owned()))
                }
                _ => Some(Cause::Renamed(now)),
            }
        }
    }
}

/// What the folder alone tells of a listener's dentry that is not there.
pub(crate) fn guess(path: &Path, bound: Vfs, mounts: &mut Mounts) -> Option<Cause> {
    let Some(folder) = mounts.follow(path.parent()?).ok()? else { return Some(Cause::FolderLost) };
    if folder.dev == bound.dev {
        return Some(Cause::Lost);
    }
    if !mounts.has_device(bound.dev) {
        return Some(Cause::Unmounted);
    }
    let (at, kind) = mounts.covering(path.parent()?)?;
    Some(Cause::MountedOver { at, kind })
}
