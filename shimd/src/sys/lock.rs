//! One daemon for each home: an advisory `flock(2)` on a file, never the file's existence. The kernel
//! lets go of it when the holder ends, however it ends. The file's text, a pid, only serves messages.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// How often the file may be exchanged under us before that is an error.
const TRIES: u32 = 100;

/// The lock; held until it is dropped.
#[derive(Debug)]
pub struct HomeLock {
    path: PathBuf,
    file: Mutex<Flock<File>>,
}

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon runs in this home.
    #[error("{}: another shimd{} runs here; use it, stop it, or set SHIMD_HOME to another folder",
        path.display(), pid.map_or(String::new(), |p| format!(" (pid {p})")))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the file says of its holder, where it says so.
        pid: Option<i32>,
    },
    /// The file cannot be used.
    #[error("{}: cannot {step}: {source}; {}", path.display(), remedy(source))]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The step, in words.
        step: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// What to do where the file cannot be used.
fn remedy(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::ReadOnlyFilesystem => {
            "remount the file system for writing, or set SHIMD_HOME to another folder"
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            "free disk space, or set SHIMD_HOME to another folder"
        }
        _ => "see that the folder exists and is the daemon's own",
    }
}

impl HomeLock {
    /// Takes the lock at `path` and writes our pid there; the file is made where it is missing, in a
    /// folder that exists.
    ///
    /// A file that was removed or exchanged between opening and locking is let go and the new one tried:
    /// two daemons never hold two files of one name.
    ///
    /// # Errors
    /// [`LockError::Held`] at once where another process holds it; [`LockError::Io`].
    pub fn take(path: &Path) -> Result<HomeLock, LockError> {
        let failed = |step| move |source| LockError::Io { path: path.into(), step, source };
        for _ in 0..TRIES {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
                .open(path)
                .map_err(failed("open the lock file"))?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((file, Errno::EWOULDBLOCK)) => {
                    return Err(LockError::Held { path: path.into(), pid: written_pid(&file) });
                }
                Err((_, errno)) => return Err(failed("lock the file")(errno.into())),
            };
            if !lies_at(&file, path) {
                continue;
            }
            let write = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            write.map_err(failed("write the pid"))?;
            return Ok(HomeLock { path: path.into(), file: Mutex::new(file) });
        }
        Err(failed("lock the file")(io::Error::other("it is exchanged again and again")))
    }

    /// Whether the locked file still lies at its path. Where it does not, another daemon can come up
    /// beside this one.
    pub fn still_ours(&self) -> bool {
        lies_at(&self.file(), &self.path)
    }

    /// Takes the lock anew where its file is gone or is another: true if it had to. The folder must exist.
    ///
    /// # Errors
    /// [`LockError::Held`] where another daemon has come up meanwhile; [`LockError::Io`].
    pub fn renew(&self) -> Result<bool, LockError> {
        if self.still_ours() {
            return Ok(false);
        }
        let new = HomeLock::take(&self.path)?;
        *self.file() = new.file.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(true)
    }

    fn file(&self) -> MutexGuard<'_, Flock<File>> {
        // Nothing panics while it is locked.
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lies_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// What a lock file says of its holder.
pub(super) fn written_pid(file: &File) -> Option<i32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A separate open file description is all that a second process would have, too.
    #[test]
    fn a_second_daemon_is_refused_and_told_the_pid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = HomeLock::take(&path).unwrap();
        assert!(lock.still_ours());
        match HomeLock::take(&path) {
            Err(LockError::Held { pid, .. }) => assert_eq!(pid, Some(std::process::id().cast_signed())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        HomeLock::take(&path).expect("free again, though the file is still there");
    }

    #[test]
    fn an_exchanged_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = HomeLock::take(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(!lock.still_ours());
        let other = HomeLock::take(&path).unwrap();
        assert!(other.still_ours());
        assert!(!lock.still_ours());
        assert!(matches!(lock.renew(), Err(LockError::Held { .. })), "another has it now");
        drop(other);
        assert!(lock.renew().unwrap());
        assert!(lock.still_ours());
        assert!(!lock.renew().unwrap());
        assert!(matches!(HomeLock::take(&path), Err(LockError::Held { .. })));
    }

    /// Threads remove the file while others take the lock: the one that lies at the path is held once.
    #[test]
    fn never_two_holders_of_the_file_at_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(lock) = HomeLock::take(&path) {
                            let before = holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert_eq!(before, 0);
                            holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            // Only the holder removes it, so a waiter has opened a file that goes.
                            std::fs::remove_file(&path).unwrap();
                            drop(lock);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(HomeLock::take(&path), Err(LockError::Io { .. })));
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn another_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = HomeLock::take(&path).unwrap();
        let flock = || {
            let mut command = std::process::Command::new("flock");
            command.args(["--nonblock", "--conflict-exit-code", "9"]).arg(&path).arg("true").status()
        };
        match flock() {
            Err(error) => println!("skipped: no flock(1) here: {error}"),
            Ok(status) => {
                assert_eq!(status.code(), Some(9));
                drop(lock);
                assert_eq!(flock().unwrap().code(), Some(0));
            }
        }
    }
}
