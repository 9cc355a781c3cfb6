//! What lies at a path, in the terms in which sock_diag names a listener's inode.
//!
//! sock_diag gives the superblock's device. `st_dev` is another number on btrfs and on some overlays, so the
//! device is found by the mount that the path is on: `statx` gives its id, mountinfo the mount's device. The
//! table of mounts is read once, and again when the kernel says that it changed (`POLLPRI`, proc(5)), for a
//! mount id may be given anew to another file system.
#![allow(unsafe_code)] // statx: nix has no wrapper

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::AuditError;
use crate::listener::Vfs;

/// What kind of file a dentry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DentryKind {
    /// A socket.
    Socket,
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A block or character device.
    Device,
}

impl DentryKind {
    fn of(mode: u32) -> DentryKind {
        match mode & libc::S_IFMT {
            libc::S_IFSOCK => DentryKind::Socket,
            libc::S_IFDIR => DentryKind::Folder,
            libc::S_IFLNK => DentryKind::Symlink,
            libc::S_IFIFO => DentryKind::Fifo,
            libc::S_IFBLK | libc::S_IFCHR => DentryKind::Device,
            _ => DentryKind::File,
        }
    }

    /// In words, with its article.
    pub fn words(self) -> &'static str {
        match self {
            DentryKind::Socket => "a socket",
            DentryKind::File => "a regular file",
            DentryKind::Folder => "a folder",
            DentryKind::Symlink => "a symbolic link",
            DentryKind::Fifo => "a named pipe",
            DentryKind::Device => "a device",
        }
    }
}

/// A directory entry and the inode that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dentry {
    /// What it is.
    pub kind: DentryKind,
    /// The superblock's device in the kernel's encoding, `major << 20 | minor`.
    pub dev: u32,
    /// The inode number.
    pub ino: u64,
    /// The permission bits, without the file type.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the inode last changed, in seconds and nanoseconds (ctime): tells it from a former holder of
    /// its number, which ext4 gives away at once.
    pub changed: (i64, u32),
    /// `st_dev` in the kernel's encoding. Another than `dev` on btrfs, where it tells subvolumes apart, and on some
    /// overlays.
    pub stat_dev: u32,
}

impl Dentry {
    /// The inode as sock_diag would name it. On btrfs, inodes of different subvolumes can have the same name.
    pub fn vfs(&self) -> Vfs {
        Vfs { dev: self.dev, ino: self.ino as u32 }
    }
}

/// Looks at `path` itself, not at what a link there leads to; `None` if nothing lies there. Looking at many
/// paths is cheaper with one [`Mounts`].
///
/// # Errors
/// [`AuditError::Look`], for instance where the folder may not be searched.
pub fn look(path: &Path) -> Result<Option<Dentry>, AuditError> {
    Mounts::new().look(path)
}

/// Looks at paths with a table of mounts that is read as seldom as can be.
#[derive(Debug)]
pub struct Mounts {
    table: Option<File>,
    devices: HashMap<u64, u32>,
    /// The last answer: neighbours are mostly on one mount.
    last: Option<(u64, u32)>,
}

impl Default for Mounts {
    fn default() -> Mounts {
        Mounts::new()
    }
}

impl Mounts {
    /// The mounts of this process.
    pub fn new() -> Mounts {
        Mounts::of(Path::new("/proc/self/mountinfo"))
    }

    /// The mounts of another process, for looking through its `/proc/<pid>/root`.
    pub(crate) fn of_process(pid: i32) -> Mounts {
        Mounts::of(Path::new(&format!("/proc/{pid}/mountinfo")))
    }

    /// Without a readable table devices are taken from `st_dev`, which is right on most file systems.
    fn of(table: &Path) -> Mounts {
        // Most of what is asked of a table that is made for one question does not need it read.
        Mounts { table: File::open(table).ok(), devices: HashMap::new(), last: None }
    }

    /// Reads the table, if it was not read yet or has changed since. Call it before a round of looks.
    pub fn refresh(&mut self) {
        let Some(table) = &self.table else { return };
        if self.devices.is_empty() {
            return self.read();
        }
        let mut watched = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        let changed = PollFlags::POLLPRI | PollFlags::POLLERR;
        if poll(&mut watched, PollTimeout::ZERO).is_ok()
            && watched.iter().filter_map(PollFd::revents).any(|events| events.intersects(changed))
        {
            self.read();
        }
    }

