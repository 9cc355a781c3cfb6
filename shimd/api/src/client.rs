//! The client of the control socket: blocking, bounded by a deadline, cancellable, one JSON message a line.
//!
//! Over `interprocess`, with two things seen to here. Its bounded wait takes a full queue (EAGAIN) for a connection under
//! way, which a Unix socket never is: so the connect is deferred, and asked again until the socket has a peer. And reads
//! and writes do not block: poll(2) waits for both at once, 20 ms at a time, so that a refusal that comes before the
//! request is written whole is still read. A method that streams makes the connection a [`Follow`].

mod follow;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use interprocess::ConnectWaitMode;
use interprocess::local_socket::{ConnectOptions, GenericFilePath, prelude::*};
use interprocess::os::unix::uds_local_socket::Stream;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{UnixAddr, getpeername};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::duration::format_duration;
use crate::place::MAX_SOCKET_PATH;
use crate::rpc::{RpcError, kind, present};
use crate::wire::Progress;

pub use follow::Follow;

/// The longest line that is taken from a daemon, in bytes.
pub const MAX_LINE: usize = 64 << 20;

/// How long one wait lasts before the deadline and the cancellation are looked at.
const TICK: Duration = Duration::from_millis(20);

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the control socket.
    #[error("no shimd answers at {}: {}", .socket.display(), .errno.desc())]
    NoDaemon {
        /// The control socket.
        socket: PathBuf,
        /// What connect(2) said: ENOENT, ECONNREFUSED, ENOTDIR.
        errno: Errno,
    },
    /// The filesystem lets this user not connect.
    #[error("may not connect to {}: {}", .socket.display(), .errno.desc())]
    Denied {
        /// The control socket.
        socket: PathBuf,
        /// What connect(2) said: EACCES or EPERM.
        errno: Errno,
    },
    /// The deadline passed.
    #[error("shimd at {} did not {doing} within {}", .socket.display(), format_duration(*.waited))]
    Timeout {
        /// The control socket.
        socket: PathBuf,
        /// What was waited for: `take the connection`, `answer service.list`.
        doing: String,
        /// The deadline that passed.
        waited: Duration,
    },
    /// The daemon hung up before it answered, or before it ended a stream.
    #[error("shimd at {} hung up {when}{}", .socket.display(), because(.errno))]
    Closed {
        /// The control socket.
        socket: PathBuf,
        /// At which moment: `before it answered service.list`, `in the midst of event.follow`.
        when: String,
        /// What the read or write said: ECONNRESET, EPIPE; `None` for an orderly end.
        errno: Option<Errno>,
    },
    /// What came is no answer.
    #[error("what answers at {} does not speak as shimd does: {problem}", .socket.display())]
    Protocol {
        /// The control socket.
        socket: PathBuf,
        /// What came.
        problem: String,
    },
    /// The machine failed: no descriptors left, a socket of another type, …
    #[error("could not {doing} {}: {}", .socket.display(), .errno.desc())]
    Io {
        /// The control socket.
        socket: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system call said.
        errno: Errno,
    },
    /// The caller gave up.
    #[error("cancelled")]
    Cancelled,
    /// The daemon answered with an error.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

fn before_answer(method: &str) -> String {
    format!("before it answered {method}")
}

fn because(errno: &Option<Errno>) -> String {
    errno.map(|errno| format!(" ({})", errno.desc())).unwrap_or_default()
}

