//! Binding a listener: with its mode and owner, at the public path, over nothing.
//!
//! | step | call | what it rules out |
//! | --- | --- | --- |
//! | mode | `fchmod` on the socket | a moment in which the dentry is wider than it should be (unix(7)) |
//! | name | `bind` | replacing anything: it gives EADDRINUSE for whatever lies there |
//! | file | `SIOCUNIXFILE`, or the path and a look at what was opened | giving another's file away, where the service's user may write in the folder |
//! | owner | `fchownat` on that file | |
//! | listen | `listen` | clients that come before the owner is right |
//!
//! The kernel's name of a socket is the one that it was bound to, for ever, and programs ask for it: so it is bound where
//! it is to be, and not renamed to there.
#![allow(unsafe_code)] // the ioctl has no wrapper in nix

use std::fs::Permissions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, bind, socket};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, fchownat, geteuid, unlink};
use shimd_api::spec::SocketKind;
use socket_audit::{Auditor, Diag, Expect, Owner};

use super::super::pidfd::errno_of;
use super::{Held, Wanted, identify, listen};

/// unix(7): the file that a socket is bound to. Takes CAP_NET_ADMIN.
const SIOCUNIXFILE: libc::Ioctl = 0x89E0;

/// Why a listener could not be bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// The address is taken.
    #[error("{}: {what}; {fix}", path.display())]
    InUse {
        /// The path, or `@name`.
        path: PathBuf,
        /// Who listens there, or what lies there.
        what: String,
        /// What to do next.
        fix: &'static str,
    },
    /// A step was refused by the system.
    #[error("{}: cannot {step}: {}; {}", path.display(), errno.desc(), fix(*errno))]
    Refused {
        /// The path, or `@name`.
        path: PathBuf,
        /// The step, in words.
        step: &'static str,
        /// The system's error.
        errno: Errno,
    },
}

fn fix(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => "give the daemon's user write permission on the folder",
        Errno::ENOENT => "something removes its folder: find out who, and try again",
        Errno::ENAMETOOLONG => "declare a path of at most 107 bytes",
        Errno::EROFS => "the file system is mounted read-only: remount it, or declare another path",
        Errno::ENOSPC | Errno::EDQUOT => "free some space on this file system",
        Errno::EMFILE | Errno::ENFILE => "raise the limit of open files (ulimit -n)",
        Errno::ESTALE => "something replaces files there: find out who, and try again",
        _ => "put that right, and try again",
    }
}

impl Held {
    /// Binds what is wanted and listens. What lies at the path stays: it is cleaned before.
    ///
    /// # Errors
    /// [`BindError`]; nothing is left at the path then.
    pub fn bind(wanted: &Wanted) -> Result<Held, BindError> {
        let refused = |step| move |errno| BindError::Refused { path: wanted.path.clone(), step, errno };
        let address = wanted.address().map_err(refused("name it"))?;
        let fd = socket(AddressFamily::Unix, wanted.sock_type(), SockFlag::SOCK_CLOEXEC, None)
            .map_err(refused("make a socket"))?;
        fchmod(&fd, wanted.mode()).map_err(refused("set its mode"))?;
        if let Some((uid, gid)) = wanted.ids() {
            // The kernel names this one as the socket's user (sock_diag).
            fchown(&fd, uid, gid).map_err(refused("give it to its user"))?;
        }
        bind(fd.as_raw_fd(), &address).map_err(|errno| match errno {
            Errno::EADDRINUSE => in_use(&wanted.path),
            errno => refused("bind it")(errno),
        })?;
        let id = identify(&fd).map_err(refused("look at it"));
        let rest = id.and_then(|id| {
            if wanted.path.is_absolute() {
                // The daemon's own umask may have taken more.
                own(&fd, wanted)?;
            }
            if wanted.kind != SocketKind::Dgram {
                listen(&fd, wanted.backlog).map_err(refused("listen"))?;
            }
            Ok(id)
        });
        match rest {
            Ok(id) => Ok(Held { fd, id, wanted: wanted.clone() }),
            Err(e) => {
                if file_of(&fd, wanted).is_ok_and(|file| lies_at(&file, &wanted.path)) {
                    let _ = unlink(&wanted.path);
                }
                Err(e)
            }
        }
    }

