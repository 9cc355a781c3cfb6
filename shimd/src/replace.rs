//! `shimd run --replace`: a new daemon in the place of the one that runs, of whatever version that is. Nothing is asked
//! of the old one but that it ends, and nothing of a service.
//!
//! | step | if it fails, or this process dies there |
//! | --- | --- |
//! | the turn is taken: one at a time | nothing was done |
//! | looks: the lock's holder is a `shimd` of this user, with this socket root; the store is one that this one reads | nothing was done |
//! | a control socket is bound beside | a dead file beside it, which the next one removes |
//! | the listeners that the old daemon keeps are copied | the same |
//! | the control socket is renamed into its place | the old daemon links its own back from its pin |
//! | the old daemon is told to end, and killed if it does not | no daemon, services live on: as after any end |
//! | the home's lock is taken | the same |

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use shimd_api::paths::{self, Home, PathsError};

use crate::server::{Beside, ServerError};
use crate::store::{self, StoreError};
use crate::sys::activation;
use crate::sys::holder::{Holder, HolderError};
use crate::sys::identity::ProcStat;
use crate::sys::lock::{HomeLock, LockError};
use crate::sys::pidfd::ProcessError;

/// How long the old daemon may take to end in order: its own limits (5 s for calls under way, 2 s for its last events),
/// and a little.
const ORDERLY: Duration = Duration::from_secs(10);
/// How long the kernel may take to end one that was killed.
const KILLED: Duration = Duration::from_secs(5);
/// How long the threads of a killed daemon may take to be gone.
const DYING: Duration = Duration::from_secs(2);
/// How often a third daemon may come between before that is given up.
const ROUNDS: u32 = 3;

/// Why the daemon that runs was not replaced. Unless it says otherwise, that one goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// Another new daemon is at it.
    #[error("another shimd is about to take over: {0}")]
    Turn(LockError),
    /// The home's lock cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Who holds it is not to be ended.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// It is another user's.
    #[error(
        "shimd (pid {pid}) belongs to user {uid}; replace it as that user, else its services would become this one's"
    )]
    OtherUser {
        /// The daemon that runs.
        pid: i32,
        /// Its user.
        uid: u32,
    },
    /// The service manager would take its end for a stop, and might start another.
    #[error(
        "systemd runs this shimd (pid {pid}): restart the unit instead (`systemctl restart shimd`; its name: `systemctl status {pid}`); services live on where the unit has KillMode=process"
    )]
    Managed {
        /// The daemon that runs.
        pid: i32,
    },
    /// Sockets declared by a basename would be at another place.
    #[error("the shimd that runs (pid {pid}) keeps sockets below {}, this one would below {}; set HERO_SOCKET_DIR to the first, or move the services: stop that one with its services, and start this one", runs.display(), new.display())]
    OtherRoot {
        /// The daemon that runs.
        pid: i32,
        /// Its folder.
        runs: PathBuf,
        /// This one's.
        new: PathBuf,
    },
    /// Its environment says a folder that cannot be.
    #[error(
        "the shimd that runs (pid {pid}) has a strange environment: {source}; stop it, and start this one"
    )]
    Environment {
        /// The daemon that runs.
        pid: i32,
        /// What is wrong.
        source: PathsError,
    },
    /// This daemon could not read its store.
    #[error("this shimd cannot take over the store, so the one that runs goes on: {0}")]
    Store(#[from] StoreError),
    /// The control socket.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// No signal can be sent to it.
    #[error(transparent)]
    Signal(#[from] ProcessError),
    /// It does not end.
    #[error(
        "shimd (pid {pid}) does not end, not even by SIGKILL: it waits for a disk, or is traced; it serves again once it goes on"
    )]
    Stays {
        /// The daemon that runs.
        pid: i32,
    },
}

/// A place that was taken over.
#[derive(Debug)]
pub struct Place {
    /// The control socket, at its path. Clients wait in its queue.
    pub beside: Beside,
    /// Copies of the listeners that the old daemon kept for its services.
    pub kept: Vec<OwnedFd>,
    /// Until this daemon serves.
    _turn: HomeLock,
}

/// The home's lock; and the place of the daemon that had it, if one runs. Call it within the server's runtime.
///
/// # Errors
/// [`ReplaceError`].
pub fn take(home: &Home, root: &Path) -> Result<(HomeLock, Option<Place>), ReplaceError> {
    let turn = HomeLock::take(&home.turn()).map_err(ReplaceError::Turn)?;
    let held = match take_lock(home) {
        Ok(lock) => return Ok((lock, None)),
        Err(held @ LockError::Held { .. }) => held,
        Err(other) => return Err(other.into()),
    };
    let look = store::look(&home.database())?;
    let mut place: Option<(Beside, Vec<OwnedFd>)> = None;
    for _ in 0..ROUNDS {
        if let Some(old) = Holder::of(&home.lock())? {
            may_replace(&old, root)?;
            let (beside, kept) = match place.take() {
                Some(place) => place,
                None => {
                    (Beside::bind(&home.control_socket())?, activation::kept_by(old.pid(), &look.listeners))
                }
            };
            beside.move_over()?;
            tracing::info!("takes the place of shimd {} with its {} services", old.pid(), look.services);
            place = Some((beside, kept));
            end(&old)?;
        }
        match take_lock(home) {
            Ok(lock) => {
                let place = place.map(|(beside, kept)| Place { beside, kept, _turn: turn });
                return Ok((lock, place));
            }
            // It came up in between.
            Err(LockError::Held { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(held.into())
}

/// The home's lock. A daemon that was killed holds it until its last thread is gone, a moment longer than it seems to
/// live.
///
/// # Errors
/// [`LockError`].
pub fn take_lock(home: &Home) -> Result<HomeLock, LockError> {
    let until = Instant::now() + DYING;
    loop {
        match HomeLock::take(&home.lock()) {
            Err(LockError::Held { pid: Some(pid), .. }) if !lives(pid) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

fn lives(pid: i32) -> bool {
    // State Z is a process whose first thread is gone already.
    ProcStat::read(pid).is_ok_and(|stat| !matches!(stat.state, b'Z' | b'X'))
}

fn may_replace(old: &Holder, root: &Path) -> Result<(), ReplaceError> {
    let pid = old.pid();
    let uid = old.user()?;
    if uid != nix::unistd::geteuid().as_raw() {
        return Err(ReplaceError::OtherUser { pid, uid });
    }
    let environment = old.environment()?;
    let get = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    // systemd.exec(5): set to the pid of the process that the manager itself started.
    if get("SYSTEMD_EXEC_PID").is_some_and(|value| value == pid.to_string().as_str()) {
        return Err(ReplaceError::Managed { pid });
    }
    let runs = paths::socket_root(&get).map_err(|source| ReplaceError::Environment { pid, source })?;
    if runs != root {
        return Err(ReplaceError::OtherRoot { pid, runs, new: root.into() });
    }
    old.signal(0)?;
    Ok(())
}

/// In order if it can, by force else: it may be stopped, or hang.
fn end(old: &Holder) -> Result<(), ReplaceError> {
    old.signal(libc::SIGTERM)?;
    old.signal(libc::SIGCONT)?;
    if old.gone_within(ORDERLY) {
        return Ok(());
    }
    tracing::warn!("shimd {} did not end within {} s: it is killed", old.pid(), ORDERLY.as_secs());
    old.signal(libc::SIGKILL)?;
    if old.gone_within(KILLED) { Ok(()) } else { Err(ReplaceError::Stays { pid: old.pid() }) }
}
