//! The thread that keeps the logs: it ticks the [`Indexer`] while anything is written, and sleeps otherwise.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use shimd_api::wire::{LogLines, LogRow};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::follow::{self, on_a_thread};
use super::reader::{Reader, Wanted};
use super::writes::Writes;
use super::{Indexer, Limits, LogError, append, open_for_append};

/// How often a stream that grows is looked at: the accuracy of a line's time.
const TICK: Duration = Duration::from_millis(100);

enum Order {
    Follow(String, Limits),
    Forget(String),
    /// Records how far the streams are; answered when that is done.
    Touch(String, mpsc::Sender<()>),
}

/// How long a reader waits for the newest lines to be dated.
const DATED: Duration = Duration::from_millis(500);

/// The logs of all services, as the supervisor sees them. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    folder: PathBuf,
    orders: mpsc::Sender<Order>,
    /// A byte here wakes the thread.
    bell: Option<Arc<UnixStream>>,
    troubles: Arc<Mutex<Vec<String>>>,
}

impl Logs {
    /// Starts the thread. Without one, services write all the same: their lines have no times, and the files
    /// grow; [`Logs::troubles`] says so.
    pub fn start(folder: PathBuf) -> Logs {
        let (orders, queue) = mpsc::channel();
        let troubles = Arc::new(Mutex::new(Vec::new()));
        let bell = begin(&folder, queue, troubles.clone())
            .map_err(|e| set(&troubles, vec![format!("logs are neither dated nor bounded: {e}")]))
            .ok()
            .map(Arc::new);
        Logs { folder, orders, bell, troubles }
    }

    /// Opens the two files of a service for its next instance.
    ///
    /// # Errors
    /// [`LogError`]
    pub fn open(&self, service: &str, limits: Limits) -> Result<(File, File), LogError> {
        let files = open_for_append(&self.folder, service)?;
        self.order(Order::Follow(service.to_owned(), limits));
        Ok(files)
    }

    /// Whether [`open`](Logs::open) would find something else than files.
    ///
    /// # Errors
    /// [`LogError`]
    pub fn look(&self, service: &str) -> Result<(), LogError> {
        append::look(&self.folder, service)
    }

    /// Follows the files of a service that is registered: a cut that a crash tore is finished, and what is
    /// written is dated and bounded. A stream that nobody writes to costs nothing.
    pub fn follow(&self, service: &str, limits: Limits) {
        self.order(Order::Follow(service.to_owned(), limits));
    }

    /// The service is forgotten; its files stay.
    pub fn forget(&self, service: &str) {
        self.order(Order::Forget(service.to_owned()));
    }

    /// The last lines of a service, dated as of now. Blocks: for a thread that may.
    ///
    /// # Errors
    /// [`LogError`]
    pub fn tail(
        &self,
        service: &str,
        lines: usize,
        since: Option<Duration>,
    ) -> Result<Vec<LogRow>, LogError> {
        self.touch(service);
        super::tail(&self.folder, service, lines, since)
    }

    /// What a service wrote and writes, to a channel, until all is told that is wanted or nobody reads any more. The
    /// files hold what the channel does not take yet.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn read<T: From<LogLines>>(
        self,
        service: String,
        wanted: Wanted,
        out: &tokio::sync::mpsc::Sender<T>,
    ) -> Result<(), LogError> {
        // Before the first look: a write in between is then in one of both.
        let writes = wanted.follow.then(|| Writes::of(&self.folder, &service)).transpose()?;
        let begin = move || {
            // Who wants nothing of the past wants all from now on: not from when the dates are known.
            if wanted.lines != Some(0) {
                self.touch(&service);
            }
            Reader::open(&self.folder, &service, wanted)
        };
        let (reader, _) = on_a_thread(begin).await?;
        follow::read(reader, writes, out).await
    }

    /// Has the newest lines dated. A thread that trims just now does so later; then they have no time.
    fn touch(&self, service: &str) {
        let (done, dated) = mpsc::channel();
        self.order(Order::Touch(service.to_owned(), done));
        let _ = dated.recv_timeout(DATED);
    }

    /// What does not go well, in words.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_ok()
            && let Some(mut bell) = self.bell.as_deref()
        {
            // A full bell is rung already.
            let _ = bell.write(&[0]);
        }
    }
}

fn set(troubles: &Mutex<Vec<String>>, words: Vec<String>) {
    *troubles.lock().unwrap_or_else(PoisonError::into_inner) = words;
}

fn begin(
    folder: &Path,
    queue: mpsc::Receiver<Order>,
    troubles: Arc<Mutex<Vec<String>>>,
) -> Result<UnixStream, LogError> {
    let failed = |step| LogError::io(folder, step);
    let mut indexer = Indexer::new(folder)?;
    let (bell, mut rung) = UnixStream::pair().map_err(failed("make a way to the thread of the logs"))?;
    for end in [&bell, &rung] {
        end.set_nonblocking(true).map_err(failed("make a way to the thread of the logs"))?;
    }
    let work = move || {
        loop {
            let mut buffer = [0; 64];
            while rung.read(&mut buffer).is_ok_and(|n| n == buffer.len()) {}
            loop {
                match queue.try_recv() {
                    Ok(Order::Follow(service, limits)) => {
                        if let Err(e) = indexer.follow(&service, limits) {
                            tracing::warn!(service, "{e}");
                        }
                    }
                    Ok(Order::Forget(service)) => indexer.forget(&service, SystemTime::now()),
                    Ok(Order::Touch(service, done)) => {
                        indexer.touch(&service, SystemTime::now());
                        let _ = done.send(());
                    }
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            indexer.tick(SystemTime::now());
            set(&troubles, indexer.troubles());
            wait(&indexer, &rung);
        }
    };
    std::thread::Builder::new()
        .name("logs".into())
        .stack_size(256 * 1024)
        .spawn(work)
        .map_err(failed("start the thread of the logs"))?;
    Ok(bell)
}

/// While something is written, a tick; else until the next write or order.
fn wait(indexer: &Indexer, rung: &UnixStream) {
    if indexer.busy() > 0 {
        return std::thread::sleep(TICK);
    }
    let mut fds = vec![PollFd::new(rung.as_fd(), PollFlags::POLLIN)];
    fds.extend(indexer.writes().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // EINTR is as good as a tick.
    let _ = poll(&mut fds, PollTimeout::NONE);
}
