//! A guard on a folder: a shared BSD lock, and times that are renewed.
//!
//! | who cleans by age | what spares a folder | what spares a file |
//! | --- | --- | --- |
//! | systemd-tmpfiles, a folder below the rule's | a lock on it (it asks for an exclusive one, and passes over what it is refused) | young times |
//! | systemd-tmpfiles, the rule's own folder | nothing | young times, or a name that the kernel lists |
//! | tmpreaper, `find -mtime` | young times | young times |
//!
//! The descriptor keeps its mount busy, as the listener that is bound there does anyway: a guard is held no longer
//! than that. It is closed on exec: no service inherits it. Sources: tmpfiles.d(5), flock(2), utimensat(2).

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, UtimensatFlags, fstat, stat, utimensat};
use nix::sys::time::TimeSpec;

/// A shared lock on a folder, let go when it is dropped.
#[derive(Debug)]
pub struct Guard {
    folder: Flock<OwnedFd>,
}

impl Guard {
    /// Locks a folder.
    ///
    /// # Errors
    /// `EWOULDBLOCK` while somebody has it exclusively (a cleaner that is in it just now), `EACCES` where the folder
    /// cannot be read, `EMFILE`, and whatever else open(2) says.
    pub fn take(folder: &Path) -> Result<Guard, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let found = open(folder, flags, Mode::empty())?;
        let folder = Flock::lock(found, FlockArg::LockSharedNonblock).map_err(|(_, errno)| errno)?;
        Ok(Guard { folder })
    }

    /// Whether the locked folder is the one that lies at the path now.
    pub fn is_of(&self, folder: &Path) -> bool {
        let (Ok(ours), Ok(there)) = (fstat(&*self.folder), stat(folder)) else { return false };
        (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
    }
}

/// Makes both times of what lies at the path now's; of a symbolic link, its own.
///
/// # Errors
/// `EACCES` without the right to write to it, `EROFS`, `ENOENT`.
pub fn touch(path: &Path) -> Result<(), Errno> {
    let now = TimeSpec::UTIME_NOW;
    utimensat(AT_FDCWD, path, &now, &now, UtimensatFlags::NoFollowSymlink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::{Duration, SystemTime};

    fn exclusively(folder: &Path) -> Option<Errno> {
        Flock::lock(File::open(folder).unwrap(), FlockArg::LockExclusiveNonblock).err().map(|(_, e)| e)
    }

    #[test]
    fn a_cleaner_is_refused_while_it_is_held() {
        let world = tempfile::tempdir().unwrap();
        let guard = Guard::take(world.path()).unwrap();
        let second = Guard::take(world.path()).unwrap();
        assert_eq!(exclusively(world.path()), Some(Errno::EWOULDBLOCK));
        drop(guard);
        assert_eq!(exclusively(world.path()), Some(Errno::EWOULDBLOCK));
        drop(second);
        assert_eq!(exclusively(world.path()), None);
    }

    #[test]
    fn a_folder_that_another_has_is_not_waited_for() {
        let world = tempfile::tempdir().unwrap();
        let _cleaner = Flock::lock(File::open(world.path()).unwrap(), FlockArg::LockExclusive).unwrap();
        assert_eq!(Guard::take(world.path()).err(), Some(Errno::EWOULDBLOCK));
    }

    #[test]
    fn another_folder_at_the_path_is_not_the_guarded_one() {
        let world = tempfile::tempdir().unwrap();
        let folder = world.path().join("web");
        fs::create_dir(&folder).unwrap();
        let guard = Guard::take(&folder).unwrap();
        assert!(guard.is_of(&folder));
        fs::rename(&folder, world.path().join("old")).unwrap();
        assert!(!guard.is_of(&folder));
        fs::create_dir(&folder).unwrap();
        assert!(!guard.is_of(&folder));
    }

    #[test]
    fn times_are_renewed_of_the_name_itself() {
        let world = tempfile::tempdir().unwrap();
        let (file, link) = (world.path().join("file"), world.path().join("link"));
        let old = SystemTime::now() - Duration::from_secs(172_800);
        File::create(&file).unwrap().set_modified(old).unwrap();
        symlink(&file, &link).unwrap();
        touch(&link).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), old);
        touch(&file).unwrap();
        assert!(fs::metadata(&file).unwrap().mtime() > fs::symlink_metadata(&link).unwrap().mtime() - 60);
        assert_eq!(touch(&world.path().join("none")), Err(Errno::ENOENT));
    }
}
