//! One client, from its first byte to its last.
//!
//! | first byte | protocol |
//! | --- | --- |
//! | `{`, `[` or white space | JSON-RPC in lines |
//! | a letter | HTTP/1.1 |
//! | any other | neither: a parse error as a line, and the end |

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use nix::sys::socket::{MsgFlags, recv};
use shimd_api::rpc::RpcError;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::clients::Client;
use super::limits::Limits;
use super::{Handler, Shared, http, lines, message};

/// Serves a client that has a seat, until it or the server is done or its seat goes to another.
pub(super) async fn serve<H: Handler>(mut stream: UnixStream, client: Client, shared: Arc<Shared<H>>) {
    let client = Arc::new(client);
    tokio::select! {
        () = converse(&mut stream, &client, &shared) => {}
        () = client.evicted() => tracing::debug!("an idle client made room for another"),
    }
}

async fn converse<H: Handler>(stream: &mut UnixStream, client: &Arc<Client>, shared: &Arc<Shared<H>>) {
    let first = tokio::select! {
        first = first_byte(stream) => first,
        () = shared.closing() => return,
    };
    match first {
        Ok(Some(b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n')) => lines::serve(stream, client, shared).await,
        Ok(Some(byte)) if byte.is_ascii_alphabetic() => http::serve(stream, client, shared).await,
        Ok(Some(byte)) => {
            let error = RpcError::parse(format!("it begins with byte {byte:#04x}"));
            last_word(stream, line(error), shared.limits.refusal).await;
        }
        Ok(None) | Err(_) => return,
    }
    tokio::select! {
        () = linger(stream, shared.limits.linger) => {}
        () = shared.closing() => {}
    }
}

/// Tells a client that has no seat why, in the protocol it speaks, if it says so in time; a silent one gets a line.
pub(super) async fn refuse(mut stream: UnixStream, status: StatusCode, error: RpcError, limits: Limits) {
    let first = timeout(limits.refusal, first_byte(&stream)).await;
    let text = match first {
        Ok(Ok(Some(byte))) if byte.is_ascii_alphabetic() => http::raw_refusal(status, error),
        _ => line(error),
    };
    last_word(&mut stream, text, limits.refusal).await;
    linger(&mut stream, limits.refusal).await;
}

fn line(error: RpcError) -> String {
    message::refusal(error) + "\n"
}

async fn last_word(stream: &mut UnixStream, text: String, limit: Duration) {
    // It is short: it fits the socket's buffer unless the client has stopped reading long ago.
    let _ = timeout(limit, stream.write_all(text.as_bytes())).await;
}

/// The next byte, which stays to be read; `None` at the end.
async fn first_byte(stream: &UnixStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let received = stream
        .async_io(Interest::READABLE, || Ok(recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK)?))
        .await?;
    let [byte] = byte;
    Ok((received > 0).then_some(byte))
}

/// Resolves once the peer has closed both its ends; one that only writes no more is still there to read.
pub(super) async fn hangup(socket: io::Result<OwnedFd>) {
    // A descriptor of its own: waiting here must not take readiness away from those who read and write.
    let watch = socket.and_then(|socket| UnixStream::from_std(socket.into()));
    let Ok(watch) = watch else {
        return std::future::pending().await;
    };
    while let Ok(ready) = watch.ready(Interest::WRITABLE).await {
        if ready.is_write_closed() {
            return;
        }
        // Forgets that it is writable, so that the next change wakes this up and not the present state.
        let _ = watch.try_io(Interest::WRITABLE, || io::Result::<()>::Err(ErrorKind::WouldBlock.into()));
    }
}

/// Says that nothing more comes, and reads on for a while: closing over unread bytes would have the client find
/// ECONNRESET or EPIPE in place of the last answer (unix(7): a close with unread data resets the peer).
async fn linger(stream: &mut UnixStream, limit: Duration) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut scrap = [0; 4096];
    let drain = async { while stream.read(&mut scrap).await.is_ok_and(|n| n > 0) {} };
    let _ = timeout(limit, drain).await;
}
