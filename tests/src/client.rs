//! A client of the fixture server: one question, one answer, over any type of Unix socket.

use crate::Result;
use crate::fault::Context;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The socket type of its name in a spec: `stream`, `dgram`, `seqpacket`.
pub fn socket_type(name: &str) -> Option<SockType> {
    match name {
        "stream" => Some(SockType::Stream),
        "dgram" => Some(SockType::Datagram),
        "seqpacket" => Some(SockType::SeqPacket),
        _ => None,
    }
}

/// The address of a path, or of `@name`: an abstract one.
pub fn address(path: &Path) -> nix::Result<UnixAddr> {
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name),
        None => UnixAddr::new(path),
    }
}

/// Connects to a stream socket without waiting for room in its queue: EAGAIN where there is none.
pub fn connect_now(path: &Path) -> Result<std::result::Result<OwnedFd, Errno>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(connect(fd.as_raw_fd(), &address(path)?).map(|()| fd))
}

/// So many clients at once who connect and then say nothing; each waits until it is accepted.
pub fn wait_in_line(path: &Path, clients: usize) -> Result<Vec<OwnedFd>> {
    (0..clients).map(|_| connect_now(path)?.context(path.display())).collect()
}

/// Asks the server at `path` one line; gives its answer without the newline.
pub fn ask(path: &Path, kind: SockType, question: &str) -> Result<String> {
    let fd = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Datagram {
        // An address of our own, chosen by the kernel, to which the answer can be sent.
        bind(fd.as_raw_fd(), &UnixAddr::new_unnamed())?;
    }
    connect(fd.as_raw_fd(), &address(path)?).context(path.display())?;
    // The calls of a stream are those of any connected socket: a write is one message where messages are.
    let mut stream = UnixStream::from(fd);
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.ends_with(b"\n") {
        let count = stream.read(&mut part).context(format!("{}: no answer", path.display()))?;
        crate::ensure!(count > 0, "{}: closed without an answer", path.display());
        answer.extend(part.iter().take(count));
    }
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// Clients that have asked for the server's pid, and wait for its answer.
pub fn ask_and_wait(path: &Path, clients: usize) -> Result<Vec<UnixStream>> {
    let ask = |_| {
        let mut stream = UnixStream::connect(path).context(path.display())?;
        stream.write_all(b"ping\n")?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(stream)
    };
    (0..clients).map(ask).collect()
}

/// The pid that such a client is answered.
pub fn pong(mut client: UnixStream) -> Result<i32> {
    let mut answer = [0; 64];
    let count = client.read(&mut answer).context("no answer")?;
    let answer = String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned();
    let pid = answer.strip_prefix("pong ").and_then(|pid| pid.trim_end().parse().ok());
    pid.context(format!("answered {answer:?}"))
}

/// The pid of the process that answers at a stream socket.
pub fn ping(path: &Path) -> Result<i32> {
    ping_as(path, SockType::Stream)
}

/// The pid of the process that answers.
pub fn ping_as(path: &Path, kind: SockType) -> Result<i32> {
    let answer = ask(path, kind, "ping")?;
    answer
        .strip_prefix("pong ")
        .and_then(|pid| pid.parse().ok())
        .context(format!("{}: answered {answer:?}", path.display()))
}
