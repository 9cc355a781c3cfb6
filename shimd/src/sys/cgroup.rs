//! cgroup v2: the one way to name all processes of an instance, whatever they do (double forks, new sessions).
//!
//! `<own cgroup>/shimd-<home tag>/<service>.<generation>`. The hierarchy is found through `/proc/self/mountinfo`
//! (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid), the daemon's place in it through `/proc/self/cgroup`.
//! Sources: cgroups(7), `Documentation/admin-guide/cgroup-v2.rst`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::AccessFlags;

use super::pidfd::errno_of;

/// `cgroup.events` and rmdir learn of a death up to tens of milliseconds late: how often to try again, how long.
const RMDIR_POLL: Duration = Duration::from_millis(5);
const RMDIR_PATIENCE: Duration = Duration::from_secs(5);

/// Something about a cgroup failed, or there is none to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    /// Process trees are tracked by session, parents and mark instead.
    #[error("no writable cgroup v2: {0}")]
    Unavailable(String),
    /// The kernel refused.
    #[error("cannot {action} {}: {}", path.display(), errno.desc())]
    Refused {
        /// What was tried, in words that fit after "cannot".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the kernel answered.
        errno: Errno,
    },
}

/// The folder under which the daemon makes one cgroup an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    base: PathBuf,
}

impl Cgroups {
    /// Finds the daemon's own cgroup and makes `shimd-<home_tag>` in it.
    ///
    /// # Errors
    /// [`CgroupError::Unavailable`], with the reason, where there is no cgroup v2 or the daemon may not use it.
    pub fn probe(home_tag: &str) -> Result<Cgroups, CgroupError> {
        let why_not = |why: String| CgroupError::Unavailable(why);
        let read = |path: &str| fs::read(path).map_err(|e| why_not(format!("cannot read {path}: {e}")));
        let membership = read("/proc/self/cgroup")?;
        let own = own_path(&membership).ok_or_else(|| why_not("the daemon is in none".into()))?;
        let own = mounted_at(&read("/proc/self/mountinfo")?, &own)
            .ok_or_else(|| why_not(format!("the daemon's own, {}, is not mounted", own.display())))?;
        // Moving a process into a child needs the right to write to the common ancestor's cgroup.procs.
        nix::unistd::eaccess(&own.join("cgroup.procs"), AccessFlags::W_OK)
            .map_err(|e| why_not(format!("{}: {}", own.display(), e.desc())))?;
        let name = format!("shimd-{home_tag}");
        // A daemon that was started from within one of its own services is in that one's cgroup, and leaves it.
        let home = own.ancestors().find(|a| a.ends_with(&name)).and_then(Path::parent);
        if let Some(home) = home {
            fs::write(home.join("cgroup.procs"), "0")
                .map_err(|e| why_not(format!("{}: {e}", home.display())))?;
        }
        let base = home.unwrap_or(&own).join(name);
        make(&base).map_err(|e| why_not(e.to_string()))?;
        match fs::read_to_string(base.join("cgroup.type")) {
            Ok(kind) if kind.trim() != "domain" => {
                Err(why_not(format!("{} is {}", base.display(), kind.trim())))
            }
            _ => Ok(Cgroups { base }),
        }
    }

    /// The folder of all instances.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Makes the cgroup of one instance. It is new: an empty one of that name is removed first. One that still has
    /// processes is another instance's, or of a launch that was given up and is not gone yet: then it gets another name.
    ///
    /// # Errors
    /// As the kernel refuses; `EBUSY` where the other name is taken too.
    pub fn create(&self, service: &str, generation: u64) -> Result<PathBuf, CgroupError> {
        let path = self.base.join(format!("{service}.{generation}"));
        if fs::create_dir(&path).is_ok() {
            return Ok(path);
        }
        make(&self.base)?; // an empty one is anybody's to remove
        let path = match remove_tree(&path) {
            Err(CgroupError::Refused { errno: Errno::EBUSY, .. }) => {
                let other = path.with_added_extension("other");
                remove_tree(&other)?;
                other
            }
            removed => removed.map(|()| path)?,
        };
        make(&path)?;
        Ok(path)
    }

    /// Removes all cgroups of instances that have no process left, as after spawns that failed or a daemon that was
    /// killed; and the folder of them all, if that leaves it empty. Not while an instance is being started.
    pub fn sweep(&self) {
        let emptied = children(&self.base).into_iter().map(|path| remove_tree(&path));
        for result in emptied.chain(std::iter::once_with(|| rmdir(&self.base))) {
            if let Err(error) = result
                && !matches!(error, CgroupError::Refused { errno: Errno::EBUSY, .. })
            {
                tracing::warn!(%error, "a cgroup is left behind");
            }
        }
    }
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(refused("make the cgroup", path, &e)),
        _ => Ok(()),
    }
}

