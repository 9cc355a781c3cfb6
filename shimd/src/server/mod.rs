//! The control socket: JSON-RPC 2.0 in lines and HTTP/1.1 on one Unix socket, told apart by the first byte.
//!
//! Who is let in: the daemon's own user and root, by the kernel's word (SO_PEERCRED), and no more than
//! [`Limits::clients`] at once. What a client may cost the others: nothing. Each is a task of its own with bounded
//! buffers; a silent one keeps only its seat, and that only until somebody wants it; one that does not read its
//! answers is dropped after [`Limits::write`].
//!
//! | file | holds |
//! | --- | --- |
//! | `socket`, `accept` | binding; accepting, from a listener that lost its place too |
//! | `beside` | binding beside another daemon's socket, and taking its place |
//! | `control`, `pin` | the socket's names: put back when lost, removed at the end |
//! | `reserve` | descriptors for clients when none is left |
//! | `clients` | who has a seat |
//! | `connection` | one client: its protocol, its refusal, its end |
//! | `lines`, `http` | the two framings |
//! | `message` | JSON-RPC messages taken apart; pure |
//! | `dispatch`, `streams`, `news` | calls as tasks; those that go on telling, and what |
//! | `methods`, `schema`, `openrpc` | the table of methods, and the document made from it |

mod accept;
mod beside;
mod clients;
mod connection;
mod control;
mod deadline;
mod dispatch;
mod http;
mod limits;
mod lines;
mod message;
mod methods;
mod news;
mod openrpc;
mod pin;
mod reserve;
mod schema;
mod socket;
mod streams;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use interprocess::os::unix::uds_local_socket::tokio::Listener;
use serde_json::Value;
use serde_json::value::RawValue;
use shimd_api::rpc::RpcError;
use shimd_api::wire::Progress;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use accept::Listeners;
pub use beside::Beside;
use clients::Clients;
use control::Names;
pub use control::{ControlHandle, RestoreError, Restored};
pub use limits::Limits;
pub use news::News;
pub use pin::PinError;
use reserve::Reserve;
pub use socket::{Endpoint, ServerError};

/// How long accepting pauses after it failed: descriptors or memory ran out, and only time frees them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Clients that are being refused at once; more are closed without a word.
const REFUSALS: usize = 64;

/// What the daemon does with a call.
///
/// The server has checked the method's name and its params' names and types against its table. It answers
/// `rpc.discover` by itself.
pub trait Handler: Send + Sync + 'static {
    /// Carries out a call. `params` is the object as the client wrote it.
    ///
    /// Where the client wants to hear of the call's progress, `progress` takes it; what cannot be sent is dropped.
    /// The future of a request is dropped when its client leaves: work that must go on belongs to a task of its own.
    fn call(
        &self,
        method: &str,
        params: &RawValue,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> impl Future<Output = Result<Box<RawValue>, RpcError>> + Send;

    /// Begins a stream: its answer, and what is to come.
    ///
    /// The channel's bound is the handler's: a reader may be too slow for it, and is then told so by a `gap`. A
    /// receiver that is dropped tells that nobody reads any more; a sender that is dropped ends the stream.
    fn follow(
        &self,
        method: &str,
        params: &RawValue,
    ) -> impl Future<Output = Result<(Box<RawValue>, mpsc::Receiver<News>), RpcError>> + Send;

    /// The daemon's figures as OpenMetrics text, `# EOF` included.
    fn metrics(&self) -> impl Future<Output = String> + Send;

    /// The daemon's health: an object whose `status` is `ok` when all is well.
    fn health(&self) -> impl Future<Output = Value> + Send;
}

/// What every connection shares.
struct Shared<H> {
    handler: Arc<H>,
    limits: Limits,
    closing: watch::Receiver<bool>,
}

impl<H> Shared<H> {
    /// Resolves once the server stops.
    async fn closing(&self) {
        let _ = self.closing.clone().wait_for(|closing| *closing).await;
    }
}

