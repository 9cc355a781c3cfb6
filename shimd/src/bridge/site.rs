//! The place of a bridge: its own socket at the path, for the same clients as the lost one.
//!
//! | step | what it rules out |
//! | --- | --- |
//! | a socket file that nobody listens on is removed | anything else that lies there |
//! | bind, with no permission for anybody | clients before the rights are as they were |
//! | owner, group and mode of the lost socket, by a descriptor of the own inode | a change of what came to lie at the path meanwhile |
//! | listen | |
//!
//! Of a folder that went too, the mode is not known any more. It is made for the socket's owner: open to search
//! (0755) as before every start, but of a socket that lets everybody write, whom perhaps the folder kept out, closed (0700).

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstat, umask};
use nix::unistd::{AccessFlags, Gid, Uid, eaccess, fchownat};
use socket_audit::{Auditor, file_of_own, procfs};

use crate::supervisor::nobody_listens;
use crate::sys::as_peer::Peer;
use crate::sys::clean::{self, CleanError};
use crate::sys::folder::{self, Created, FolderError};
use crate::sys::pin::{self, Inode};

/// The group that no file is for (`nogroup`, the kernel's overflow gid).
const NOBODYS: u32 = 65534;

/// Why a bridge cannot stand at a path.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The folder cannot be made or written to.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What lies there stays.
    #[error(transparent)]
    Taken(#[from] CleanError),
    /// The kernel was not asked who listens there.
    #[error("cannot ask who listens: {0}")]
    Audit(#[from] socket_audit::AuditError),
    /// Whoever made the listener could not have bound it here.
    #[error("{}: user {creator}, who made the listener, may not make files in {}: {}; look who that process is; if it belongs here, make the folder as it was and try again", path.display(), folder.display(), errno.desc())]
    NotTheirs {
        /// The path.
        path: PathBuf,
        /// Who made it.
        creator: u32,
        /// The folder, or what is left of the way to it.
        folder: PathBuf,
        /// What the kernel says to them.
        errno: Errno,
    },
    /// A step was refused.
    #[error("{}: cannot {step}: {}{}", path.display(), errno.desc(), hint(*errno))]
    Refused {
        /// The path.
        path: PathBuf,
        /// The step, in words.
        step: &'static str,
        /// Why.
        errno: Errno,
    },
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EADDRINUSE => "; something came to lie there: look at it, and try again",
        Errno::EPERM | Errno::EACCES => "; it takes root",
        Errno::EROFS => "; remount the file system for writing",
        Errno::ENOSPC | Errno::EDQUOT => "; free some space on its file system",
        Errno::ENAMETOOLONG => "; a socket's path has 107 bytes at most",
        _ => "",
    }
}

/// Whether the maker of a listener, which `pid` holds, may make files in the folder of `path`; by the kernel's own rule.
///
/// # Errors
/// [`SiteError::NotTheirs`].
pub fn may_stand(path: &Path, creator: u32, pid: i32) -> Result<(), SiteError> {
    let folder = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    // Groups are of the process, and speak only for its own user.
    let groups = match procfs::describe(pid) {
        Some(holder) if holder.uid == Some(creator) => procfs::groups(pid),
        _ => Vec::new(),
    };
    let gid = groups.last().copied().unwrap_or(NOBODYS);
    let may = || eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK);
    Peer::new(creator, gid, groups).act(may).and_then(|may| may).map_err(|errno| SiteError::NotTheirs {
        path: path.to_owned(),
        creator,
        folder: folder.to_owned(),
        errno,
    })
}

/// A bridge's own socket.
#[derive(Debug)]
pub struct Site {
    /// It listens, and does not block.
    pub listener: UnixListener,
    /// What the operator should know.
    pub note: Option<String>,
    folder: OwnedFd,
    name: OsString,
    inode: Inode,
}

impl Site {
    /// Stands at `path` in the place of a socket that was `like` this.
    ///
    /// # Errors
    /// [`SiteError`]; then nothing of ours lies there.
    pub fn take(path: &Path, like: &FileStat, backlog: u32) -> Result<Site, SiteError> {
        let refused = |step| move |errno| SiteError::Refused { path: path.to_owned(), step, errno };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused("find its folder")(Errno::EINVAL));
        };
        let closed = like.st_mode & 0o002 != 0;
        let folder_mode = if closed { 0o700 } else { 0o755 };
        let owner = (like.st_uid, like.st_gid);
        let made = folder::ensure_folder(parent, Some(owner), folder_mode)?;
        let note = (made == Created(true)).then(|| {
            format!("its folder was gone and is made anew, mode {folder_mode:04o}: set it as it was")
        });
        if path.symlink_metadata().is_ok() {
            let auditor = std::cell::RefCell::new(Auditor::new()?);
            let dead = |seen: &clean::Seen| nobody_listens(&mut auditor.borrow_mut(), &seen.path);
            clean::remove_socket(path, &dead)?;
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(parent, flags, Mode::empty()).map_err(refused("open its folder"))?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(refused("make a socket"))?;
        let address = UnixAddr::new(path).map_err(refused("bind a socket"))?;
        let before = umask(Mode::from_bits_truncate(0o777));
        let bound = bind(socket.as_raw_fd(), &address);
        umask(before);
        bound.map_err(refused("bind a socket"))?;
        let own = file_of_own(&socket).map_err(refused("have the file of its own socket"))?;
        let stat = fstat(&own).map_err(refused("look at its own socket"))?;
        let inode = (stat.st_dev, stat.st_ino);
        let opened = open_as(&own, like).and_then(|()| {
            let backlog =
                Backlog::new(i32::try_from(backlog).unwrap_or(i32::MAX)).unwrap_or(Backlog::MAXCONN);
            listen(&socket, backlog)
        });
        if let Err(errno) = opened {
            pin::remove_if(&folder, name, inode);
            return Err(refused("give its socket to the clients of the lost one")(errno));
        }
        Ok(Site { listener: socket.into(), note, folder, name: name.to_owned(), inode })
    }

    /// Whether its own file lies at the path: in the folder that was there, which is still there.
    pub fn is_there(&self, path: &Path) -> bool {
        let folder = path.parent().and_then(|parent| nix::sys::stat::stat(parent).ok());
        let ours = fstat(&self.folder).ok();
        let same = folder.zip(ours).is_some_and(|(a, b)| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino));
        same && pin::inode_at(&self.folder, &self.name) == Some(self.inode)
    }

    /// Removes its own file, and nothing else.
    pub fn leave(&self) {
        pin::remove_if(&self.folder, &self.name, self.inode);
    }
}

/// Gives an inode owner, group and mode of another.
fn open_as(own: &OwnedFd, like: &FileStat) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    fchownat(own, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
    let mode = Mode::from_bits_truncate(like.st_mode & 0o777);
    let link = format!("/proc/self/fd/{}", own.as_raw_fd());
    fchmodat(AT_FDCWD, link.as_str(), mode, FchmodatFlags::FollowSymlink)
}