impl ClientError {
    /// The contract's name for this error: a value of [`kind`]; `cancelled` for [`ClientError::Cancelled`].
    pub fn kind(&self) -> &str {
        match self {
            ClientError::NoDaemon { .. } => kind::NO_DAEMON,
            ClientError::Denied { .. } => kind::DENIED,
            ClientError::Timeout { .. } => kind::TIMEOUT,
            ClientError::Protocol { .. } => kind::VERSION,
            ClientError::Closed { .. } | ClientError::Io { .. } => kind::FAILED,
            ClientError::Cancelled => "cancelled",
            ClientError::Rpc(error) => error.kind(),
        }
    }

    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            ClientError::NoDaemon { .. } => {
                "start it with `proc shim start` or `shimd run`; if one runs, SHIMD_HOME is not the one it was started with"
                    .into()
            }
            ClientError::Denied { .. } => {
                "only the daemon's own user and root get in: be that user, or set SHIMD_HOME to a home of your own".into()
            }
            ClientError::Timeout { .. } => {
                "try again with more time; if it never answers, see shimd.log in its home, end it and start it again: services live on"
                    .into()
            }
            ClientError::Closed { .. } => {
                "whether the request took effect is not known: see `proc list`, and shimd.log in its home if it ended".into()
            }
            ClientError::Protocol { .. } => {
                "stop the daemon and start the one that belongs to this client (`proc shim restart`), or see whether SHIMD_HOME names another service's folder"
                    .into()
            }
            ClientError::Io { .. } => "free what the message says is short, or see what lies at the path".into(),
            ClientError::Cancelled => "the daemon carries on with what it began: see `proc list`".into(),
            ClientError::Rpc(error) => error.help().unwrap_or("see shimd.log in the daemon's home").into(),
        }
    }
}

/// One connection to a daemon, for one call at a time.
///
/// After any error but [`ClientError::Rpc`], and after a refusal that came before the request was written whole, the
/// connection is out of step and answers every further call with [`ClientError::Closed`]: connect anew.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: Stream,
    next_id: u64,
    /// What was read and not yet taken as a line.
    unread: Vec<u8>,
    out_of_step: bool,
}

/// A message of the daemon: a response or a notification.
#[derive(Deserialize)]
struct Message {
    jsonrpc: String,
    #[serde(default)]
    id: Value,
    method: Option<String>,
    params: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    error: Option<RpcError>,
}

impl Client {
    /// Connects to a control socket. A full queue is tried again until `deadline` has passed.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`], [`ClientError::Denied`], [`ClientError::Timeout`], [`ClientError::Io`].
    pub fn connect(socket: &Path, deadline: Duration) -> Result<Client, ClientError> {
        Client::connect_unless(socket, deadline, &|| false)
    }