fn refused(action: &'static str, path: &Path, error: &io::Error) -> CgroupError {
    CgroupError::Refused { action, path: path.to_owned(), errno: errno_of(error) }
}

/// The numbers of all live processes in the cgroup at `path` and beneath it. None where the cgroup is gone.
pub(crate) fn pids(path: &Path) -> Result<Vec<i32>, CgroupError> {
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let procs = folder.join("cgroup.procs");
        match fs::read_to_string(&procs) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(refused("read", &procs, &e)),
        }
        if has_children(&folder) {
            folders.extend(children(&folder));
        }
    }
    // 0 stands for a process outside of the daemon's pid namespace.
    found.retain(|&pid| pid > 0);
    Ok(found)
}

/// SIGKILL to all processes of the cgroup and beneath it, at once (Linux 5.14).
pub(crate) fn kill(path: &Path) -> Result<(), CgroupError> {
    let file = path.join("cgroup.kill");
    match fs::write(&file, "1") {
        Err(e) if is_gone(&e) && !path.exists() => Ok(()),
        Err(e) => Err(refused("write to", &file, &e)),
        Ok(()) => Ok(()),
    }
}

/// Removes the cgroup and those that the service made beneath it, waiting a little for the kernel to see that the last
/// process is gone. Fine if it is gone already.
///
/// # Errors
/// `EBUSY`, where it still has processes after 5 s.
pub async fn remove(path: &Path) -> Result<(), CgroupError> {
    let deadline = tokio::time::Instant::now() + RMDIR_PATIENCE;
    loop {
        match remove_tree(path) {
            Err(CgroupError::Refused { errno: Errno::EBUSY, .. })
                if tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(RMDIR_POLL).await;
            }
            result => return result,
        }
    }
}

/// rmdir, children first, where no process is left in all of it; a cgroup's files go with it.
fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    match pids(path)?.is_empty() {
        true => children(path).iter().try_for_each(|child| remove_tree(child)).and_then(|()| rmdir(path)),
        false => Err(refused("remove the cgroup", path, &Errno::EBUSY.into())),
    }
}

fn rmdir(path: &Path) -> Result<(), CgroupError> {
    match fs::remove_dir(path) {
        Err(e) if !is_gone(&e) => Err(refused("remove the cgroup", path, &e)),
        _ => Ok(()),
    }
}

/// Whether there are cgroups beneath one. The kernel counts a link for each (`kernfs_refresh_inode`); what does not look so is
/// to be listed.
pub(crate) fn has_children(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|found| found.nlink() != 2)
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// ENODEV: the file was open, or being opened, when its cgroup went.
fn is_gone(error: &io::Error) -> bool {
    matches!(errno_of(error), Errno::ENOENT | Errno::ENODEV)
}

/// The path in the line `0::<path>` of `/proc/<pid>/cgroup`.
fn own_path(membership: &[u8]) -> Option<PathBuf> {
    let path = membership.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(OsString::from_vec(path.to_vec()).into())
}

/// Where the cgroup `own` is to be found: on a mount of type cgroup2 whose root is at or above it.
fn mounted_at(mountinfo: &[u8], own: &Path) -> Option<PathBuf> {
    let mut found = None; // a later mount covers an earlier one
    for line in mountinfo.split(|&b| b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        let kind = fields.iter().position(|&f| f == b"-").and_then(|dash| fields.get(dash + 1));
        if kind != Some(&b"cgroup2".as_slice()) {
            continue;
        }
        if let (Some(root), Some(point)) = (fields.get(3), fields.get(4))
            && let Ok(below) = own.strip_prefix(unescape(root))
        {
            found = Some(unescape(point).join(below));
        }
    }
    found
}

/// mountinfo writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code =
            tail.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_path_is_the_unified_one() {
        let hybrid = b"9:name=systemd:/\n4:memory:/x\n0::/user.slice/a b\n";
        assert_eq!(own_path(hybrid), Some("/user.slice/a b".into()));
        assert_eq!(own_path(b"4:memory:/x\n"), None);
    }

    #[test]
    fn hierarchy_is_found_on_unified_hybrid_and_partial_mounts() {
        let unified = b"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted_at(unified, Path::new("/a/b")), Some("/sys/fs/cgroup/a/b".into()));
        let hybrid = b"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted_at(hybrid, Path::new("/")), Some("/sys/fs/cgroup/unified".into()));
        let partial = b"41 31 0:38 /docker/x /mnt/a\\040b rw - cgroup2 none rw\n";
        assert_eq!(mounted_at(partial, Path::new("/docker/x/y")), Some("/mnt/a b/y".into()));
        assert_eq!(mounted_at(partial, Path::new("/elsewhere")), None);
        assert_eq!(
            mounted_at(b"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", Path::new("/")),
            None
        );
    }
}
