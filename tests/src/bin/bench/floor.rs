//! The least that any watcher takes to hear of an unlink, and to put the file back: a thread of this program that waits
//! for inotify.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use scenarios::{Result, World};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
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

/// The least that a guard of one socket does: it hears of the unlink, and links a second link back.
pub struct Guard {
    socket: PathBuf,
    pin: PathBuf,
}

impl Guard {
    /// Guards a socket of this program's own, whose connections are closed at once.
    pub fn start(world: &World) -> Result<Guard> {
        let folder = world.file("guarded");
        fs::create_dir(&folder)?;
        let (socket, pin) = (folder.join("rpc.sock"), world.file("guarded.pin"));
        let listener = UnixListener::bind(&socket)?;
        fs::hard_link(&socket, &pin)?;
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(&folder, AddWatchFlags::IN_DELETE)?;
        let (lost, kept) = (socket.clone(), pin.clone());
        std::thread::spawn(move || {
            loop {
                let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
                let woke = poll(&mut fds, PollTimeout::NONE).is_ok() && inotify.read_events().is_ok();
                if !woke || fs::hard_link(&kept, &lost).is_err() {
                    return;
                }
            }
        });
        Ok(Guard { socket, pin })
    }

    /// The guarded socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Without it the world's folder can be removed; gone already is as good.
        let _ = fs::remove_file(&self.pin);
    }
}

/// Unlinks; gives the moment before.
pub fn unlink(path: &Path) -> Result<Instant> {
    let start = Instant::now();
    fs::remove_file(path)?;
    Ok(start)
}
