#![allow(unsafe_code)] // fanotify_init and fanotify_mark: asked only whether they work here
//! Whether this machine lets a daemon know who removed a file.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether the kernel tells this process who removes files of the folder: fanotify with names and pidfds, as root.
pub fn are_told(folder: &Path) -> bool {
    let class =
        libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_PIDFD;
    let Ok(path) = CString::new(folder.as_os_str().as_bytes()) else { return false };
    // SAFETY: no pointer is passed; a descriptor or -1 is returned.
    let group = unsafe { libc::fanotify_init(class, 0) };
    if group < 0 {
        return false;
    }
    // SAFETY: `group` was just opened and belongs to nobody else.
    let group = unsafe { OwnedFd::from_raw_fd(group) };
    let events = libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_ONDIR;
    // SAFETY: `path` ends with a NUL byte and outlives the call.
    let marked = unsafe {
        libc::fanotify_mark(group.as_raw_fd(), libc::FAN_MARK_ADD, events, libc::AT_FDCWD, path.as_ptr())
    };
    marked == 0
}
