//! Descriptors: the daemon takes as many as it may, its services get back what it was given.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

static ORIGINAL: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit of open files to the hard one: a pidfd and a little more for each service.
pub fn raise_nofile() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        ORIGINAL.get_or_init(|| soft);
        if let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            tracing::warn!("cannot raise the limit of open files from {soft} to {hard}: {e}");
        }
    }
}

/// The soft limit that the daemon was started with: what a service gets. Some servers size tables by it.
pub fn original_nofile() -> Option<u64> {
    ORIGINAL.get().copied()
}

/// How many files the daemon may have open now.
pub fn nofile() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}
