//! The control socket's pin: a hard link to its inode, from which a lost dentry is put back.
//!
//! It lies at `.shimd/control` in the socket's own folder, for a hard link does not leave its mount, and is kept by a
//! descriptor of `.shimd`: a folder that was moved away with the dentry and the pin still gives the inode back. Being a
//! name of the socket like any other, it is removed only while it is this socket's.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::sys::clean::{self, CleanError};
use crate::sys::folder::{self, FolderProblem};
use crate::sys::pin::{Inode, inode_at, remove_if};

/// The folder of pins, beside the socket.
const FOLDER: &str = ".shimd";
const NAME: &str = "control";

/// Why the control socket has no pin. It is served without one; once lost, it can only be bound anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the control socket has no pin, and will be bound anew once it is lost: {problem}")]
pub struct PinError {
    /// The system's error; of what lies in the way, `EEXIST`, `ENOTDIR`, `ELOOP` or `EPERM`.
    pub errno: Errno,
    /// What was tried, where, and what to do about it.
    pub problem: String,
}

/// A pin.
#[derive(Debug)]
pub(super) struct Pin {
    inode: Inode,
    /// The folder of pins.
    folder: OwnedFd,
    /// What holds the folder of pins, where that was made for this pin.
    made_in: Option<OwnedFd>,
}

impl Pin {
    /// Pins the socket `name`, whose inode is `inode`, in the folder `at`, which is open as `held`.
    ///
    /// The socket of a dead daemon is removed from the pin's place; anything else stays.
    pub(super) fn make(at: &Path, held: &OwnedFd, name: &OsStr, inode: Inode) -> Result<Pin, PinError> {
        let path = at.join(FOLDER);
        let made = folder::private_folder(&path).map_err(|error| PinError {
            errno: match error.problem {
                FolderProblem::NotAFolder => Errno::ENOTDIR,
                FolderProblem::Link => Errno::ELOOP,
                FolderProblem::OthersOwn { .. } => Errno::EPERM,
                FolderProblem::Refused { errno, .. } => errno,
            },
            problem: error.to_string(),
        })?;
        let refused = |step: &str, errno: Errno| PinError {
            errno,
            problem: format!("{}: cannot {step}: {}", path.join(NAME).display(), errno.desc()),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let folder = openat(held, FOLDER, flags, Mode::empty()).map_err(|e| refused("open its folder", e))?;
        let made_in = if made.0 { held.try_clone().ok() } else { None };
        let pin = Pin { inode, folder, made_in };
        if pin.holds() {
            return Ok(pin);
        }
        clean::remove_socket(&path.join(NAME), &|_| true).map_err(|error| PinError {
            errno: match error {
                CleanError::Refused { errno, .. } => errno,
                _ => Errno::EEXIST,
            },
            problem: error.to_string(),
        })?;
        linkat(held, name, &pin.folder, NAME, AtFlags::empty()).map_err(|e| refused("link the socket", e))?;
        if pin.holds() {
            return Ok(pin);
        }
        // Something took the socket's place just now, and what was linked is that. The link alone is ours.
        let _ = unlinkat(&pin.folder, NAME, UnlinkatFlags::NoRemoveDir);
        Err(refused("link the socket, which was replaced meanwhile", Errno::ESTALE))
    }

    /// Whether it is there.
    pub(super) fn holds(&self) -> bool {
        inode_at(&self.folder, NAME.as_ref()) == Some(self.inode)
    }

    /// Links the socket back, never over anything.
    pub(super) fn link_back(&self, folder: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        if !self.holds() {
            return Err(Errno::ENOENT);
        }
        linkat(&self.folder, NAME, folder, name, AtFlags::empty())
    }

    /// Removes it, and its folder if that was made for it and holds nothing else.
    pub(super) fn remove(self) {
        remove_if(&self.folder, NAME.as_ref(), self.inode);
        if let Some(above) = &self.made_in {
            let _ = unlinkat(above, FOLDER, UnlinkatFlags::RemoveDir);
        }
    }
}
