//! Where a listener's inode can be reached, seen from the process that holds it.
//!
//! The name that the kernel keeps is what was given to `bind`. It may be relative to a folder that the
//! process has left, hold `//` or `..`, go through `/proc/self`, belong to another root or mount namespace,
//! or be a temporary name that was renamed since. So a name is first made a place (a folder and the name in
//! it), through `/proc/<pid>` where it is the holder's to say.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileTypeExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::dentry::{Dentry, Mounts};
use crate::listener::{Listener, Vfs};

/// A folder without links in it, where it still exists, and a name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) base: OsString,
}

impl Place {
    /// The place that a path names; `None` for one that ends in no name.
    pub(crate) fn of(path: &Path) -> Option<Place> {
        let base = path.file_name()?.to_owned();
        let folder = match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => return None,
        };
        Some(Place { folder: fs::canonicalize(folder).unwrap_or_else(|_| normal(folder)), base })
    }

    /// The place that a bound name means to its holder; `None` if that cannot be known.
    pub(crate) fn of_name(name: &Path, holder: Option<i32>) -> Option<Place> {
        if name.is_absolute() {
            return match (proc_self(name), holder) {
                (Some(rest), Some(pid)) => Place::of(&Path::new(&format!("/proc/{pid}")).join(rest)),
                (Some(_), None) => None,
                (None, _) => Place::of(name),
            };
        }
        let cwd = fs::read_link(format!("/proc/{}/cwd", holder?)).ok()?;
        let cwd = cwd.as_os_str().as_bytes();
        let cwd = cwd.strip_suffix(b" (deleted)").unwrap_or(cwd);
        Place::of(&Path::new(OsStr::from_bytes(cwd)).join(name))
    }
}

/// Whether a name says where it is only to its holder.
pub(crate) fn is_private(name: &Path) -> bool {
    name.is_relative() || proc_self(name).is_some()
}

fn proc_self(name: &Path) -> Option<&Path> {
    name.strip_prefix("/proc/self").or_else(|_| name.strip_prefix("/proc/thread-self")).ok()
}

/// Without `//` and `.`; `..` stays, since what it means depends on links.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

/// Where a listener's inode was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// At its own name, or at another in the same folder: clients reach it.
    Reachable,
    /// Not in the folder of its name. What lies at its name instead, if anything.
    Lost(Option<Dentry>),
    /// The folder cannot be known or searched.
    Unknown,
}

/// Looks for a listener's inode at its name and in that name's folder, as `holder` sees them. Without a
/// holder, as this process does.
pub(crate) fn whereabouts(listener: &Listener, holder: Option<i32>, mounts: &mut Mounts) -> Whereabouts {
    let (Some(name), Some(vfs)) = (listener.path(), listener.vfs) else { return Whereabouts::Unknown };
    let Some(base) = name.file_name() else { return Whereabouts::Unknown };
    let stranger = holder.filter(|pid| same_view(*pid) == Some(false));
    let mut others;
    let mounts = match stranger {
        Some(pid) => {
            others = Mounts::of_process(pid);
            &mut others
        }
        None => mounts,
    };
    let folder = name.parent().unwrap_or(Path::new(""));
    let within;
    let folder = match (stranger, holder) {
        (Some(pid), _) if !is_private(name) => {
            let Some(found) = open_in_root(pid, folder) else { return missing_folder(pid) };
            within = found;
            PathBuf::from(format!("/proc/self/fd/{}", within.as_raw_fd()))
        }
        (_, Some(pid)) if name.is_relative() => Path::new(&format!("/proc/{pid}/cwd")).join(folder),
        (_, Some(pid)) => match proc_self(folder) {
            Some(rest) => Path::new(&format!("/proc/{pid}")).join(rest),
            None => folder.to_owned(),
        },
        (_, None) if is_private(name) => return Whereabouts::Unknown,
        (_, None) => folder.to_owned(),
    };
    match mounts.look(&folder.join(base)) {
        Ok(Some(dentry)) if dentry.vfs() == vfs => Whereabouts::Reachable,
        Ok(_) if in_folder(&folder, vfs, mounts) => Whereabouts::Reachable,
        Ok(dentry) => Whereabouts::Lost(dentry),
        Err(_) => Whereabouts::Unknown,
    }
}

/// A folder that is gone from a root that can be entered holds nothing; from one that cannot, who knows.
fn missing_folder(pid: i32) -> Whereabouts {
    if open_in_root(pid, Path::new("/")).is_some() { Whereabouts::Lost(None) } else { Whereabouts::Unknown }
}

/// Whether any name in a folder is of this inode: a socket that was renamed after it was bound.
fn in_folder(folder: &Path, vfs: Vfs, mounts: &mut Mounts) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        entry.ino() as u32 == vfs.ino
            && entry.file_type().is_ok_and(|kind| kind.is_socket())
            && mounts.look(&entry.path()).is_ok_and(|found| found.is_some_and(|found| found.vfs() == vfs))
    })
}

/// Whether a process sees the same files at the same paths as this one: the same mount namespace and root.
/// `None` if this user may not know.
pub(crate) fn same_view(pid: i32) -> Option<bool> {
    let view = |who: &str| {
        let link = |what| fs::read_link(format!("/proc/{who}/{what}")).ok();
        Some((link("ns/mnt")?, link("root")?))
    };
    Some(view(&pid.to_string())? == view("self")?)
}

/// Opens a folder of another process's root, where a link to `/run` means that root's `/run`.
fn open_in_root(pid: i32, folder: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = fs::File::open(format!("/proc/{pid}/root")).ok()?;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    openat2(&root, folder, how).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_however_it_is_spelt() {
        let place = Place::of(Path::new("/proc/sys/kernel/x.sock")).unwrap();
        for spelling in ["/proc//sys/./kernel/x.sock", "/proc/sys/fs/../kernel/x.sock"] {
            assert_eq!(Place::of(Path::new(spelling)), Some(place.clone()), "{spelling}");
        }
        let gone = Place::of(Path::new("/no//such/./folder/x.sock")).unwrap();
        assert_eq!(gone.folder, Path::new("/no/such/folder"));
        assert_eq!(Place::of(Path::new("/")), None);
        assert_eq!(
            Place::of(Path::new("x.sock")),
            Place::of(&std::env::current_dir().unwrap().join("x.sock"))
        );
    }

    #[test]
    fn a_private_name_is_read_through_its_holder() {
        let me = std::process::id() as i32;
        let here = Place::of(Path::new("x.sock"));
        assert_eq!(Place::of_name(Path::new("x.sock"), Some(me)), here);
        assert_eq!(Place::of_name(Path::new("/proc/self/cwd/x.sock"), Some(me)), here);
        assert_eq!(Place::of_name(Path::new("x.sock"), None), None);
        assert_eq!(same_view(me), Some(true));
    }
}
