//! Whoever has a home's lock: who it is for certain, and how it is ended.
//!
//! The lock file's text is only a hint. A process is the holder if, held by its pidfd, it has that very file open and
//! the kernel says of the descriptor that it is locked (`lock:` in proc_pid_fdinfo(5)); it is `shimd` if that is the name
//! of its program. What is neither is never signalled.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::lock::written_pid;
use super::pidfd::{PidFd, ProcessError, errno_of};

/// The daemon's program.
const PROGRAM: &str = "shimd";

/// The process that holds a lock.
#[derive(Debug)]
pub struct Holder {
    process: PidFd,
}

/// Why the holder of a lock is not to be ended.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// The file names nobody, or a process that does not hold it.
    #[error("{}: the lock is held, and not by the process that it names ({}); see `lslocks`, and end the holder by hand",
        lock.display(), pid.map_or("none".to_owned(), |pid| pid.to_string()))]
    Unknown {
        /// The lock file.
        lock: PathBuf,
        /// What the file says.
        pid: Option<i32>,
    },
    /// It is another program.
    #[error("{}: the lock is held by process {pid}, which runs {} and not {PROGRAM}; end it by hand", lock.display(), exe.display())]
    Stranger {
        /// The lock file.
        lock: PathBuf,
        /// Who holds it.
        pid: i32,
        /// Its program.
        exe: PathBuf,
    },
    /// The kernel does not let us look, or signal.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The same of a file.
    #[error("cannot look at {}: {}; run this as the user of the shimd that runs, or as root", path.display(), errno.desc())]
    Look {
        /// The file.
        path: PathBuf,
        /// The system's error.
        errno: Errno,
    },
}

impl Holder {
    /// The daemon that holds the lock at `path`; `None` where it is gone by now.
    ///
    /// # Errors
    /// [`HolderError`], where it is not a daemon of ours for certain.
    pub fn of(path: &Path) -> Result<Option<Holder>, HolderError> {
        let look = |path: &Path| {
            let path = path.to_owned();
            move |e: io::Error| HolderError::Look { path, errno: errno_of(&e) }
        };
        let file = fs::File::open(path).map_err(look(path))?;
        let meta = file.metadata().map_err(look(path))?;
        let pid = written_pid(&file);
        let unknown = || HolderError::Unknown { lock: path.to_owned(), pid };
        let pid = pid.ok_or_else(unknown)?;
        let process = match PidFd::open(pid) {
            Ok(process) => process,
            Err(e) if e.is_gone() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let seen = locks(pid, (meta.dev(), meta.ino()))
            .and_then(|holds| Ok((holds, fs::read_link(format!("/proc/{pid}/exe"))?)));
        // What was read is this process's only if it is still there.
        if !process.is_alive() {
            return Ok(None);
        }
        let (holds, exe) = seen.map_err(look(Path::new(&format!("/proc/{pid}"))))?;
        if !holds {
            return Err(unknown());
        }
        if !is_daemon(&exe) {
            return Err(HolderError::Stranger { lock: path.to_owned(), pid, exe });
        }
        Ok(Some(Holder { process }))
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Its user: the effective one.
    ///
    /// # Errors
    /// [`HolderError::Look`].
    pub fn user(&self) -> Result<u32, HolderError> {
        let path = PathBuf::from(format!("/proc/{}", self.pid()));
        let meta = fs::metadata(&path).map_err(|e| HolderError::Look { path, errno: errno_of(&e) })?;
        Ok(meta.uid())
    }

    /// The environment that it was started with (proc_pid_environ(5)).
    ///
    /// # Errors
    /// [`HolderError::Look`].
    pub fn environment(&self) -> Result<Vec<(OsString, OsString)>, HolderError> {
        let path = PathBuf::from(format!("/proc/{}/environ", self.pid()));
        let text = fs::read(&path).map_err(|e| HolderError::Look { path, errno: errno_of(&e) })?;
        let variable = |text: &[u8]| {
            let at = text.iter().position(|byte| *byte == b'=')?;
            let (name, value) = text.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())))
        };
        Ok(text.split(|byte| *byte == 0).filter_map(variable).collect())
    }

    /// Sends a signal to this very process; one that is gone needs none.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn signal(&self, signal: libc::c_int) -> Result<(), ProcessError> {
        match self.process.signal(signal) {
            Err(e) if e.is_gone() => Ok(()),
            sent => sent,
        }
    }

    /// Waits until it is gone, and so has let go of all its files: whether it is, within `patience`.
    pub fn gone_within(&self, patience: Duration) -> bool {
        self.process.wait_exited(patience)
    }
}

/// Whether a process has this file open and locked.
fn locks(pid: i32, file: (u64, u64)) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        // Closed meanwhile, or of a file system that is gone: not the lock.
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        if (meta.dev(), meta.ino()) == file {
            let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
            let info = fs::read_to_string(info).unwrap_or_default();
            if info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// A program that was replaced on disk while it runs is named so by the kernel.
fn is_daemon(exe: &Path) -> bool {
    let name = exe.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.strip_suffix(" (deleted)").unwrap_or(&name) == PROGRAM
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::lock::HomeLock;

    #[test]
    fn who_has_the_file_open_and_locked_is_its_holder_and_a_test_is_no_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = HomeLock::take(&path).unwrap();
        match Holder::of(&path) {
            Err(HolderError::Stranger { pid, .. }) => assert_eq!(pid, std::process::id().cast_signed()),
            other => panic!("{other:?}"),
        }
        drop(lock);
        let held = Holder::of(&path);
        assert!(matches!(held, Err(HolderError::Unknown { pid: Some(_), .. })), "{held:?}");
        fs::write(&path, "nobody\n").unwrap();
        assert!(matches!(Holder::of(&path), Err(HolderError::Unknown { pid: None, .. })));
    }

    #[test]
    fn a_replaced_program_is_still_known() {
        assert!(is_daemon(Path::new("/usr/bin/shimd")));
        assert!(is_daemon(Path::new("/usr/bin/shimd (deleted)")));
        assert!(!is_daemon(Path::new("/usr/bin/shimd-other")));
        assert!(!is_daemon(Path::new("/usr/bin/flock")));
    }
}
