//! Folders: those of sockets, made where they are missing, and the daemon's own, which nobody else may
//! reach into.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{AccessFlags, access, geteuid};

/// Whether the folder had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created(pub bool);

/// Why a folder cannot be had or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}; {}", path.display(), problem.fix())]
pub struct FolderError {
    /// The component at fault: the folder itself or one above it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: FolderProblem,
}

/// What is wrong with a folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FolderProblem {
    /// A file, or anything else that is no folder, lies there.
    #[error("is not a folder")]
    NotAFolder,
    /// A symbolic link lies where the daemon's own folder should.
    #[error("is a symbolic link")]
    Link,
    /// It belongs to another user.
    #[error("belongs to user {uid}, not to the daemon's user {ours}")]
    OthersOwn {
        /// Its owner.
        uid: u32,
        /// The daemon's user.
        ours: u32,
    },
    /// The system refused a step.
    #[error("cannot {step}: {}", errno.desc())]
    Refused {
        /// The step, in words.
        step: &'static str,
        /// The system's error.
        errno: Errno,
    },
}

impl FolderProblem {
    /// What to do next.
    pub fn fix(&self) -> &'static str {
        match self {
            FolderProblem::NotAFolder => "move it away, or name another folder",
            FolderProblem::Link => "name the real folder instead of the link",
            FolderProblem::OthersOwn { .. } => {
                "name a folder of your own (SHIMD_HOME), or give it to that user"
            }
            FolderProblem::Refused { errno, .. } => match errno {
                Errno::EACCES => "give the daemon's user write permission here",
                // access(2) says so of an immutable folder, to root as well.
                Errno::EPERM => {
                    "give the daemon's user write permission here, or take its immutable flag away (lsattr -d, chattr -i)"
                }
                Errno::EROFS => "remount the file system for writing, or name another folder",
                Errno::ENOSPC | Errno::EDQUOT => "free some space on this file system",
                Errno::ENAMETOOLONG => "name a shorter path",
                Errno::ELOOP => "these links lead in a circle: name the real folder",
                _ => "put that right, and try again",
            },
        }
    }
}

/// Sees to it that `path` is a folder that the daemon can write to. What is missing is made: the folder
/// with `mode` and `owner`, those above it with `0755`. What exists is left as it is.
///
/// # Errors
/// [`FolderError`] naming the component at fault. Folders above it that were made stay.
pub fn ensure_folder(path: &Path, owner: Option<(u32, u32)>, mode: u32) -> Result<Created, FolderError> {
    let created = make_all(path, 0o755, mode)?;
    if created.0
        && let Some((uid, gid)) = owner
    {
        open_folder(path)
            .and_then(|folder| fchown(&folder, Some(uid), Some(gid)))
            .map_err(|e| refused(path, "give it to its user", &e))?;
    }
    // The daemon's real user is its effective one, which the C library finds out anew each time that it is asked for that.
    access(path, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| FolderError {
        path: path.into(),
        problem: FolderProblem::Refused { step: "write in the folder", errno },
    })?;
    Ok(created)
}

/// Sees to it that `path` is a folder of the daemon's user alone: made with `0700`, and where it exists,
/// its group's and others' permissions are taken away.
///
/// # Errors
/// [`FolderError`]; a link and a folder of another user are refused and left as they are.
pub fn private_folder(path: &Path) -> Result<Created, FolderError> {
    let created = make_all(path, 0o700, 0o700)?;
    let problem = |problem| FolderError { path: path.into(), problem };
    if path.symlink_metadata().is_ok_and(|m| m.is_symlink()) {
        return Err(problem(FolderProblem::Link));
    }
    let folder = open_folder(path).map_err(|e| refused(path, "open the folder", &e))?;
    let found = folder.metadata().map_err(|e| refused(path, "look at the folder", &e))?;
    let ours = geteuid().as_raw();
    if found.uid() != ours {
        return Err(problem(FolderProblem::OthersOwn { uid: found.uid(), ours }));
    }
    if found.mode() & 0o077 != 0 {
        let tight = Permissions::from_mode(found.mode() & 0o7700);
        folder.set_permissions(tight).map_err(|e| refused(path, "tighten its permissions", &e))?;
    }
    Ok(created)
}

