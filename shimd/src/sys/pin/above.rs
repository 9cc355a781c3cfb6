//! The folders above a socket as they were while it was in order: owner and mode, to make them again by.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sys::folder::{FolderError, FolderProblem};

/// One folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Above {
    /// Its path.
    pub path: PathBuf,
    /// Its owner and group.
    pub owner: (u32, u32),
    /// Its permission bits.
    pub mode: u32,
}

impl Above {
    /// The folders on the way to a socket, the nearest first; those of its own file system.
    pub(super) fn of(socket: &Path) -> Vec<Above> {
        let mut found = Vec::new();
        let mut device = None;
        for path in socket.ancestors().skip(1) {
            let Ok(there) = path.metadata() else { break };
            // A folder of another file system was not made with the socket's.
            if *device.get_or_insert(there.dev()) != there.dev() {
                break;
            }
            found.push(Above {
                path: path.to_owned(),
                owner: (there.uid(), there.gid()),
                mode: there.mode() & 0o7777,
            });
        }
        found
    }

    fn make(&self) -> io::Result<()> {
        // Nobody else gets in before it is theirs.
        DirBuilder::new().mode(0o700).create(&self.path)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let folder = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(&self.path)?;
        let now = folder.metadata()?;
        if (now.uid(), now.gid()) != self.owner {
            fchown(&folder, Some(self.owner.0), Some(self.owner.1))?;
        }
        folder.set_permissions(Permissions::from_mode(self.mode))
    }
}

/// Makes the folders above a socket that are missing, the highest first.
pub(super) fn make_again(socket: &Path, above: &[Above]) -> Result<(), FolderError> {
    let missing = above.iter().take_while(|folder| !folder.path.exists());
    for folder in missing.collect::<Vec<_>>().into_iter().rev() {
        match folder.make() {
            Ok(()) => {}
            // Made by somebody else meanwhile.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                let errno = e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                let problem = FolderProblem::Refused { step: "make the folder again", errno };
                return Err(FolderError { path: folder.path.clone(), problem });
            }
        }
    }
    match socket.parent().map(Path::is_dir) {
        Some(false) if above.is_empty() => {
            let path = socket.parent().unwrap_or(socket).to_owned();
            let problem = FolderProblem::Refused { step: "make the folder again", errno: Errno::ENOENT };
            Err(FolderError { path, problem })
        }
        _ => Ok(()),
    }
}