    /// [`Client::connect`], given up with [`ClientError::Cancelled`] as soon as `cancelled` says so.
    ///
    /// # Errors
    /// As [`Client::connect`], and [`ClientError::Cancelled`].
    pub fn connect_unless(
        socket: &Path,
        deadline: Duration,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Client, ClientError> {
        let limit = Limit::new(deadline);
        loop {
            if let Some(stream) = try_connect(socket)? {
                let socket = socket.to_path_buf();
                return Ok(Client { socket, stream, next_id: 1, unread: Vec::new(), out_of_step: false });
            }
            if cancelled() {
                return Err(ClientError::Cancelled);
            }
            let Some(left) = limit.left() else {
                let doing = "take the connection".to_string();
                return Err(ClientError::Timeout { socket: socket.into(), doing, waited: deadline });
            };
            // Nothing tells that a queue has room again.
            std::thread::sleep(left.min(TICK / 4));
        }
    }

    /// Calls a method and waits for its result.
    ///
    /// `deadline` is how long the daemon may be silent: each `progress` notification, which it sends about once a second
    /// where `params` hold `"progress": true`, renews it, and is handed to `on_progress`. `cancelled` is asked at least
    /// every 20 ms.
    ///
    /// # Errors
    /// Every [`ClientError`] but `NoDaemon` and `Denied`.
    pub fn call(
        &mut self,
        method: &str,
        params: Value,
        deadline: Duration,
        on_progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Value, ClientError> {
        let text = self.call_for_text(method, params, deadline, on_progress, cancelled)?;
        serde_json::from_str(text.get()).map_err(|e| self.protocol(format!("{e} in the result of {method}")))
    }

    /// The same, with the result as the daemon wrote it: for whoever makes a value of its own type of it. A table of a
    /// thousand rows is read once so, not twice.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_for_text(
        &mut self,
        method: &str,
        params: Value,
        deadline: Duration,
        on_progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Box<RawValue>, ClientError> {
        if self.out_of_step {
            return Err(ClientError::Closed {
                socket: self.socket.clone(),
                when: before_answer(method),
                errno: None,
            });
        }
        self.out_of_step = true;
        let outcome = self.exchange(method, params, deadline, on_progress, cancelled)?;
        Ok(outcome?)
    }

    /// The daemon's answer to one request.
    fn exchange(
        &mut self,
        method: &str,
        params: Value,
        deadline: Duration,
        on_progress: &mut dyn FnMut(Progress),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Result<Box<RawValue>, RpcError>, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        request.push('\n');
        let mut unsent = request.as_bytes();
        let mut limit = Limit::new(deadline);
        let mut seen = 0;
        loop {
            while let Some(line) = self.line(&mut seen) {
                match self.understand(&line, id)? {
                    Some(Answer::Outcome(outcome)) => {
                        // What is left of a request that was refused early would spoil the next.
                        self.out_of_step = !unsent.is_empty();
                        return Ok(outcome);
                    }
                    Some(Answer::Progress(progress)) => {
                        limit = Limit::new(deadline);
                        on_progress(progress);
                    }
                    None => {}
                }
            }
            if self.unread.len() > MAX_LINE {
                return Err(self.protocol(format!("a line of more than {MAX_LINE} bytes")));
            }
            if cancelled() {
                return Err(ClientError::Cancelled);
            }
            let Some(left) = limit.left() else {
                let doing = format!("answer {method}");
                return Err(ClientError::Timeout { socket: self.socket.clone(), doing, waited: deadline });
            };
            let wanted =
                if unsent.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
            let ready = self.wait(wanted, left)?;
            if ready.contains(PollFlags::POLLOUT) && !unsent.is_empty() {
                unsent = self.send(unsent)?;
            }
            if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                self.receive(&before_answer(method))?;
            }
        }
    }

    /// The next whole line, its newline taken off; `seen` is how much of what is unread holds none.
    fn line(&mut self, seen: &mut usize) -> Option<Vec<u8>> {
        let unseen = self.unread.get(*seen..).unwrap_or_default();
        let Some(end) = unseen.iter().position(|byte| *byte == b'\n') else {
            *seen = self.unread.len();
            return None;
        };
        let rest = self.unread.split_off(*seen + end + 1);
        let mut line = std::mem::replace(&mut self.unread, rest);
        line.pop();
        *seen = 0;
        Some(line)
    }

    /// What a line means to the call `id`: `None` for what is not for it.
    fn understand(&self, line: &[u8], id: u64) -> Result<Option<Answer>, ClientError> {
        let message = self.message(line)?;
        match (message.method.as_deref(), message.error) {
            (Some("progress"), _) => match serde_json::from_str(text_of(&message.params)) {
                Ok(progress) => Ok(Some(Answer::Progress(progress))),
                Err(e) => Err(self.protocol(format!("{e} in {:?}", excerpt(line)))),
            },
            // A newer daemon may tell more than this client knows.
            (Some(_), _) => Ok(None),
            // A request that could not be read is refused without its id.
            (None, Some(error)) if message.id.is_null() || message.id == id => {
                Ok(Some(Answer::Outcome(Err(error))))
            }
            (None, None) if message.id == id => match message.result {
                Some(result) => Ok(Some(Answer::Outcome(Ok(result)))),
                None => Err(self.protocol("neither a result nor an error".into())),
            },
            (None, _) => {
                Err(self.protocol(format!("an answer to request {}, which was not asked", message.id)))
            }
        }
    }

    /// A line as a message.
    fn message(&self, line: &[u8]) -> Result<Message, ClientError> {
        let message: Message =
            serde_json::from_slice(line).map_err(|e| self.protocol(format!("{e} in {:?}", excerpt(line))))?;
        if message.jsonrpc != "2.0" {
            return Err(self.protocol(format!("jsonrpc is {:?}", message.jsonrpc)));
        }
        Ok(message)
    }

    /// Waits for the stream, a tick at most.
    fn wait(&self, wanted: PollFlags, left: Duration) -> Result<PollFlags, ClientError> {
        let timeout =
            PollTimeout::try_from(left.min(TICK).max(Duration::from_millis(1))).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(self.stream.as_fd(), wanted)];
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds[0].revents().unwrap_or(PollFlags::empty())),
            Err(Errno::EINTR) => Ok(PollFlags::empty()),
            Err(errno) => Err(ClientError::Io { socket: self.socket.clone(), doing: "wait for", errno }),
        }
    }

    /// Sends what the socket takes and gives back the rest. A peer that hung up takes no more: what it said before, or
    /// that it said nothing, is found by the next read.
    fn send<'a>(&self, unsent: &'a [u8]) -> Result<&'a [u8], ClientError> {
        match (&self.stream).write(unsent) {
            Ok(sent) => Ok(unsent.get(sent..).unwrap_or_default()),
            Err(e) => match errno(&e) {
                Errno::EAGAIN | Errno::EINTR => Ok(unsent),
                Errno::EPIPE | Errno::ECONNRESET => Ok(&[]),
                errno => Err(ClientError::Io { socket: self.socket.clone(), doing: "write to", errno }),
            },
        }
    }

    /// Takes in what has come; `when` is the moment at which an end would come.
    fn receive(&mut self, when: &str) -> Result<(), ClientError> {
        let mut buffer = [0; 65536];
        let closed = |errno| ClientError::Closed { socket: self.socket.clone(), when: when.into(), errno };
        match (&self.stream).read(&mut buffer) {
            Ok(0) => Err(closed(None)),
            Ok(length) => {
                self.unread.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Ok(())
            }
            Err(e) => match errno(&e) {
                Errno::EAGAIN | Errno::EINTR => Ok(()),
                errno => Err(closed(Some(errno))),
            },
        }
    }

    fn protocol(&self, problem: String) -> ClientError {
        ClientError::Protocol { socket: self.socket.clone(), problem }
    }
}

