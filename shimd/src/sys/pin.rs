//! A pin: a hard link to a live socket's inode, from which a lost dentry is put back.
//!
//! | what is done | call | what it rules out |
//! | --- | --- | --- |
//! | made | `linkat(socket → pin)`, then a look at what was linked | the link of something that took the socket's place just now |
//! | linked back | `linkat(pin → socket)` | anything that lies there: link(2) replaces nothing |
//! | exchanged | a second link, `renameat2(RENAME_EXCHANGE)` with a dead socket file, a look at what came out | a moment without a file; the loss of something that was not the dead socket |
//! | removed | `unlinkat`, if it is still this inode's | another's pin |
//!
//! A hard link does not leave its mount, so a pin lies on the socket's own: in `.shimd` below the root of Hero-style
//! sockets, else in `.shimd-<uid>` beside the socket's folder, or beside the nearest folder above it that will do; only
//! where none does, in the socket's folder itself. Outside that folder, since `rm -rf` takes all of it. The folder of
//! pins is nobody else's (0700). With `fs.protected_hardlinks` a socket can be linked by its owner and by CAP_FOWNER.
//!
//! While the pin is there no other file can get its inode number: the number and a live listener that the kernel names
//! by the same number are proof that the pin leads to that listener.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, open, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

use super::folder::{self, FolderError, FolderProblem};

mod above;
#[cfg(test)]
mod tests;

pub use above::Above;

/// The folder of pins below a root of ours.
const FOLDER: &str = ".shimd";
/// So far above a socket's folder a place for its pin is looked for.
const HIGHEST: usize = 4;

/// An inode, by `st_dev` and `st_ino`. It means a socket for as long as that socket's listener, or its pin, is there.
pub type Inode = (u64, u64);

/// The inode that a name in a folder leads to; `None` where there is none, or it cannot be looked at.
pub fn inode_at(folder: &OwnedFd, name: &OsStr) -> Option<Inode> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok().map(|stat| inode_of(&stat))
}

/// Removes a name, if it is this inode's. What cannot be looked at or removed stays: a later sweep finds it.
pub fn remove_if(folder: &OwnedFd, name: &OsStr, inode: Inode) {
    if inode_at(folder, name) == Some(inode) {
        let _ = unlinkat(folder, name, UnlinkatFlags::NoRemoveDir);
    }
}

fn inode_of(stat: &FileStat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

fn is_socket(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
}

/// Why a socket has no pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: no pin can be made: {problem}; {help}", path.display())]
pub struct PinError {
    /// The socket.
    pub path: PathBuf,
    /// The system's error; of what lies in the way, `EEXIST`, `ENOTDIR`, `ELOOP` or `EPERM`.
    pub errno: Errno,
    /// What was tried, and where.
    pub problem: String,
    /// What to do about it.
    pub help: &'static str,
}

impl PinError {
    /// There is no place at all for it.
    pub fn nowhere(path: &Path) -> PinError {
        PinError::new(path, Errno::EXDEV, "no other folder lies on its mount".into())
    }

    /// No folder of pins can be had.
    pub fn folder(path: &Path, error: &FolderError) -> PinError {
        let errno = match error.problem {
            FolderProblem::NotAFolder => Errno::ENOTDIR,
            FolderProblem::Link => Errno::ELOOP,
            FolderProblem::OthersOwn { .. } => Errno::EACCES,
            FolderProblem::Refused { errno, .. } => errno,
        };
        PinError::new(path, errno, error.to_string())
    }

    fn new(path: &Path, errno: Errno, problem: String) -> PinError {
        let help = match errno {
            Errno::EXDEV => {
                "its folder is a mount of its own with no room beside it: it is restarted when it is lost"
            }
            Errno::EPERM => {
                "the socket is another user's: run shimd as root, or as that user (fs.protected_hardlinks)"
            }
            Errno::EACCES => "let shimd's user write beside the socket's folder",
            Errno::EROFS => "the file system is mounted read-only: remount it for writing",
            Errno::ENOSPC | Errno::EDQUOT => "free some space on this file system",
            Errno::EMLINK | Errno::EOPNOTSUPP => {
                "this file system has no hard links: put the socket on another (/run, say)"
            }
            _ => "put that right; the next good audit tries again",
        };
        PinError { path: path.to_owned(), errno, problem, help }
    }
}

/// Why a dentry was not put back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Something lies there by now: it is never replaced.
    #[error("{}: something lies at the path by now and is left alone", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
    },
    /// The pin is gone.
    #[error("{}: its pin {} was removed", path.display(), pin.display())]
    NoPin {
        /// The path.
        path: PathBuf,
        /// Where the pin was.
        pin: PathBuf,
    },
    /// The folder was lost and cannot be made again.
    #[error("the socket's folder: {0}")]
    Folder(#[from] FolderError),
    /// The system said no.
    #[error("{}: cannot link the socket back: {}{}", path.display(), errno.desc(), hint(*errno))]
    Refused {
        /// The path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EXDEV => "; the path is on another mount now (see findmnt)",
        Errno::EROFS => "; remount the file system for writing",
        Errno::ENOSPC | Errno::EDQUOT => "; free some space on its file system",
        Errno::EACCES | Errno::EPERM => "; give shimd's user write permission on the folder",
        _ => "",
    }
}