/// A bound control socket.
///
/// Dropping it, and the future of [`Server::serve`], removes the socket's dentry and pin if they are still this socket's.
#[derive(Debug)]
pub struct Server {
    /// Dropped first: while the listener is open, its names are known by its inode.
    names: Names,
    listeners: Listeners,
    limits: Limits,
}

impl Server {
    /// Binds and listens, with mode 0600 from the first moment. Call it within a tokio runtime.
    ///
    /// The folder exists and is the caller's; whatever a dead daemon left at `path` was removed before: this removes
    /// nothing there. The socket is then pinned, where that can be: see [`ControlHandle::pin_trouble`].
    ///
    /// # Errors
    /// [`ServerError`], which says what is in the way.
    pub fn bind(path: &Path) -> Result<Server, ServerError> {
        let (names, first, successors) = Names::bind(path)?;
        Ok(Server::on(names, first, successors))
    }

    /// A server on what is bound already.
    fn on(names: Names, first: Listener, successors: mpsc::UnboundedReceiver<Listener>) -> Server {
        Server { names, listeners: Listeners::new(first, successors), limits: Limits::default() }
    }

    /// Other limits than the default.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Server {
        Server { limits, ..self }
    }

    /// To look after the socket while the server serves.
    pub fn control(&self) -> ControlHandle {
        self.names.handle().clone()
    }

    /// Serves until `stop` resolves; then removes the dentry and the pin, lets calls under way end within [`Limits::drain`], and
    /// closes every connection.
    pub async fn serve<H: Handler>(mut self, handler: Arc<H>, stop: impl Future<Output = ()>) {
        let limits = self.limits;
        let (close, closing) = watch::channel(false);
        let shared = Arc::new(Shared { handler, limits, closing });
        let clients = Clients::new(limits);
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        let mut failing = false;
        let mut reserve = Reserve::new();
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a connection's task panicked");
                    }
                }
                accepted = self.listeners.accept() => match accepted {
                    Ok(stream) => {
                        failing = false;
                        reserve.refill();
                        match admit(&stream, &clients) {
                            Ok(client) => {
                                connections.spawn(connection::serve(stream, client, shared.clone()));
                            }
                            Err((status, error)) => {
                                tracing::debug!(%error, "a client was refused");
                                if let Ok(permit) = refusals.clone().try_acquire_owned() {
                                    connections.spawn(async move {
                                        connection::refuse(stream, status, error, limits).await;
                                        drop(permit);
                                    });
                                }
                            }
                        }
                    }
                    Err(error) if reserve.makes_room(&error) => {}
                    Err(error) => {
                        if !failing {
                            tracing::warn!(%error, "the control socket cannot accept clients for now");
                        }
                        failing = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self);
        close.send_replace(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.drain, ended).await.is_err() {
            tracing::warn!("calls were still under way when the server stopped");
        }
    }
}

/// A seat for a newcomer, or why it gets none.
fn admit(stream: &UnixStream, clients: &Arc<Clients>) -> Result<clients::Client, (StatusCode, RpcError)> {
    let own = nix::unistd::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if may_enter(peer.uid(), own) => clients.admit().ok_or_else(busy),
        Ok(peer) => {
            let problem = format!("user {} may not use the shimd of user {own}", peer.uid());
            Err(denied(problem, own))
        }
        Err(error) => Err(denied(format!("cannot tell whose client this is: {error}"), own)),
    }
}

fn may_enter(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

fn denied(problem: String, own: u32) -> (StatusCode, RpcError) {
    let help = format!("run the command as user {own} or as root, or start a shimd of your own");
    (StatusCode::FORBIDDEN, RpcError::denied(problem, help))
}

fn busy() -> (StatusCode, RpcError) {
    let error = RpcError::busy("shimd has as many clients as it takes", "try again in a moment");
    (StatusCode::SERVICE_UNAVAILABLE, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_may_enter() {
        assert!(may_enter(1000, 1000));
        assert!(may_enter(0, 1000));
        assert!(!may_enter(1001, 1000));
        assert!(!may_enter(1000, 0));
    }
}
