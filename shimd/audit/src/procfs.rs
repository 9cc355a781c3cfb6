//! Which processes hold a socket: `/proc/<pid>/fd` (proc(5)). There is no shorter way from a socket to its
//! processes; the kernel keeps no record of them.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlinkat};
use nix::sys::stat::Mode;

use crate::error::AuditError;

/// A process in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// Its command name (`comm`).
    pub name: String,
    /// Its executable, where this user may know it.
    pub exe: Option<PathBuf>,
    /// Its effective user.
    pub uid: Option<u32>,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.name)
    }
}

/// Describes a process; `None` if there is none of this id.
pub fn describe(pid: i32) -> Option<Process> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned();
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
    Some(Process { pid, name, exe, uid: uid(pid) })
}

/// The effective user of a process. Not the owner of `/proc/<pid>`, which is root for one that is not dumpable.
pub(crate) fn uid(pid: i32) -> Option<u32> {
    status(pid, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

/// The real user of a process, which one that acts for others for a moment keeps.
pub(crate) fn real_uid(pid: i32) -> Option<u32> {
    status(pid, "Uid:")?.split_whitespace().next()?.parse().ok()
}

/// The groups of a process; none if it is gone.
pub fn groups(pid: i32) -> Vec<u32> {
    let of = |field| status(pid, field).unwrap_or_default();
    let effective = of("Gid:").split_whitespace().nth(1).and_then(|gid| gid.parse().ok());
    of("Groups:").split_whitespace().filter_map(|gid| gid.parse().ok()).chain(effective).collect()
}

/// Whether a process is stopped: by SIGSTOP, by a terminal, or by a debugger. Every user may know.
pub fn is_stopped(pid: i32) -> bool {
    matches!(state(pid), Some(b'T' | b't'))
}

/// Whether a process is stopped by a debugger: SIGCONT does not wake it then.
pub(crate) fn is_traced(pid: i32) -> bool {
    state(pid) == Some(b't')
}

/// The state's letter, of proc_pid_stat(5).
fn state(pid: i32) -> Option<u8> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses, and may hold some.
    stat.rsplitn(2, |byte| *byte == b')').next()?.trim_ascii_start().first().copied()
}

/// Whether none of a listener's holders can accept, there being some: all are stopped, init left aside, which holds
/// the sockets it activates services with.
pub(crate) fn all_stopped(holders: &[i32]) -> bool {
    let mut servers = holders.iter().filter(|pid| **pid != 1 || holders.len() == 1).peekable();
    servers.peek().is_some() && servers.all(|pid| is_stopped(*pid))
}

fn parent(pid: i32) -> Option<i32> {
    status(pid, "PPid:")?.trim().parse().ok()
}

fn status(pid: i32, field: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    String::from_utf8_lossy(&status).lines().find_map(|line| line.strip_prefix(field).map(str::to_owned))
}

/// The sockets of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptors {
    /// Their inodes; none if the process is gone.
    Sockets(HashSet<u64>),
    /// This user may not read them.
    Unreadable,
}

/// Reads which sockets a process holds.
pub fn descriptors(pid: i32) -> Descriptors {
    let mut sockets = HashSet::new();
    match each_socket(pid, |inode| {
        sockets.insert(inode);
    }) {
        Ok(()) | Err(Errno::ENOENT | Errno::ESRCH) => Descriptors::Sockets(sockets),
        Err(_) => Descriptors::Unreadable,
    }
}

/// Whether a process holds a socket; `None` if this user may not know.
pub fn holds(pid: i32, socket_inode: u64) -> Option<bool> {
    match descriptors(pid) {
        Descriptors::Sockets(sockets) => Some(sockets.contains(&socket_inode)),
        Descriptors::Unreadable => None,
    }
}

/// Who holds which sockets, as one walk over `/proc` saw it.
#[derive(Debug, Clone, Default)]
pub struct Census {
    holders: HashMap<u64, Vec<i32>>,
    /// Processes whose descriptors this user may not read, with their users.
    pub unreadable: Vec<(i32, Option<u32>)>,
}

impl Census {
    /// Walks `/proc` once. Looks at the sockets in `wanted`, or at all.
    ///
    /// # Errors
    /// [`AuditError::Proc`] if `/proc` cannot be listed.
    pub fn take(wanted: Option<&HashSet<u64>>) -> Result<Census, AuditError> {
        let mut census = Census::default();
        for pid in processes()? {
            let seen = each_socket(pid, |inode| {
                if wanted.is_none_or(|wanted| wanted.contains(&inode)) {
                    let pids = census.holders.entry(inode).or_default();
                    if pids.last() != Some(&pid) {
                        pids.push(pid);
                    }
                }
            });
            match seen {
                Ok(()) | Err(Errno::ENOENT | Errno::ESRCH) => {}
                Err(_) => census.unreadable.push((pid, uid(pid))),
            }
        }
        Ok(census)
    }