/// A folder of pins, open.
#[derive(Debug)]
pub struct PinFolder {
    path: PathBuf,
    folder: OwnedFd,
}

impl PinFolder {
    /// Opens the folder of pins at `path`, which is made where it is missing and has to be ours alone.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn open(path: &Path) -> Result<PinFolder, FolderError> {
        folder::private_folder(path)?;
        let refused = |errno| FolderError {
            path: path.to_owned(),
            problem: FolderProblem::Refused { step: "open the folder", errno },
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(refused)?;
        // Another may have put a folder of theirs there between the two.
        let found = fstat(&folder).map_err(refused)?;
        let ours = geteuid().as_raw();
        if found.st_uid != ours {
            let problem = FolderProblem::OthersOwn { uid: found.st_uid, ours };
            return Err(FolderError { path: path.to_owned(), problem });
        }
        Ok(PinFolder { path: path.to_owned(), folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its sockets, by name.
    pub fn names(&self) -> Vec<OsString> {
        let list = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        list.map(|entry| entry.file_name())
            .filter(|name| self.stat(name).is_some_and(|s| is_socket(&s)))
            .collect()
    }

    /// Removes one socket from it. Nobody else reaches in here, so it is what was seen.
    pub fn remove(&self, name: &OsStr) {
        if self.stat(name).is_some_and(|stat| is_socket(&stat)) {
            let _ = unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir);
        }
    }

    /// Removes the folder, if nothing is in it; says whether it is gone.
    pub fn remove_if_empty(&self) -> bool {
        std::fs::remove_dir(&self.path).is_ok() || !self.path.exists()
    }

    fn stat(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }
}

/// Where the pin of a socket may lie, the best place first. `root`: where Hero-style sockets live.
pub fn places(socket: &Path, root: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let Some(folder) = socket.parent() else { return places };
    if let Some(root) = root.filter(|root| folder.starts_with(root) && folder != *root) {
        places.push(root.join(FOLDER));
    }
    let own = format!("{FOLDER}-{}", geteuid());
    // The root of the tree is no place for files of ours.
    let above = folder.ancestors().skip(1).take(HIGHEST).filter(|above| above.parent().is_some());
    places.extend(above.chain([folder]).map(|above| above.join(&own)));
    places
}

/// A pin.
#[derive(Debug)]
pub struct Pin {
    folder: Arc<PinFolder>,
    name: OsString,
    inode: Inode,
    /// The folders that lead to the socket, to be made again if they go.
    above: Vec<Above>,
}

/// What became of a dentry that was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkedBack {
    /// Its folder had gone, and was made again.
    pub folder_made: bool,
}

impl Pin {
    /// Pins the socket at `socket` (links followed) under `name` in `folder`. `ino`: the low 32 bits of the inode number,
    /// by which the kernel names the live listener. A pin of this name that an earlier run left is taken over.
    ///
    /// # Errors
    /// [`PinError`]; nothing was changed but for a dead pin of the same name.
    pub fn make(socket: &Path, folder: &Arc<PinFolder>, name: &OsStr, ino: u32) -> Result<Pin, PinError> {
        let at = folder.path.join(name);
        let refused = |step: &str, errno: Errno| {
            PinError::new(socket, errno, format!("cannot {step} {}: {}", at.display(), errno.desc()))
        };
        let pin =
            |inode| Pin { folder: folder.clone(), name: name.to_owned(), inode, above: Above::of(socket) };
        if let Some(there) = folder.stat(name) {
            if is_socket(&there) && there.st_ino as u32 == ino {
                return Ok(pin(inode_of(&there)));
            }
            if !is_socket(&there) {
                return Err(refused("replace what lies at", Errno::EEXIST));
            }
            folder.remove(name);
        }
        linkat(AT_FDCWD, socket, &folder.folder, name, AtFlags::AT_SYMLINK_FOLLOW)
            .map_err(|errno| refused("link the socket to", errno))?;
        match folder.stat(name) {
            Some(linked) if is_socket(&linked) && linked.st_ino as u32 == ino => Ok(pin(inode_of(&linked))),
            // Something took the socket's place just now, and that is what was linked. The link alone is ours.
            _ => {
                let _ = unlinkat(&folder.folder, name, UnlinkatFlags::NoRemoveDir);
                Err(refused("link the socket, which was replaced meanwhile, to", Errno::ESTALE))
            }
        }
    }