    /// As the free function [`look`].
    ///
    /// # Errors
    /// [`AuditError::Look`], for instance where the folder may not be searched.
    pub fn look(&mut self, path: &Path) -> Result<Option<Dentry>, AuditError> {
        self.dentry(path, libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Looks at what `path` leads to; `None` also for a link that leads nowhere or in a circle.
    ///
    /// # Errors
    /// [`AuditError::Look`], for instance where the folder may not be searched.
    pub fn follow(&mut self, path: &Path) -> Result<Option<Dentry>, AuditError> {
        match self.dentry(path, 0) {
            Err(AuditError::Look { errno: Errno::ELOOP, .. }) => Ok(None),
            answer => answer,
        }
    }

    /// Whether a mount hangs in the tree, as of the last [`Mounts::refresh`].
    pub(crate) fn has(&self, mount: u64) -> bool {
        self.table.is_none() || self.devices.contains_key(&mount)
    }

    /// Whether a file system hangs in the tree, as of the last [`Mounts::refresh`].
    pub(crate) fn has_device(&self, device: u32) -> bool {
        self.devices.values().any(|other| *other == device)
    }

    /// The mount that `path` leads into: its mount point and file system type. Where nothing lies there, of the
    /// nearest folder above that exists.
    pub(crate) fn covering(&mut self, path: &Path) -> Option<(PathBuf, String)> {
        let found = path.ancestors().find_map(|above| statx(above, libc::AT_NO_AUTOMOUNT).ok())?;
        let table = self.bytes()?;
        table.split(|byte| *byte == b'\n').find_map(|line| {
            let (mount, _) = mount(line)?;
            (mount == found.stx_mnt_id).then(|| described(line)).flatten()
        })
    }

    fn dentry(&mut self, path: &Path, flags: libc::c_int) -> Result<Option<Dentry>, AuditError> {
        let found = match statx(path, flags | libc::AT_NO_AUTOMOUNT) {
            Ok(found) => found,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(AuditError::Look { path: path.to_owned(), errno }),
        };
        let mode = u32::from(found.stx_mode);
        Ok(Some(Dentry {
            kind: DentryKind::of(mode),
            dev: self.device(&found),
            ino: found.stx_ino,
            mode: mode & !libc::S_IFMT,
            uid: found.stx_uid,
            gid: found.stx_gid,
            stat_dev: encode(found.stx_dev_major, found.stx_dev_minor),
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        }))
    }

    fn device(&mut self, found: &libc::statx) -> u32 {
        let own = encode(found.stx_dev_major, found.stx_dev_minor);
        if found.stx_mask & libc::STATX_MNT_ID == 0 {
            return own; // before Linux 5.8
        }
        let mount = found.stx_mnt_id;
        if let Some((last, device)) = self.last
            && last == mount
        {
            return device;
        }
        if !self.devices.contains_key(&mount) {
            self.read();
        }
        let device = self.devices.get(&mount).copied().unwrap_or(own);
        self.last = Some((mount, device));
        device
    }

    fn read(&mut self) {
        self.last = None;
        if let Some(bytes) = self.bytes() {
            self.devices = bytes.split(|byte| *byte == b'\n').filter_map(mount).collect();
        }
    }

    /// The table as it is now.
    fn bytes(&mut self) -> Option<Vec<u8>> {
        let table = self.table.as_mut()?;
        let mut bytes = Vec::new();
        table.rewind().ok()?;
        table.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// A line of mountinfo (proc(5)): `id parent major:minor …`.
fn mount(line: &[u8]) -> Option<(u64, u32)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || std::str::from_utf8(fields.next()?).ok();
    let id = next()?.parse().ok()?;
    let _parent = next()?;
    let (major, minor) = next()?.split_once(':')?;
    Some((id, encode(major.parse().ok()?, minor.parse().ok()?)))
}

/// The mount point and the file system's type of a line of mountinfo:
/// `id parent major:minor root point options … - type source …`.
fn described(line: &[u8]) -> Option<(PathBuf, String)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    Some((OsString::from_vec(unescaped(point)).into(), kind))
}

/// Blanks, tabs, newlines and backslashes stand there as three octal digits after a backslash (proc(5)).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\').and_then(|text| std::str::from_utf8(text).ok());
        match digits.and_then(|text| u8::from_str_radix(text, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

/// The id of the mount that a descriptor's file was opened on; `None` before Linux 5.8.
pub(crate) fn mount_of(file: &OwnedFd) -> Option<u64> {
    let found = statx_at(file.as_raw_fd(), Path::new(""), libc::AT_EMPTY_PATH).ok()?;
    (found.stx_mask & libc::STATX_MNT_ID != 0).then_some(found.stx_mnt_id)
}

pub(crate) fn encode(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

fn statx(path: &Path, flags: libc::c_int) -> Result<libc::statx, Errno> {
    statx_at(libc::AT_FDCWD, path, flags)
}

fn statx_at(folder: RawFd, path: &Path, flags: libc::c_int) -> Result<libc::statx, Errno> {
    let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let result = path.with_nix_path(|path| {
        // SAFETY: `path` ends in NUL, and `found` is room for one statx, which is all the kernel writes.
        unsafe { libc::statx(folder, path.as_ptr(), flags, mask, found.as_mut_ptr()) }
    })?;
    Errno::result(result)?;
    // SAFETY: every field of statx is an integer, so zeroes are a value of it, whatever the kernel filled in.
    Ok(unsafe { found.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_gives_its_device() {
        let line = b"36 35 98:17 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount(line), Some((36, 98 << 20 | 17)));
        let escaped = b"36 35 98:17 / /mnt/a\\040b\\134 rw,noatime shared:1 - tmpfs none rw";
        assert_eq!(described(escaped), Some((PathBuf::from("/mnt/a b\\"), "tmpfs".into())));
        assert_eq!(mount(b""), None);
        assert_eq!(mount(b"1 2 3"), None);
    }

    #[test]
    fn nothing_at_a_path_is_no_error_and_a_path_that_cannot_be_asked_for_is() {
        assert_eq!(look(Path::new("/proc/self/no-such-file")), Ok(None));
        assert_eq!(look(Path::new("/proc/self/comm/below-a-file")), Ok(None));
        assert!(look(Path::new(&"x".repeat(300))).is_err());
    }
}
