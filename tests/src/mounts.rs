//! The mounts that a scenario makes in its world: none of them may outlive it.

use crate::{Result, World};
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::path::{Path, PathBuf};

/// Unmounts, the last one first, whatever is mounted below the folder.
pub fn unmount_below(folder: &Path) {
    for place in below(folder).into_iter().rev() {
        // Gone already is as good as unmounted; what stays mounted shows itself when the folder cannot be removed.
        let _ = umount2(&place, MntFlags::MNT_DETACH);
    }
}

impl World {
    /// Makes a file system of so many MB in a file, and mounts it where the sockets are.
    pub fn mount_image(&self, kind: &str, size: u64) -> Result {
        let image = self.file(&format!("{kind}.img"));
        fs::File::create(&image)?.set_len(size << 20)?;
        self.hand(&format!("mkfs.{kind}"), &["-q".as_ref(), image.as_os_str()])?;
        let sockets = self.sockets();
        self.hand("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), sockets.as_os_str()])?;
        Ok(())
    }
}

/// Where something is mounted below the folder, in the order of the mounts.
fn below(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // A world's folder holds none of the bytes that the table writes as `\040` and the like.
    let places = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    places.filter(|place| place.starts_with(folder)).collect()
}
