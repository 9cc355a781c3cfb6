//! Which folders are marked, what they are called, and which names in them matter.
//!
//! An event says a file handle, not a path. So the handle of each folder is asked for when its mark is set, and is
//! in the table before: an event is never read without its folder being known. A folder that was removed and made again
//! has another handle, though it may have the same inode number.
//!
//! A mark belongs to an inode: where a folder was moved away its mark goes with it, and stays until that inode ends.
//! Its events are then of a folder that nobody wants.
#![allow(unsafe_code)] // name_to_handle_at has no wrapper in nix, and the fields of fsid_t are private

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::statfs;

use super::event::FileId;

/// `AT_HANDLE_FID` (`include/uapi/linux/fcntl.h`): a handle to compare, not to open; as fanotify makes them. Linux 6.5.
const AT_HANDLE_FID: libc::c_int = 0x200;

/// The table, as the reading thread needs it.
#[derive(Debug, Default)]
pub(super) struct Marks {
    folders: BTreeMap<PathBuf, Known>,
    /// Several paths may lead to one folder.
    names: HashMap<FileId, BTreeMap<PathBuf, BTreeSet<OsString>>>,
    /// Folders that exist and could not be marked.
    pub(super) unmarked: BTreeMap<PathBuf, Errno>,
}

/// A folder when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) id: FileId,
    mount: libc::c_int,
}

impl Marks {
    /// The folders, as they were given, in which `name` of this folder matters.
    pub(super) fn wanting<'a>(&'a self, id: &FileId, name: &'a OsStr) -> impl Iterator<Item = &'a Path> {
        let folders = self.names.get(id).into_iter().flatten();
        folders.filter(move |(_, names)| names.contains(name)).map(|(folder, _)| folder.as_path())
    }

    /// The first of the names that this folder was given.
    pub(super) fn path_of(&self, id: &FileId) -> Option<&Path> {
        Some(self.names.get(id)?.first_key_value()?.0)
    }

    pub(super) fn known(&self, folder: &Path) -> Option<&Known> {
        self.folders.get(folder)
    }

    /// The folders that are in the table and not in `wanted`.
    pub(super) fn besides(&self, wanted: &BTreeMap<PathBuf, BTreeSet<OsString>>) -> Vec<PathBuf> {
        let all = self.folders.keys().chain(self.unmarked.keys());
        all.filter(|folder| !wanted.contains_key(*folder)).cloned().collect()
    }

    /// Enters a folder; true where it is another than before.
    pub(super) fn enter(&mut self, folder: &Path, now: &Known, names: &BTreeSet<OsString>) -> bool {
        let other = self.folders.get(folder) != Some(now);
        if other {
            self.forget(folder);
            self.folders.insert(folder.into(), now.clone());
        }
        let all = self.names.entry(now.id.clone()).or_default();
        if all.get(folder) != Some(names) {
            all.insert(folder.into(), names.clone());
        }
        other
    }

    /// Takes a folder out; gives its id where no other path leads to it.
    pub(super) fn forget(&mut self, folder: &Path) -> Option<FileId> {
        self.unmarked.remove(folder);
        let known = self.folders.remove(folder)?;
        let all = self.names.get_mut(&known.id)?;
        all.remove(folder);
        if !all.is_empty() {
            return None;
        }
        self.names.remove(&known.id);
        Some(known.id)
    }
}

impl Known {
    #[cfg(test)]
    pub(super) fn of(id: FileId) -> Known {
        Known { id, mount: 1 }
    }