    /// The same listener with the owner and the mode that are wanted now; to be asked of one that
    /// [will do](Held::will_do).
    ///
    /// # Errors
    /// [`BindError::Refused`].
    pub fn owned_as(&self, wanted: &Wanted) -> Result<Held, BindError> {
        let refused = |step| move |errno| BindError::Refused { path: wanted.path.clone(), step, errno };
        let copy = self.fd.try_clone().map_err(|e| refused("copy its descriptor")(errno_of(&e)))?;
        let same = (self.wanted.owner, self.wanted.umask) == (wanted.owner, wanted.umask);
        if !same && wanted.path.is_absolute() {
            own(&copy, wanted)?;
        }
        Ok(Held { fd: copy, id: self.id, wanted: wanted.clone() })
    }
}

impl Wanted {
    fn ids(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        self.owner.map(|(uid, gid)| (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }

    fn mode(&self) -> Mode {
        Mode::from_bits_truncate(0o777 & !self.umask)
    }
}

/// Gives the dentry its owner and mode.
fn own(fd: &OwnedFd, wanted: &Wanted) -> Result<(), BindError> {
    let refused = |step| move |errno| BindError::Refused { path: wanted.path.clone(), step, errno };
    let file = file_of(fd, wanted).map_err(refused("find its file"))?;
    if let Some((uid, gid)) = wanted.ids() {
        let given = fchownat(&file, "", uid, gid, AtFlags::AT_EMPTY_PATH);
        given.map_err(refused("give it to its user"))?;
    }
    set_mode(&file, wanted.mode()).map_err(refused("set its mode"))
}

fn in_use(path: &Path) -> BindError {
    let expect = Expect { owner: Owner::Pids(Vec::new()), ..Expect::path(path) };
    let finding = Auditor::new().ok().map(|mut auditor| auditor.confirm(&expect));
    let listener = finding.as_ref().and_then(|found| found.others.first());
    let (what, fix) = match listener {
        Some(party) => {
            let who = party.holder.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
            (
                format!("foreign: {who} listens there"),
                "stop it, or end it with proc restart --clean (or kill_other)",
            )
        }
        None => (
            "something came to lie there after the clean".to_owned(),
            "find out who else uses the path, and try again",
        ),
    };
    BindError::InUse { path: path.to_owned(), what, fix }
}

/// The file that a socket is bound to. With the right to ask, it is the kernel who says; else it is what lies at the
/// path, if that is a socket of ours with the number that the kernel gives. Before such a one is given to another user it
/// must be fresh as well: with one name.
fn file_of(fd: &OwnedFd, wanted: &Wanted) -> Result<OwnedFd, Errno> {
    // SAFETY: this ioctl takes no argument and returns a new descriptor (close-on-exec) or -1.
    let number = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCUNIXFILE) };
    if let Ok(number) = Errno::result(number) {
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        return Ok(unsafe { OwnedFd::from_raw_fd(number) });
    }
    let file = open(&wanted.path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = fstat(&file)?;
    let id = identify(fd)?;
    let vfs = Diag::open().ok().and_then(|mut diag| diag.query(id.inode, id.cookie).ok()?);
    let vfs = vfs.and_then(|listener| listener.vfs).ok_or(Errno::ESTALE)?;
    let socket = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
    let ours = found.st_uid == geteuid().as_raw() && found.st_ino as u32 == vfs.ino;
    if socket && ours && (wanted.owner.is_none() || found.st_nlink == 1) {
        Ok(file)
    } else {
        Err(Errno::ESTALE)
    }
}

fn lies_at(file: &OwnedFd, path: &Path) -> bool {
    let there = nix::sys::stat::lstat(path).ok();
    fstat(file).ok().zip(there).is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// chmod(2) through `/proc`: an `O_PATH` descriptor has no fchmod.
fn set_mode(file: &OwnedFd, mode: Mode) -> Result<(), Errno> {
    if Mode::from_bits_truncate(fstat(file)?.st_mode) == mode {
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::set_permissions(path, Permissions::from_mode(mode.bits())).map_err(|e| errno_of(&e))
}
