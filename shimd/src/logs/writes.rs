//! Waiting for a service's next write.
#![allow(unsafe_code)] // AsyncFd has no safe way to register a descriptor

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::{Files, LogError, Stream};

/// How long writes gather after the first: a wake-up for many, and the order of both streams by what has come.
const GATHER: Duration = Duration::from_millis(5);
/// How often a look is taken without a write: at a file that is exchanged, or a line that is not ended.
const LOOK: Duration = Duration::from_millis(500);
/// The same where writes cannot be watched: the file is not there yet, or the system has no watch left.
const LOOK_BLIND: Duration = Duration::from_millis(100);

/// The writes to a service's two files.
pub(super) struct Writes {
    live: Vec<PathBuf>,
    inotify: Option<(Inotify, AsyncFd<OwnedFd>)>,
}

impl Writes {
    /// Those from now on. Where they cannot be watched, time alone tells.
    pub fn of(folder: &Path, service: &str) -> Result<Writes, LogError> {
        let mut live = Vec::new();
        for stream in Stream::BOTH {
            live.push(Files::new(folder, service, stream)?.live);
        }
        let mut writes = Writes { live, inotify: inotify().ok() };
        writes.watch();
        Ok(writes)
    }

    /// Watches the files that lie there now; says whether it does.
    fn watch(&mut self) -> bool {
        let Some((inotify, _)) = &self.inotify else { return false };
        let mask = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DONT_FOLLOW;
        // A file that is watched already stays so.
        self.live.iter().all(|path| inotify.add_watch(path, mask).is_ok())
    }

    /// Waits for a write, or until it is time to look all the same.
    pub async fn wait(&mut self) {
        let look = if self.watch() { LOOK } else { LOOK_BLIND };
        let write = async {
            match &self.inotify {
                Some((inotify, ready)) => {
                    if let Ok(mut ready) = ready.readable().await {
                        ready.clear_ready();
                    }
                    // An error is EAGAIN: no more.
                    while inotify.read_events().is_ok() {}
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = write => sleep(GATHER).await,
            () = sleep(look) => {}
        }
    }
}

fn inotify() -> io::Result<(Inotify, AsyncFd<OwnedFd>)> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let own = inotify.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is owned, so its number is this one file's as long as it is registered.
    let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
    Ok((inotify, registered?))
}
