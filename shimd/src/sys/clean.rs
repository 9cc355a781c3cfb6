//! Removing a dentry, so that nothing else can be hit (DESIGN "A clean restart, in order").
//!
//! | step | call | what it rules out |
//! | --- | --- | --- |
//! | open the folder | `open(parent, O_PATH\|O_DIRECTORY\|O_NOFOLLOW)` | a folder that is a link to elsewhere; the parents above may be links |
//! | look | `openat(name, O_PATH\|O_NOFOLLOW)`, `fstat` | what is no socket; the descriptor keeps the inode's number from being used again |
//! | ask | `allowed(seen)` | a live listener that is to stay |
//! | move aside | `renameat2(name, private, RENAME_NOREPLACE)` | from here on nobody else knows the name |
//! | look again | `fstatat(private)`, `allowed(moved)` | what came between the look and the move |
//! | unlink | `unlinkat(private)` | |
//!
//! Where the second look finds something else, it is put back with `RENAME_NOREPLACE`: never over what has
//! come to lie there since. A crash between the move and the unlink leaves a private name, which
//! [`sweep`] removes. Only names are used, no `sun_path`: a path of any length will do.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How a private name begins; 32 random hexadecimal digits follow.
const PRIVATE_PREFIX: &str = ".shimd-aside-";

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A socket.
    Socket,
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A FIFO.
    Fifo,
    /// A block or character device.
    Device,
}

impl Kind {
    fn of(stat: &FileStat) -> Kind {
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFSOCK => Kind::Socket,
            SFlag::S_IFDIR => Kind::Folder,
            SFlag::S_IFLNK => Kind::Link,
            SFlag::S_IFIFO => Kind::Fifo,
            SFlag::S_IFREG => Kind::File,
            _ => Kind::Device,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Socket => "a socket",
            Kind::File => "a regular file",
            Kind::Folder => "a folder",
            Kind::Link => "a symbolic link",
            Kind::Fifo => "a FIFO",
            Kind::Device => "a device",
        })
    }
}

/// A directory entry as it was looked at. Its inode is held while the caller is asked about it, so
/// `(dev, ino)` cannot come to mean another socket meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it lies at this moment: the path itself at the first look, its private name at the second.
    pub path: PathBuf,
    /// `st_dev`. The kernel's listeners carry the superblock's device instead, which differs on btrfs.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Seen {
    fn of(path: PathBuf, stat: &FileStat) -> Seen {
        Seen {
            path,
            dev: stat.st_dev,
            ino: stat.st_ino,
            kind: Kind::of(stat),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }

    fn same_inode(&self, other: &Seen) -> bool {
        (self.dev, self.ino, self.kind) == (other.dev, other.ino, other.kind)
    }
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleaned {
    /// It lay there and is gone.
    Removed(Seen),
    /// Nothing lay there.
    Nothing,
}

/// Why a directory entry was left where it was (or, in one named case, under another name).
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// Something lies there that is never removed.
    #[error("{}: {found} lies here, not {wanted}, and is left alone; move it away, or declare another path", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What lies there.
        found: Kind,
        /// What may be removed here.
        wanted: Kind,
    },
    /// The caller said no: a process that is to stay listens on it.
    #[error("{}: a live listener owns this socket, which is left alone; end that process first", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Between the look and the move, something else came to lie there. It was put back.
    #[error("{}: {found} took this place meanwhile and was put back; find out who else uses the path, and try again", path.display())]
    Swapped {
        /// The path.
        path: PathBuf,
        /// What came.
        found: Kind,
    },
    /// As [`CleanError::Swapped`], and before it could be put back a third thing took the place.
    #[error("{}: {found} took this place meanwhile, could not be put back ({errno}), and now is {}; move it by hand", path.display(), kept.display())]
    Kept {
        /// The path.
        path: PathBuf,
        /// Where it lies now.
        kept: PathBuf,
        /// What it is.
        found: Kind,
        /// Why it could not be put back (`EEXIST`: the place is taken again).
        errno: Errno,
    },
    /// A step was refused by the system.
    #[error("{}: cannot {step}: {}; {fix}", path.display(), errno.desc())]
    Refused {
        /// The path, or the folder where that is at fault.
        path: PathBuf,
        /// The step, in words.
        step: &'static str,
        /// The system's error.
        errno: Errno,
        /// What to do next.
        fix: String,
    },
}