/// `mkdir -p`: `above` is the mode of the folders on the way, `mode` that of the last, whatever the umask.
fn make_all(path: &Path, above: u32, mode: u32) -> Result<Created, FolderError> {
    match path.metadata() {
        Ok(found) if found.is_dir() => return Ok(Created(false)),
        Ok(_) => return Err(FolderError { path: path.into(), problem: FolderProblem::NotAFolder }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        // The component that is a file is found further up.
        Err(e) if e.raw_os_error() == Some(Errno::ENOTDIR as i32) => {}
        Err(e) => return Err(refused(path, "look at the folder", &e)),
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_all(parent, above, above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => open_folder(path)
            .and_then(|folder| folder.set_permissions(Permissions::from_mode(mode)))
            .map(|()| Created(true))
            .map_err(|e| refused(path, "set its permissions", &e)),
        // Made by someone else meanwhile, or a link that leads nowhere lies there.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match path.metadata() {
            Ok(found) if found.is_dir() => Ok(Created(false)),
            _ => Err(FolderError { path: path.into(), problem: FolderProblem::NotAFolder }),
        },
        Err(e) => Err(refused(path, "make the folder", &e)),
    }
}

fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn refused(path: &Path, step: &'static str, error: &io::Error) -> FolderError {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    FolderError { path: path.into(), problem: FolderProblem::Refused { step, errno } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn makes_what_is_missing_and_leaves_what_exists() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b/c");
        assert_eq!(ensure_folder(&path, None, 0o770).unwrap(), Created(true));
        assert_eq!((mode(&tmp.path().join("a/b")), mode(&path)), (0o755, 0o770));
        assert_eq!(ensure_folder(&path, None, 0o700).unwrap(), Created(false));
        assert_eq!(mode(&path), 0o770);
    }

    #[test]
    fn gives_the_new_folder_to_its_user() {
        let tmp = tempfile::tempdir().unwrap();
        if !geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let path = tmp.path().join("a/b");
        ensure_folder(&path, Some((65534, 65533)), 0o700).unwrap();
        let found = path.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (65534, 65533));
        assert_eq!(tmp.path().join("a").metadata().unwrap().uid(), 0);
    }

    #[test]
    fn names_the_component_that_is_a_file() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("x"), file.join("x/y")] {
            let error = ensure_folder(&path, None, 0o700).unwrap_err();
            assert_eq!((&error.path, &error.problem), (&file, &FolderProblem::NotAFolder));
        }
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let error = ensure_folder(&link.join("x"), None, 0o700).unwrap_err();
        assert_eq!((&error.path, &error.problem), (&link, &FolderProblem::NotAFolder));
    }

    #[test]
    fn says_why_it_cannot_be_made_or_written() {
        // /proc takes no folder from anybody, root included.
        let error = ensure_folder(Path::new("/proc/shimd-test"), None, 0o700).unwrap_err();
        assert!(matches!(error.problem, FolderProblem::Refused { step: "make the folder", .. }), "{error}");
        assert!(error.to_string().starts_with("/proc/shimd-test: cannot make the folder: "), "{error}");
    }

    /// On file systems of their own: one that is read-only, one that is full.
    #[test]
    fn says_read_only_and_full() {
        struct Mounted(PathBuf);
        impl Drop for Mounted {
            fn drop(&mut self) {
                let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        let tmp = tempfile::tempdir().unwrap();
        for (options, errno) in [("ro", Errno::EROFS), ("nr_inodes=1", Errno::ENOSPC)] {
            let mount = std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "none"])
                .arg(tmp.path())
                .stderr(std::process::Stdio::null())
                .status();
            if !mount.is_ok_and(|status| status.success()) {
                println!("skipped: mounting needs root");
                return;
            }
            let _mounted = Mounted(tmp.path().into());
            let error = ensure_folder(&tmp.path().join("a/b"), None, 0o700).unwrap_err();
            assert_eq!(error.path, tmp.path().join("a"));
            assert_eq!(error.problem, FolderProblem::Refused { step: "make the folder", errno });
        }
    }

    #[test]
    fn a_private_folder_is_made_tight_and_checked() {
        let tmp = tempfile::tempdir().unwrap();
        let home = tmp.path().join("state/home");
        assert_eq!(private_folder(&home).unwrap(), Created(true));
        assert_eq!((mode(&home), mode(&tmp.path().join("state"))), (0o700, 0o700));
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(private_folder(&home).unwrap(), Created(false));
        assert_eq!(mode(&home), 0o700);

        let link = tmp.path().join("link");
        std::os::unix::fs::symlink(&home, &link).unwrap();
        assert_eq!(private_folder(&link).unwrap_err().problem, FolderProblem::Link);
        if geteuid().is_root() {
            std::os::unix::fs::chown(&home, Some(65534), None).unwrap();
            fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
            let problem = private_folder(&home).unwrap_err().problem;
            assert_eq!(problem, FolderProblem::OthersOwn { uid: 65534, ours: 0 });
            assert_eq!(mode(&home), 0o755);
        } else {
            println!("skipped in part: another user's folder needs root");
        }
    }
}
