//! What can keep an audit from the truth.

use std::path::PathBuf;

use nix::errno::Errno;

/// Why a question to the kernel has no answer, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// A path that could not be looked at. A path with nothing there is no error.
    #[error("cannot look at {}: {errno}; {}", path.display(), look_help(*errno))]
    Look {
        /// The path.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The kernel refused sock_diag.
    #[error(
        "the kernel does not list Unix sockets ({step}: {errno}); {}", diag_help(*errno)
    )]
    Diag {
        /// The step that failed.
        step: &'static str,
        /// Why.
        errno: Errno,
    },
    /// An answer of the kernel that this crate cannot read.
    #[error("a sock_diag answer could not be read: {0}; please report it with the kernel's version")]
    Malformed(&'static str),
    /// `/proc` could not be walked.
    #[error("cannot read {}: {errno}; is /proc mounted?", path.display())]
    Proc {
        /// The file.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
}

fn diag_help(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE | Errno::ENFILE => "raise the limit of open files",
        Errno::ENOMEM | Errno::ENOBUFS => "the machine is short of memory",
        _ => "a container or sandbox may forbid sock_diag (module unix_diag)",
    }
}

fn look_help(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES => "ask as a user who may search its folder",
        Errno::ENAMETOOLONG => "shorten the path",
        Errno::ELOOP => "a symbolic link in it leads in a circle",
        _ => "check the file system",
    }
}
