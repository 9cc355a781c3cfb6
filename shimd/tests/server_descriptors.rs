//! No descriptors left: a test of its own process, since the limit is the process's.
#![allow(clippy::expect_used, clippy::panic)] // a helper's failure is its test's failure

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use shimd::server::{Handler, News, Server};
use shimd_api::rpc::RpcError;
use shimd_api::wire::Progress;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

struct Nothing;

impl Handler for Nothing {
    async fn call(
        &self,
        _: &str,
        _: &RawValue,
        _: Option<mpsc::Sender<Progress>>,
    ) -> Result<Box<RawValue>, RpcError> {
        Ok(RawValue::NULL.to_owned())
    }

    async fn follow(
        &self,
        method: &str,
        _: &RawValue,
    ) -> Result<(Box<RawValue>, mpsc::Receiver<News>), RpcError> {
        Err(RpcError::no_method(method))
    }

    async fn metrics(&self) -> String {
        String::new()
    }

    async fn health(&self) -> Value {
        json!({"status": "ok"})
    }
}

async fn ask(stream: &mut UnixStream) -> String {
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"shim.info\"}\n").await.expect("written");
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    timeout(Duration::from_secs(20), reader.read_line(&mut line)).await.expect("in time").expect("read");
    line
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("usage");
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    of(usage.user_time()) + of(usage.system_time())
}

#[tokio::test]
async fn clients_wait_while_no_descriptor_is_left_and_nothing_spins() {
    let folder = std::env::temp_dir().join(format!("shimd-descriptors-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new folder");
    let path = folder.join("rpc.sock");
    let server = Server::bind(&path).expect("bound");
    let serving = tokio::spawn(server.serve(Arc::new(Nothing), std::future::pending()));
    let mut seated = UnixStream::connect(&path).await.expect("connected");
    assert!(ask(&mut seated).await.contains("\"result\":null"));

    // Connected, and not accepted before the next await of this one thread; then no descriptor is left.
    let waiting = std::os::unix::net::UnixStream::connect(&path).expect("connected");
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, waiting.as_raw_fd() as u64 + 1, hard).expect("lowered");
    let before = cpu();
    for _ in 0..20 {
        assert!(ask(&mut seated).await.contains("\"result\":null"), "who is there is served");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(cpu() - before < Duration::from_millis(250), "{:?} of half a second", cpu() - before);

    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).expect("raised");
    waiting.set_nonblocking(true).expect("nonblocking");
    let mut waiting = UnixStream::from_std(waiting).expect("registered");
    assert!(ask(&mut waiting).await.contains("\"result\":null"), "who waited is served");
    serving.abort();
    let _ = serving.await;
    assert!(!path.exists(), "a server that is dropped removes its file");
    std::fs::remove_dir_all(&folder).expect("removed");
}