/// The params of a message as it has them.
fn text_of(params: &Option<Box<RawValue>>) -> &str {
    params.as_deref().unwrap_or(RawValue::NULL).get()
}

enum Answer {
    Outcome(Result<Box<RawValue>, RpcError>),
    Progress(Progress),
}

/// A moment that may lie beyond what a clock counts.
struct Limit(Option<Instant>);

impl Limit {
    fn new(deadline: Duration) -> Limit {
        Limit(Instant::now().checked_add(deadline))
    }

    /// The time left, `None` once there is none.
    fn left(&self) -> Option<Duration> {
        match self.0 {
            Some(end) => end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()),
            None => Some(Duration::MAX),
        }
    }
}

/// One attempt; `None` where the queue is full.
fn try_connect(socket: &Path) -> Result<Option<Stream>, ClientError> {
    let failed = |e: &io::Error| match errno(e) {
        errno @ (Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => {
            ClientError::NoDaemon { socket: socket.into(), errno }
        }
        errno @ (Errno::EACCES | Errno::EPERM) => ClientError::Denied { socket: socket.into(), errno },
        errno => ClientError::Io { socket: socket.into(), doing: "connect to", errno },
    };
    let (path, _folder) = short(socket).map_err(|e| failed(&e))?;
    let connect = || {
        let name = path.as_path().to_fs_name::<GenericFilePath>()?;
        ConnectOptions::new()
            .name(name)
            .wait_mode(ConnectWaitMode::Deferred)
            .nonblocking_stream(true)
            .connect_sync_as::<Stream>()
    };
    let stream = connect().map_err(|e| failed(&e))?;
    match getpeername::<UnixAddr>(stream.as_fd().as_raw_fd()) {
        Ok(_) => Ok(Some(stream)),
        Err(Errno::ENOTCONN) => Ok(None),
        Err(errno) => Err(ClientError::Io { socket: socket.into(), doing: "connect to", errno }),
    }
}

/// A path to the socket that fits a socket address, and the folder that it goes through where the socket's own does not.
fn short(socket: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Ok((socket.into(), None));
    };
    if socket.as_os_str().len() <= MAX_SOCKET_PATH {
        return Ok((socket.into(), None));
    }
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((path, Some(folder)))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// The beginning of a line, for an error message.
fn excerpt(line: &[u8]) -> String {
    String::from_utf8_lossy(line.get(..80).unwrap_or(line)).into_owned()
}
