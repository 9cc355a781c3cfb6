//! The least that any watcher takes to hear of an unlink: a thread of this program that waits for inotify.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use scenarios::{Result, World};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The line of the tables.
pub const WHAT: &str = "an inotify wake-up: thread in poll(2), read, clock";
const LIMIT: Duration = Duration::from_secs(10);

/// A plain program's wake-up, in a folder of its own.
pub struct Floor {
    pin: PathBuf,
    socket: PathBuf,
    woken: Receiver<Instant>,
}

impl Floor {
    /// Watches a folder with one more link of `pin`, a socket's file.
    pub fn start(world: &World, pin: &Path) -> Result<Floor> {
        let folder = world.file("floor");
        fs::create_dir(&folder)?;
        let socket = folder.join("rpc.sock");
        fs::hard_link(pin, &socket)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(&folder, AddWatchFlags::IN_DELETE)?;
        let (sender, woken) = channel();
        std::thread::spawn(move || {
            loop {
                let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
                let woke = poll(&mut fds, PollTimeout::NONE).is_ok() && inotify.read_events().is_ok();
                if woke && sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Ok(Floor { pin: pin.to_owned(), socket, woken })
    }

    /// From unlink(2) to the thread being awake.
    pub fn wake(&self) -> Result<Duration> {
        let start = unlink(&self.socket)?;
        let woken = self.woken.recv_timeout(LIMIT)?;
        fs::hard_link(&self.pin, &self.socket)?;
        Ok(woken - start)
    }
}

/// Unlinks; gives the moment before.
pub fn unlink(path: &Path) -> Result<Instant> {
    let start = Instant::now();
    fs::remove_file(path)?;
    Ok(start)
}