    /// What lies at `folder` now. `before` saves a question where it is still the same.
    pub(super) fn look(folder: &Path, before: Option<&Known>) -> Result<Known, Errno> {
        let path = CString::new(folder.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let flags = libc::AT_SYMLINK_FOLLOW | AT_HANDLE_FID;
        let (kind, handle, mount) = match handle_of(&path, flags) {
            Err(Errno::EINVAL) => handle_of(&path, libc::AT_SYMLINK_FOLLOW)?,
            answer => answer?,
        };
        let same = |b: &&Known| b.mount == mount && b.id.kind == kind && b.id.handle == handle;
        if let Some(before) = before.filter(same) {
            return Ok(before.clone());
        }
        // SAFETY: `__kernel_fsid_t` is `int val[2]` on Linux (statfs(2)); a size that differs does not compile.
        let fsid = unsafe { std::mem::transmute::<libc::fsid_t, [i32; 2]>(statfs(folder)?.filesystem_id()) };
        Ok(Known { id: FileId { fsid, kind, handle }, mount })
    }
}

#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    data: [u8; libc::MAX_HANDLE_SZ as usize],
}

/// Type, bytes and mount id.
fn handle_of(path: &CString, flags: libc::c_int) -> Result<(i32, Vec<u8>, libc::c_int), Errno> {
    let mut handle = Handle {
        bytes: libc::MAX_HANDLE_SZ.cast_unsigned(),
        kind: 0,
        data: [0; libc::MAX_HANDLE_SZ as usize],
    };
    let mut mount = 0;
    let at = (&raw mut handle).cast::<libc::file_handle>();
    // SAFETY: the path ends in NUL; `Handle` begins as `file_handle` does and has room for as many bytes as it says.
    let done = unsafe { libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), at, &raw mut mount, flags) };
    Errno::result(done)?;
    let data = handle.data.get(..handle.bytes as usize).ok_or(Errno::EOVERFLOW)?;
    Ok((handle.kind, data.to_vec(), mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(handle: u8) -> Known {
        Known::of(FileId { fsid: [1, 2], kind: 3, handle: vec![handle] })
    }

    fn names(all: &[&str]) -> BTreeSet<OsString> {
        all.iter().map(OsString::from).collect()
    }

    fn wanting(marks: &Marks, handle: u8, name: &str) -> Vec<PathBuf> {
        marks.wanting(&known(handle).id, OsStr::new(name)).map(Path::to_owned).collect()
    }

    #[test]
    fn two_paths_to_one_folder_each_want_their_own_names() {
        let mut marks = Marks::default();
        assert!(marks.enter(Path::new("/a"), &known(1), &names(&["x", "y"])));
        assert!(marks.enter(Path::new("/b"), &known(1), &names(&["y"])));
        assert!(!marks.enter(Path::new("/b"), &known(1), &names(&["y"])), "nothing new");
        assert_eq!(wanting(&marks, 1, "y"), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(wanting(&marks, 1, "x"), [Path::new("/a")]);
        assert!(wanting(&marks, 2, "x").is_empty());
        assert_eq!(marks.forget(Path::new("/a")), None, "the other path still leads there");
        assert_eq!(marks.forget(Path::new("/b")), Some(known(1).id));
        assert!(marks.path_of(&known(1).id).is_none());
    }

    #[test]
    fn folder_made_again_is_another_one() {
        let mut marks = Marks::default();
        marks.enter(Path::new("/a"), &known(1), &names(&["x"]));
        assert!(marks.enter(Path::new("/a"), &known(2), &names(&["x"])));
        assert!(wanting(&marks, 1, "x").is_empty());
        assert_eq!(wanting(&marks, 2, "x"), [Path::new("/a")]);
        assert_eq!(marks.besides(&BTreeMap::new()), [Path::new("/a")]);
    }

    #[test]
    fn handle_is_that_of_the_folder_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let first = Known::look(&real, None).unwrap();
        assert_eq!(Known::look(&link, None).unwrap(), first);
        assert_eq!(Known::look(&link, Some(&first)).unwrap(), first);
        std::fs::remove_dir(&real).unwrap();
        assert_eq!(Known::look(&link, Some(&first)), Err(Errno::ENOENT));
        std::fs::create_dir(&real).unwrap();
        assert_ne!(
            Known::look(&link, Some(&first)).unwrap(),
            first,
            "the same inode number is not the same folder"
        );
    }
}