/// Removes the socket at `path`, following no link in the folder's last step nor at the path itself.
///
/// `allowed` is asked twice: for what lies there, and again for what was moved aside, where it must look
/// afresh whether a live listener owns it (a service may bind between the two). It says no to keep it.
///
/// # Errors
/// [`CleanError`]; except for [`CleanError::Kept`] the entry is where it was.
pub fn remove_socket(path: &Path, allowed: &dyn Fn(&Seen) -> bool) -> Result<Cleaned, CleanError> {
    remove(path, Kind::Socket, allowed, &|_| ())
}

/// Removes a service's ready marker, which has to be a regular file: a link, even to a file, is left.
///
/// # Errors
/// As [`remove_socket`].
pub fn remove_marker(path: &Path) -> Result<Cleaned, CleanError> {
    remove(path, Kind::File, &|_| true, &|_| ())
}

/// Whether a socket could be removed here, as far as a look can tell: its folder is no link, and nothing else lies there.
///
/// # Errors
/// [`CleanError::WrongKind`], [`CleanError::Refused`], as [`remove_socket`] would answer.
pub fn look_first(path: &Path) -> Result<(), CleanError> {
    let (folder, name) = split(path)?;
    let Some(fd) = open_folder(folder)? else { return Ok(()) };
    match look(&fd, path, name)? {
        Some((_, seen)) if seen.kind != Kind::Socket => {
            Err(CleanError::WrongKind { path: path.into(), found: seen.kind, wanted: Kind::Socket })
        }
        _ => Ok(()),
    }
}

/// Removes what a crash left aside in `folder`: sockets under a private name, and those under a name that is `left`. Anything
/// else that bears such a name stays, and so does what `allowed` keeps. Gives the paths that were removed.
///
/// # Errors
/// [`CleanError::Refused`], where the folder cannot be read or an entry cannot be removed. A folder that
/// is not there has nothing to sweep.
pub fn sweep(
    folder: &Path,
    left: &dyn Fn(&OsStr) -> bool,
    allowed: &dyn Fn(&Seen) -> bool,
) -> Result<Vec<PathBuf>, CleanError> {
    let Some(fd) = open_folder(folder)? else { return Ok(Vec::new()) };
    let list = fs::read_dir(folder).map_err(|e| refused(folder, "list the folder", errno_of(&e)))?;
    let mut removed = Vec::new();
    for entry in list.flatten() {
        let name = entry.file_name();
        let path = folder.join(&name);
        if !is_private(&name) {
            // One that is in use, or is no socket, is in nobody's way.
            if left(&name) && matches!(remove_socket(&path, allowed), Ok(Cleaned::Removed(_))) {
                removed.push(path);
            }
            continue;
        }
        let Some((_held, seen)) = look(&fd, &path, &name)? else { continue };
        if seen.kind == Kind::Socket && allowed(&seen) {
            match unlinkat(&fd, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) => removed.push(path),
                // It was no crash's: the removal that had moved it aside is through.
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(refused(&path, "remove it", e)),
            }
        }
    }
    Ok(removed)
}

/// Between which steps a test may interfere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Looked,
    Moved,
    LookedAgain,
}