    /// A pin that an earlier run left under this name, if it leads to the inode that the kernel names by `ino`.
    pub fn found(socket: &Path, folder: &Arc<PinFolder>, name: &OsStr, ino: u32) -> Option<Pin> {
        let there = folder.stat(name).filter(|stat| is_socket(stat) && stat.st_ino as u32 == ino)?;
        let (inode, above) = (inode_of(&there), Above::of(socket));
        Some(Pin { folder: folder.clone(), name: name.to_owned(), inode, above })
    }

    /// Whether it leads to the inode that the kernel names by these low 32 bits.
    pub fn is_of(&self, ino: u32) -> bool {
        self.inode.1 as u32 == ino
    }

    /// Whether it is there: one fstatat(2).
    pub fn holds(&self) -> bool {
        inode_at(&self.folder.folder, &self.name) == Some(self.inode)
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// Links the socket back to `socket`, never over anything. A folder that went is made again, with owner and mode.
    ///
    /// # Errors
    /// [`LinkError`]; nothing was changed, but a folder may have been made.
    pub fn link_back(&self, socket: &Path) -> Result<LinkedBack, LinkError> {
        let mut folder_made = false;
        let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(LinkError::Refused { path: socket.to_owned(), errno: Errno::EINVAL });
        };
        // As where dentries are removed: a folder that has become a link to elsewhere is not followed.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        loop {
            let linked = open(folder, flags, Mode::empty()).and_then(|folder| {
                linkat(&self.folder.folder, self.name.as_os_str(), &folder, name, AtFlags::empty())
            });
            match linked {
                Ok(()) => return Ok(LinkedBack { folder_made }),
                Err(Errno::EEXIST) => return Err(LinkError::Occupied { path: socket.to_owned() }),
                // The folder, or the pin.
                Err(Errno::ENOENT) if !self.holds() => {
                    return Err(LinkError::NoPin { path: socket.to_owned(), pin: self.path() });
                }
                Err(Errno::ENOENT) if !folder_made => {
                    above::make_again(socket, &self.above)?;
                    folder_made = true;
                }
                Err(errno) => return Err(LinkError::Refused { path: socket.to_owned(), errno }),
            }
        }
    }

    /// Puts the socket where a dead socket file lies, in one step. `dead` is asked of the file at a path whether nobody
    /// listens on it: before, and again once it was taken out.
    ///
    /// # Errors
    /// [`LinkError::Occupied`] if it is not, or no longer, a dead socket that lies there: that was put back.
    pub fn exchange_dead(&self, socket: &Path, dead: &mut dyn FnMut(&Path) -> bool) -> Result<(), LinkError> {
        let occupied = || LinkError::Occupied { path: socket.to_owned() };
        let refused = |errno| LinkError::Refused { path: socket.to_owned(), errno };
        let lies = fstatat(AT_FDCWD, socket, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(refused)?;
        if !is_socket(&lies) || !dead(socket) {
            return Err(occupied());
        }
        let mut second = self.name.clone();
        second.push(".swap");
        let aside = self.folder.path.join(&second);
        self.folder.remove(&second);
        let folder = &self.folder.folder;
        linkat(folder, self.name.as_os_str(), folder, second.as_os_str(), AtFlags::empty()).map_err(
            |errno| match errno {
                Errno::ENOENT => LinkError::NoPin { path: socket.to_owned(), pin: self.path() },
                errno => refused(errno),
            },
        )?;
        let exchange =
            || renameat2(folder, second.as_os_str(), AT_FDCWD, socket, RenameFlags::RENAME_EXCHANGE);
        if let Err(errno) = exchange() {
            self.folder.remove(&second);
            return Err(refused(errno));
        }
        let came_out = self.folder.stat(&second);
        if came_out.as_ref().is_some_and(|stat| inode_of(stat) == inode_of(&lies)) && dead(&aside) {
            self.folder.remove(&second);
            return Ok(());
        }
        // What lay there by then goes back; what came to lie there since is ours, or stays.
        let ours =
            fstatat(AT_FDCWD, socket, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| inode_of(&s) == self.inode);
        if ours && exchange().is_ok() {
            self.folder.remove(&second);
        }
        Err(occupied())
    }

    /// Removes it.
    pub fn remove(self) {
        remove_if(&self.folder.folder, &self.name, self.inode);
    }

    /// Its folder.
    pub fn folder(&self) -> &Arc<PinFolder> {
        &self.folder
    }
}
