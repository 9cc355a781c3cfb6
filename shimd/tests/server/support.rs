//! A server on a socket in a folder of its own, a handler that does what its params say, and clients of raw bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use shimd::server::{ControlHandle, Endpoint, Handler, Limits, News, Server};
use shimd_api::event::{EventDetail, EventKind, EventRow};
use shimd_api::rpc::RpcError;
use shimd_api::wire::Progress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No wait of a test lasts longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A future that has to resolve.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// A folder of mode 0700 that is gone when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("shimd-server-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&path)
            .expect("a new folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A handler whose calls go by the service's name in the params:
/// `hold` waits for `Fake::release`, `panic` panics, `big` answers with 8 MiB, `news` sends three progresses.
pub struct Fake {
    /// How many calls began, ended with an answer, and were dropped.
    pub begun: watch::Sender<usize>,
    pub ended: watch::Sender<usize>,
    pub dropped: watch::Sender<usize>,
    released: watch::Sender<bool>,
    pub health: Value,
    followed: mpsc::UnboundedSender<mpsc::Sender<News>>,
    followers: Mutex<mpsc::UnboundedReceiver<mpsc::Sender<News>>>,
}

/// Events that a stream's channel holds.
pub const BOUND: usize = 16;

/// An event of a service.
pub fn event(id: u64) -> EventRow {
    EventRow {
        id,
        time: "2026-01-01T00:00:00Z".into(),
        service: Some("web".into()),
        kind: EventKind::Verdict,
        detail: EventDetail { verdict: Some("dangling".into()), ..EventDetail::default() },
    }
}

impl Fake {
    fn new() -> Self {
        let (followed, followers) = mpsc::unbounded_channel();
        Fake {
            begun: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            dropped: watch::Sender::new(0),
            released: watch::Sender::new(false),
            health: json!({"status": "ok", "services": 3}),
            followed,
            followers: Mutex::new(followers),
        }
    }

    /// Where the events of the next stream to begin are to go.
    pub async fn follower(&self) -> mpsc::Sender<News> {
        let next = async { self.followers.lock().await.recv().await };
        soon("a stream", next).await.expect("the handler lives")
    }

    /// Lets every held call go on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }
}

/// Waits until a count has been reached.
pub async fn reached(count: &watch::Sender<usize>, wanted: usize) {
    let mut counts = count.subscribe();
    let reached = soon(&format!("a count of {wanted}"), counts.wait_for(|count| *count >= wanted)).await;
    assert_eq!(*reached.expect("the handler lives"), wanted);
}

/// Counts a call as dropped unless it ended.
struct Under<'a>(&'a Fake, bool);

impl Drop for Under<'_> {
    fn drop(&mut self) {
        let count = if self.1 { &self.0.ended } else { &self.0.dropped };
        count.send_modify(|count| *count += 1);
    }
}

fn raw(value: impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(&value).expect("plain JSON")
}

impl Handler for Fake {
    async fn call(
        &self,
        method: &str,
        params: &RawValue,
        progress: Option<mpsc::Sender<Progress>>,
    ) -> Result<Box<RawValue>, RpcError> {
        self.begun.send_modify(|count| *count += 1);
        let mut under = Under(self, false);
        let params: Value = serde_json::from_str(params.get()).expect("checked by the server");
        let name = params["name"].as_str().unwrap_or_default();
        match name {
            "hold" => {
                let mut released = self.released.subscribe();
                released.wait_for(|released| *released).await.expect("the handler lives");
            }
            "panic" => panic!("a handler's panic, which the test wants"),
            "news" => {
                for elapsed in 1..=3 {
                    if let Some(progress) = &progress {
                        let _ = progress.send(Progress { services: vec![], elapsed }).await;
                    }
                }
            }
            _ => {}
        }
        under.1 = true;
        match name {
            "nobody" => Err(RpcError::unknown_service("nobody", "see proc list")),
            "big" => Ok(raw("x".repeat(8 << 20))),
            _ => Ok(raw(json!({"method": method, "params": params, "progress": progress.is_some()}))),
        }
    }

    async fn follow(
        &self,
        method: &str,
        params: &RawValue,
    ) -> Result<(Box<RawValue>, mpsc::Receiver<News>), RpcError> {
        assert!(["event.follow", "log.stream"].contains(&method), "{method}");
        let params: Value = serde_json::from_str(params.get()).expect("checked by the server");
        match params["name"].as_str() {
            Some("nobody") => return Err(RpcError::unknown_service("nobody", "see proc list")),
            Some("panic") => panic!("a handler's panic, which the test wants"),
            _ => {}
        }
        let (events, receiver) = mpsc::channel(BOUND);
        self.followed.send(events).expect("the fixture lives");
        let past: Vec<EventRow> = params["after"].as_u64().map(|id| event(id + 1)).into_iter().collect();
        Ok((raw(past), receiver))
    }

