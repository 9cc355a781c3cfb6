//! Why the way is not free, and what to do.

use std::path::PathBuf;

use crate::sys::activation::BindError;
use crate::sys::clean::CleanError;
use crate::sys::folder::FolderError;

/// Why the way is not free.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Somebody else serves the path.
    #[error("{field}: foreign: {who} listens on {}; {}", path.display(), Self::way_out(*link))]
    Foreign {
        /// The spec's field.
        field: String,
        /// The path.
        path: PathBuf,
        /// Its process, in words.
        who: String,
        /// A symbolic link at the path leads to it.
        link: bool,
    },
    /// A holder is not to be ended, or does not end.
    #[error("{field}: {who} listens on {} and {why}", path.display())]
    Stays {
        /// The spec's field.
        field: String,
        /// The path.
        path: PathBuf,
        /// Its process, in words.
        who: String,
        /// Why it stays, and what to do.
        why: String,
    },
    /// What lies at the path is not a socket, or cannot be removed.
    #[error("{field}: {source}")]
    Dentry {
        /// The spec's field.
        field: String,
        /// Why.
        source: CleanError,
    },
    /// The socket's folder cannot be made.
    #[error("{field}: {source}")]
    Folder {
        /// The spec's field.
        field: String,
        /// Why.
        source: FolderError,
    },
    /// A listener could not be bound.
    #[error("{field}: {source}")]
    Listener {
        /// The spec's field.
        field: String,
        /// Why.
        source: BindError,
    },
    /// The kernel could not be asked.
    #[error("cannot ask the kernel who listens: {0}")]
    Audit(#[from] socket_audit::AuditError),
    /// Descriptors are short: what is left is for the services that run.
    #[error("no file is opened for another instance: {0}")]
    Shortage(String),
    /// The task that swept ended by itself.
    #[error("the clean ended by itself: {0}; this is a bug of shimd")]
    Task(String),
}

impl SweepError {
    fn way_out(link: bool) -> &'static str {
        if link {
            "a symbolic link there leads to it: move the link away, or declare another path"
        } else {
            "stop it, or end it with proc restart --clean (or kill_other)"
        }
    }
}