    /// The processes that hold a socket, as far as they could be read.
    pub fn holders(&self, socket_inode: u64) -> &[i32] {
        self.holders.get(&socket_inode).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The processes that hold each of `inodes`, by one walk.
///
/// # Errors
/// [`AuditError::Proc`] if `/proc` cannot be listed.
pub fn holders(inodes: &HashSet<u64>) -> Result<Census, AuditError> {
    Census::take(Some(inodes))
}

/// The one of several holders to name: not init, which holds the sockets it activates services with, and
/// rather a parent than the workers that inherited from it.
pub(crate) fn foremost(pids: &[i32]) -> Option<i32> {
    match pids {
        [] => None,
        [only] => Some(*only),
        several => {
            let candidates = || several.iter().copied().filter(|pid| *pid != 1);
            candidates()
                .find(|pid| parent(*pid).is_none_or(|parent| parent == 1 || !several.contains(&parent)))
                .or_else(|| candidates().next())
        }
    }
}

/// Every process id, in no order.
pub(crate) fn processes() -> Result<Vec<i32>, AuditError> {
    let path = Path::new("/proc");
    let failed = |error: io::Error| AuditError::Proc {
        path: path.to_owned(),
        errno: error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw),
    };
    let mut pids = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// The number of a descriptor by which a process holds a socket; `None` if it holds none.
///
/// # Errors
/// Why its descriptors cannot be read.
pub fn descriptor_of(pid: i32, socket_inode: u64) -> Result<Option<i32>, Errno> {
    let mut found = None;
    each_descriptor(pid, |name, inode| {
        if inode == socket_inode {
            found = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
        }
    })?;
    Ok(found)
}

/// Calls `each` with the inode of every socket that a process holds.
fn each_socket(pid: i32, mut each: impl FnMut(u64)) -> nix::Result<()> {
    each_descriptor(pid, |_, inode| each(inode))
}

/// Calls `each` with the number, in digits, and the inode of every socket that a process holds.
fn each_descriptor(pid: i32, mut each: impl FnMut(&[u8], u64)) -> nix::Result<()> {
    // Held: the names and what they lead to are of one process, and of no successor of its number.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(format!("/proc/{pid}/fd").as_str(), flags, Mode::empty())?;
    for name in names_in(&folder)? {
        match readlinkat(&folder, name.as_os_str()) {
            Ok(target) => {
                if let Some(inode) = socket_inode(target.as_bytes()) {
                    each(name.as_bytes(), inode);
                }
            }
            Err(Errno::ENOENT) => {} // closed meanwhile
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The names in a folder. By its link below `/proc/self`, since nix's `Dir` keeps the descriptor open for ever where
/// fdopendir(3) fails, as it does for the folder of a process that has just ended.
fn names_in(folder: &OwnedFd) -> nix::Result<Vec<OsString>> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    let entries = fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())).map_err(errno)?;
    entries.map(|entry| Ok(entry.map_err(errno)?.file_name())).collect()
}

/// `socket:[123]` is 123.
fn socket_inode(target: &[u8]) -> Option<u64> {
    let number = target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn inode(of: &impl AsRawFd) -> u64 {
        let target = fs::read_link(format!("/proc/self/fd/{}", of.as_raw_fd())).unwrap();
        socket_inode(target.as_os_str().as_bytes()).unwrap()
    }

    #[test]
    fn a_process_holds_its_own_sockets_and_a_walk_finds_it() {
        let (one, _other) = UnixStream::pair().unwrap();
        let me = std::process::id() as i32;
        let inode = inode(&one);
        assert_eq!(holds(me, inode), Some(true));
        let census = holders(&HashSet::from([inode])).unwrap();
        assert_eq!(census.holders(inode), [me]);
        assert_eq!(foremost(census.holders(inode)), Some(me));
        drop(one);
        assert_eq!(holds(me, inode), Some(false));
    }

    #[test]
    fn a_process_is_described_and_one_that_is_gone_holds_nothing() {
        let me = describe(std::process::id() as i32).unwrap();
        assert!(!me.name.is_empty());
        assert_eq!(me.exe, std::env::current_exe().ok());
        assert_eq!(me.uid, Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(describe(i32::MAX), None);
        assert_eq!(descriptors(i32::MAX), Descriptors::Sockets(HashSet::new()));
    }

    #[test]
    fn the_folder_of_a_process_that_ends_is_not_kept_open() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let path = format!("/proc/{}/fd", child.id());
        let folder = open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        assert!(!names_in(&folder).unwrap().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(names_in(&folder), Err(Errno::ENOENT | Errno::ESRCH)), "{:?}", names_in(&folder));
        drop(folder);
        let own = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets: Vec<_> = own.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        assert!(!targets.iter().any(|target| *target == Path::new(&path)), "{targets:?}");
    }

    #[test]
    fn only_sockets_have_a_socket_inode() {
        assert_eq!(socket_inode(b"socket:[812]"), Some(812));
        assert_eq!(socket_inode(b"pipe:[812]"), None);
        assert_eq!(socket_inode(b"socket:[]"), None);
    }
}
