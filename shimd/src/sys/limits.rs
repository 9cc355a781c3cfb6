//! Descriptors: the daemon takes as many as it may, its services get back what it was given.

use std::fs::File;
use std::os::fd::AsRawFd;
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

/// Files that are kept free for the care of what runs: audits, requests, healing.
const KEPT: u64 = 24;

/// How a shortage is told.
const SAID: &str = "shimd may open";

/// In words, where few files more can be opened: the kernel gives the lowest free descriptor, so its number tells how many
/// are open. New instances are not for these.
pub fn shortage() -> Option<String> {
    let limit = nofile();
    let kept = KEPT.min(limit / 4);
    let open = match File::open("/dev/null") {
        Ok(probe) => u64::from(probe.as_raw_fd().unsigned_abs()),
        // EMFILE, or ENFILE: the machine's own limit.
        Err(_) => limit,
    };
    (open + kept >= limit).then(|| {
        format!(
            "{SAID} {limit} files and has {open} open, and keeps the last {kept} for what runs: raise its limit (LimitNOFILE=, ulimit -Hn; prlimit --nofile for the one that runs)"
        )
    })
}

/// Why a start failed, with the shortage if there is one: then trying again later may do.
pub fn with_shortage(why: String) -> (String, bool) {
    match shortage() {
        Some(_) if why.contains(SAID) => (why, true),
        Some(short) => (format!("{why}; {short}"), true),
        None => (why, false),
    }
}

/// How many clients may be connected at once, so that they leave descriptors for services.
pub fn clients(most: usize) -> usize {
    most.min(usize::try_from(nofile() / 4).unwrap_or(most)).max(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_has_descriptors_and_some_of_them_are_for_clients() {
        assert_eq!(shortage(), None);
        assert_eq!(clients(16), 16);
        assert!(clients(usize::MAX) as u64 <= nofile() / 4);
    }
}
