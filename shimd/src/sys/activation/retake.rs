//! A listener taken back from the instance that it was handed to, after the daemon that bound it was killed.
//!
//! pidfd_getfd(2) gives a copy of another process's descriptor to whoever may attach to it with ptrace(2): root, or the
//! same user where Yama (`kernel.yama.ptrace_scope`) does not keep that to descendants, which an adopted instance's
//! processes are not.
#![allow(unsafe_code)] // pidfd_getfd has no wrapper in nix

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use socket_audit::{AuditError, Diag, Listener, ListenerId, ListenerState, Name, procfs};

use super::super::pidfd::PidFd;
use super::{Held, Wanted};

/// Why a listener that an instance holds could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum RetakeError {
    /// The kernel does not let us.
    #[error(
        "{}: process {pid} holds the listener, and it cannot be taken back from it: {}; let shimd look into its services (kernel.yama.ptrace_scope=0, or run it as root), or run it under systemd with FileDescriptorStoreMax=", path.display(), errno.desc()
    )]
    Refused {
        /// The path, or `@name`.
        path: PathBuf,
        /// Who holds it.
        pid: i32,
        /// What the kernel answered.
        errno: Errno,
    },
    /// The kernel could not be asked who listens.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// Takes the listener that is wanted back from one of these processes; `None` if none of them holds it. It is the one
/// that is `known`, or else one that is bound to the very path.
///
/// # Errors
/// [`RetakeError`], where one of them holds it and it could not be had from any.
pub fn retake(wanted: &Wanted, known: Option<ListenerId>, pids: &[i32]) -> Result<Option<Held>, RetakeError> {
    if pids.is_empty() {
        return Ok(None);
    }
    let mut refused = None;
    for id in candidates(wanted, known)? {
        for &pid in pids {
            match copy(pid, id.inode) {
                Ok(Some(fd)) => {
                    if let Ok(held) = Held::adopt(fd, wanted, Some(id)) {
                        return Ok(Some(held));
                    }
                }
                Ok(None) => {}
                Err(errno) => refused = Some(RetakeError::Refused { path: wanted.path.clone(), pid, errno }),
            }
        }
    }
    refused.map_or(Ok(None), Err)
}

/// The kernel's sockets that it can be.
fn candidates(wanted: &Wanted, known: Option<ListenerId>) -> Result<Vec<ListenerId>, AuditError> {
    let mut diag = Diag::open()?;
    if let Some(known) = known
        && diag.query(known.inode, known.cookie)?.is_some()
    {
        return Ok(vec![known]);
    }
    let at_path = |listener: &Listener| {
        listener.state == ListenerState::Listening
            && match &listener.name {
                Some(Name::Path(path)) => **path == wanted.path,
                Some(Name::Abstract(name)) => {
                    wanted.path.as_os_str().as_bytes().strip_prefix(b"@") == Some(name)
                }
                None => false,
            }
    };
    Ok(diag.dump()?.iter().filter(|l| at_path(l)).map(Listener::id).collect())
}

/// Copies of all descriptors by which a process holds one of these sockets: what a daemon that is to end keeps for its
/// services. What the kernel does not let us have is left out.
pub fn kept_by(pid: i32, sockets: &BTreeSet<u64>) -> Vec<OwnedFd> {
    let (Ok(process), Ok(entries)) = (PidFd::open(pid), Path::new(&format!("/proc/{pid}/fd")).read_dir())
    else {
        return Vec::new();
    };
    let wanted = |entry: DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        sockets.contains(&inode).then(|| take(&process, number).ok()).flatten()
    };
    entries.flatten().filter_map(wanted).collect()
}

/// A copy of the descriptor by which a process holds a socket; `None` if it holds it no more.
fn copy(pid: i32, socket_inode: u64) -> Result<Option<OwnedFd>, Errno> {
    // Before the look at its descriptors: they are this process's then, and no successor's of its number.
    let Ok(process) = PidFd::open(pid) else { return Ok(None) };
    let Ok(Some(number)) = procfs::descriptor_of(pid, socket_inode) else {
        return match Path::new(&format!("/proc/{pid}/fd")).read_dir() {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(Errno::EACCES),
            _ => Ok(None),
        };
    };
    match take(&process, number) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::EBADF | Errno::ESRCH) => Ok(None), // closed, or gone, meanwhile
        Err(errno) => Err(errno),
    }
}

fn take(process: &PidFd, number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: three integers; it returns a new descriptor (always close-on-exec) or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_fd().as_raw_fd(), number, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
