//! The bridge's own process: one thread, which accepts, connects as each client, and copies both ways.
//!
//! One thread, since it takes on its clients' users one after the other, and since what is copied here goes by the hand
//! of one service. A client that the service has no room for waits here; one beyond the limit of connections waits in the
//! queue of the bridge's socket.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::dup2_stdout;
use socket_audit::{Diag, bridge};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::site::{self, Site, SiteError};
use super::{Answer, Order};
use crate::sys::as_peer::Peer;
use crate::sys::detach::detach;
use crate::sys::limits;
use crate::sys::nameless::Nameless;
use crate::sys::pidfd::PidFd;

/// How often it looks whether it is still wanted.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes that are under way of each direction of a connection.
const BUFFER: usize = 16 * 1024;
/// At most so many connections at once.
const CONNECTIONS: u64 = 8192;
/// Descriptors beside those of connections, of which each has two.
const SPARE: u64 = 32;
/// How long a client waits to be accepted again where there are no descriptors left.
const NO_ROOM: Duration = Duration::from_millis(100);
/// The first and the longest wait for room in the service's queue.
const QUEUED: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What ends a bridge before it begins.
#[derive(Debug, thiserror::Error)]
enum SetUpError {
    #[error("this is no order for a bridge: {0}; bridges are started by proc heal")]
    Order(String),
    #[error("cannot bridge: {0}; else restart the service")]
    Listener(#[from] socket_audit::FileError),
    #[error(
        "cannot bridge: the listener is not in this network namespace, or ended just now; restart the service"
    )]
    Elsewhere,
    #[error("cannot bridge: {0}")]
    Audit(#[from] socket_audit::AuditError),
    #[error("cannot bridge: {0}")]
    Site(#[from] SiteError),
    #[error("cannot bridge: {step}: {}", errno.desc())]
    System { step: &'static str, errno: Errno },
    #[error("cannot bridge: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Runs a bridge: what `shimd __bridge` does.
pub fn main() -> ExitCode {
    let answer = |answer: &Answer| {
        let mut out = std::io::stdout();
        // Whoever asked may have gone: it stands all the same.
        let _ = serde_json::to_writer(&mut out, answer);
        let _ = out.flush();
    };
    match set_up() {
        Ok((runtime, bridge)) => {
            answer(&Answer::Listens(bridge.site.note.clone()));
            // Its end tells that all is said.
            if let Ok(null) = open("/dev/null", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
                let _ = dup2_stdout(null);
            }
            runtime.block_on(bridge.run());
            ExitCode::SUCCESS
        }
        Err(error) => {
            answer(&Answer::Cannot(error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn set_up() -> Result<(tokio::runtime::Runtime, Running), SetUpError> {
    let system = |step| move |errno| SetUpError::System { step, errno };
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let order: Order = serde_json::from_str(&text).map_err(|e| SetUpError::Order(e.to_string()))?;
    detach().map_err(system("leave the daemon's session"))?;
    // It was started by a link named `exe`.
    let _ = nix::sys::prctl::set_name(c"shimd-bridge");
    limits::raise_nofile();
    let holder = PidFd::open(order.pid).ok();
    let ghost = Nameless::open(order.pid, order.listener)?;
    let mut diag = Diag::open()?;
    if !ghost.lives(&mut diag)? {
        return Err(SetUpError::Elsewhere);
    }
    let like = ghost.stat().map_err(system("look at the lost socket"))?;
    site::may_stand(&order.path, order.creator.unwrap_or(like.st_uid), order.pid)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Last: whatever fails before leaves nothing.
    let site = Site::take(&order.path, &like, order.backlog)?;
    Ok((runtime, Running { order, ghost: Arc::new(ghost), diag, holder, site }))
}

/// A bridge that stands.
struct Running {
    order: Order,
    ghost: Arc<Nameless>,
    diag: Diag,
    holder: Option<PidFd>,
    site: Site,
}

impl Running {
    async fn run(mut self) {
        let mut open = JoinSet::new();
        let refused = Arc::new(Notify::new());
        if let Err(error) = self.serve(&mut open, &refused).await {
            tracing::debug!("{}: {error}", bridge::PROGRAM);
        }
        self.site.leave();
        // Who has connected by now is a client like the others.
        while let Ok((client, _)) = self.site.listener.accept() {
            if client.set_nonblocking(true).is_ok()
                && let Ok(client) = UnixStream::from_std(client)
            {
                open.spawn(pass(client, self.ghost.clone(), refused.clone(), None));
            }
        }
        drop(self.site);
        while open.join_next().await.is_some() {}
    }

    /// Serves until it is not wanted any more.
    async fn serve(&mut self, open: &mut JoinSet<()>, refused: &Arc<Notify>) -> std::io::Result<()> {
        let mut end = signal(SignalKind::terminate())?;
        // A descriptor of its own, so that the socket listens until the run is over.
        let listener = UnixListener::from_std(self.site.listener.try_clone()?)?;
        let room = (limits::nofile().saturating_sub(SPARE) / 2).clamp(1, CONNECTIONS);
        let room = Arc::new(Semaphore::new(room as usize));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let holder = self.holder.take();
        let ended = async move {
            match holder {
                Some(holder) if holder.exited().await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        tokio::pin!(ended);
        let mut holder_lives = true;
        loop {
            tokio::select! {
                biased;
                _ = end.recv() => return Ok(()),
                () = &mut ended, if holder_lives => holder_lives = false,
                () = refused.notified() => {}
                _ = look.tick() => {}
                Some(_) = open.join_next() => continue,
                (client, permit) = next_client(&listener, &room) => {
                    open.spawn(pass(client, self.ghost.clone(), refused.clone(), Some(permit)));
                    continue;
                }
            }
            if !self.is_wanted(&self.order.path.clone()) {
                return Ok(());
            }
        }
    }

    fn is_wanted(&mut self, path: &Path) -> bool {
        // Where the kernel does not answer, the listener may well be there.
        self.site.is_there(path) && self.ghost.lives(&mut self.diag).unwrap_or(true)
    }
}

/// The next client, once there is room for it.
async fn next_client(listener: &UnixListener, room: &Arc<Semaphore>) -> (UnixStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((client, _)) => return (client, permit),
            // No descriptors or no memory left: the client waits in the queue.
            Err(_) => sleep(NO_ROOM).await,
        }
    }
}

/// Passes one connection on, until both sides have ended it.
async fn pass(
    mut client: UnixStream,
    ghost: Arc<Nameless>,
    refused: Arc<Notify>,
    _permit: Option<OwnedSemaphorePermit>,
) {
    let Ok(peer) = Peer::of(&client) else { return };
    let (mut wait, longest) = QUEUED;
    let mut tries = 10;
    let server = loop {
        match peer.act(|| ghost.connect()) {
            Ok(Ok(server)) => break server,
            // The service's queue is full: as with any other client, it waits.
            Ok(Err(Errno::EAGAIN)) => {
                sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
            // It holds a descriptor itself: if all of them waited for another, none would ever get one.
            Ok(Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) if tries > 0 => {
                tries -= 1;
                sleep(NO_ROOM).await;
            }
            Ok(Err(_)) => {
                refused.notify_one();
                return;
            }
            // Never with more rights than the client's.
            Err(_) => return,
        }
    };
    if let Ok(mut server) = UnixStream::from_std(server) {
        // An end by error is the end of both sides, as it is without a bridge.
        let _ = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
    }
}