    async fn metrics(&self) -> String {
        "# TYPE shimd_services gauge\nshimd_services 3\n# EOF\n".to_owned()
    }

    async fn health(&self) -> Value {
        self.health.clone()
    }
}

/// A server that serves until dropped.
pub struct Fixture {
    pub handler: Arc<Fake>,
    pub endpoint: Endpoint,
    pub control: ControlHandle,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    _folder: Folder,
}

impl Fixture {
    pub fn start(limits: Limits) -> Self {
        Fixture::with(limits, Fake::new())
    }

    pub fn ill() -> Self {
        Fixture::with(Limits::default(), Fake { health: json!({"status": "failing"}), ..Fake::new() })
    }

    fn with(limits: Limits, handler: Fake) -> Self {
        let folder = Folder::new();
        let handler = Arc::new(handler);
        let server = Server::bind(&folder.path().join("rpc.sock")).expect("bound").with_limits(limits);
        let control = server.control();
        let endpoint = control.endpoint();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.serve(handler.clone(), async {
            let _ = stopped.await;
        }));
        Fixture { handler, endpoint, control, stop: Some(stop), task: Some(task), _folder: folder }
    }

    /// The control socket's path.
    pub fn path(&self) -> &Path {
        &self.endpoint.path
    }

    pub async fn connect(&self) -> Wire {
        Wire::new(UnixStream::connect(self.path()).await.expect("connected"))
    }

    /// Tells the server to stop, without waiting for it.
    pub fn begin_stop(&mut self) {
        let _ = self.stop.take().expect("stopped once").send(());
    }

    /// Waits until the server has stopped.
    pub async fn stopped(&mut self) {
        soon("the server's end", self.task.take().expect("awaited once")).await.expect("no panic");
    }
}

/// A client of raw bytes.
pub struct Wire {
    pub stream: UnixStream,
    unread: Vec<u8>,
}

impl Wire {
    pub fn new(stream: UnixStream) -> Self {
        Wire { stream, unread: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("a write", self.stream.write_all(bytes.as_ref())).await.expect("written");
    }

    pub async fn shut(&mut self) {
        self.stream.shutdown().await.expect("shut down");
    }

    /// The next line, as JSON.
    pub async fn line(&mut self) -> Value {
        let mut scanned = 0;
        loop {
            let fresh = self.unread.iter().skip(scanned).position(|byte| *byte == b'\n');
            if let Some(end) = fresh.map(|end| scanned + end) {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("a line of JSON");
            }
            scanned = self.unread.len();
            self.unread.reserve(64 << 10);
            let n = soon("a line", self.stream.read_buf(&mut self.unread)).await.expect("read");
            let seen = &self.unread[..self.unread.len().min(200)];
            assert_ne!(n, 0, "the end, after {:?}", String::from_utf8_lossy(seen));
        }
    }

    /// Everything up to the end of the stream.
    pub async fn rest(&mut self) -> Vec<u8> {
        soon("the end", self.stream.read_to_end(&mut self.unread)).await.expect("an orderly end");
        std::mem::take(&mut self.unread)
    }

    /// Asks one thing of a connection that has nothing else under way.
    pub async fn ask(&mut self, id: u32, method: &str, params: Value) -> Value {
        self.send(request(id, method, params)).await;
        let answer = self.line().await;
        assert_eq!(answer["id"], id);
        answer
    }

    /// An HTTP answer: its status, its head in lower case, and its body, of which there is none after HEAD.
    pub async fn http(&mut self, head_only: bool) -> (u16, String, Vec<u8>) {
        let head = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                break String::from_utf8(head).expect("text").to_lowercase();
            }
            let n = soon("a head", self.stream.read_buf(&mut self.unread)).await.expect("read");
            assert_ne!(n, 0, "the end, after {:?}", String::from_utf8_lossy(&self.unread));
        };
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
        let length = if head_only { 0 } else { length };
        while self.unread.len() < length {
            let n = soon("a body", self.stream.read_buf(&mut self.unread)).await.expect("read");
            assert_ne!(n, 0, "the end within a body");
        }
        (status, head, self.unread.drain(..length).collect())
    }
}

/// A request as a line.
pub fn request(id: u32, method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string() + "\n"
}

/// A call that waits for [`Fake::release`].
pub fn hold(id: u32) -> String {
    request(id, "service.status", json!({"name": "hold"}))
}

/// `code` and `data.kind` of an error.
pub fn error(answer: &Value) -> (i64, &str) {
    let error = &answer["error"];
    let help = error["data"]["help"].as_str().unwrap_or_default();
    assert!(!help.is_empty(), "an error without help: {answer}");
    (error["code"].as_i64().expect("a code"), error["data"]["kind"].as_str().expect("a kind"))
}