fn remove(
    path: &Path,
    wanted: Kind,
    allowed: &dyn Fn(&Seen) -> bool,
    at: &dyn Fn(Moment),
) -> Result<Cleaned, CleanError> {
    let (folder, name) = split(path)?;
    let Some(fd) = open_folder(folder)? else { return Ok(Cleaned::Nothing) };
    let Some((_held, seen)) = look(&fd, path, name)? else { return Ok(Cleaned::Nothing) };
    if seen.kind != wanted {
        return Err(CleanError::WrongKind { path: path.into(), found: seen.kind, wanted });
    }
    if !allowed(&seen) {
        return Err(CleanError::InUse { path: path.into() });
    }
    at(Moment::Looked);

    let private = private_name().map_err(|e| refused(path, "draw a random name", e))?;
    let aside = folder.join(&private);
    match renameat2(&fd, name, &fd, private.as_os_str(), RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Ok(Cleaned::Nothing),
        Err(errno) => return Err(refused(path, "move it aside", errno)),
    }
    at(Moment::Moved);

    let moved = match fstatat(&fd, private.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Seen::of(aside.clone(), &stat),
        // Nobody else knows the name: someone emptied the whole folder.
        Err(Errno::ENOENT) => return Ok(Cleaned::Removed(seen)),
        Err(errno) => return Err(refused(&aside, "look at it again", errno)),
    };
    let same = moved.same_inode(&seen);
    let go = same && allowed(&moved);
    at(Moment::LookedAgain);
    if go {
        return match unlinkat(&fd, private.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(Cleaned::Removed(seen)),
            Err(errno) => Err(refused(&aside, "remove it", errno)),
        };
    }
    match renameat2(&fd, private.as_os_str(), &fd, name, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) if same => Err(CleanError::InUse { path: path.into() }),
        Ok(()) => Err(CleanError::Swapped { path: path.into(), found: moved.kind }),
        Err(errno) => Err(CleanError::Kept { path: path.into(), kept: aside, found: moved.kind, errno }),
    }
}

/// The folder and the name, or an error for a path that ends in neither (`/`, `..`).
fn split(path: &Path) -> Result<(&Path, &OsStr), CleanError> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if folder.as_os_str().is_empty() => Ok((Path::new("."), name)),
        (Some(folder), Some(name)) => Ok((folder, name)),
        _ => Err(refused(path, "find its folder", Errno::EINVAL)),
    }
}

/// Opens the folder itself; `None` where it does not exist.
fn open_folder(folder: &Path) -> Result<Option<OwnedFd>, CleanError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match open(folder, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(refused(folder, "open the folder", errno)),
    }
}

/// Looks at what lies under `name` and holds its inode; `None` for nothing.
fn look(folder: impl AsFd, path: &Path, name: &OsStr) -> Result<Option<(OwnedFd, Seen)>, CleanError> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let held = match openat(folder, name, flags, Mode::empty()) {
        Ok(held) => held,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(refused(path, "look at it", errno)),
    };
    let stat = fstat(&held).map_err(|e| refused(path, "look at it", e))?;
    let seen = Seen::of(path.into(), &stat);
    Ok(Some((held, seen)))
}

/// A name that nobody can guess: 128 random bits.
pub(super) fn private_name() -> Result<OsString, Errno> {
    let mut random = [0u8; 16];
    let read = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut random));
    read.map_err(|e| errno_of(&e))?;
    Ok(format!("{PRIVATE_PREFIX}{:032x}", u128::from_ne_bytes(random)).into())
}

pub(crate) fn is_private(name: &OsStr) -> bool {
    name.as_bytes()
        .strip_prefix(PRIVATE_PREFIX.as_bytes())
        .is_some_and(|rest| rest.len() == 32 && rest.iter().all(u8::is_ascii_hexdigit))
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn refused(path: &Path, step: &'static str, errno: Errno) -> CleanError {
    let fix = match errno {
        Errno::ENOTDIR | Errno::ELOOP => match fs::canonicalize(path) {
            Ok(real) if real.is_dir() => {
                format!(
                    "a link is not followed here: declare the path by the real folder, {}",
                    real.display()
                )
            }
            _ => "its folder is no folder: move that away, or declare another path".into(),
        },
        Errno::EACCES | Errno::EPERM => "give the daemon's user write permission on the folder".into(),
        Errno::EROFS => "the file system is mounted read-only: remount it, or declare another path".into(),
        Errno::EINVAL if step == "find its folder" => "a path has to end in a name".into(),
        Errno::EINVAL => {
            "this file system cannot rename without replacing: put sockets on a local one (/run, say)".into()
        }
        Errno::EBUSY => "something is mounted on it: unmount it".into(),
        _ => "put that right, and try again".into(),
    };
    CleanError::Refused { path: path.into(), step, errno, fix }
}

#[cfg(test)]
mod tests;
