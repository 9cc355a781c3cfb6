//! A client that follows the verdicts: `event.follow` on the control socket, in raw lines.

use scenarios::fault::Context;
use scenarios::{Fault, Json, Result, World, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// No event takes longer in good order: the daemon's own period finds what events did not tell.
const LIMIT: Duration = Duration::from_secs(20);

/// The connection, read by a thread that notes when each line had come.
pub struct Follower(Receiver<(Instant, String)>);

impl Follower {
    /// Follows from now on.
    pub fn start(world: &World) -> Result<Follower> {
        let mut stream = UnixStream::connect(world.control_socket())?;
        stream.set_read_timeout(Some(LIMIT))?;
        let params = json!({"kinds": ["verdict"]});
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "event.follow", "params": params});
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut lines = BufReader::new(stream);
        let mut answer = String::new();
        lines.read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).context(format!("event.follow: {answer}"))?;
        ensure!(answer.get("result").is_some(), "event.follow: {answer}");
        lines.get_ref().set_read_timeout(None)?;
        let (sender, events) = channel();
        std::thread::spawn(move || {
            loop {
                let mut line = String::new();
                let count = lines.read_line(&mut line).unwrap_or(0);
                if count == 0 || sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Follower(events))
    }

    /// When the event came that gives `path` this verdict; what came before it is passed over.
    pub fn wait(&self, path: &Path, verdict: &str) -> Result<Instant> {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (at, line) =
                self.0.recv_timeout(left).context(format!("{}: no event {verdict}", path.display()))?;
            let event: Value = serde_json::from_str(&line).context(&line)?;
            let params = event.field("params");
            if params.field("kind") == "gap" {
                return Err(Fault(format!("the daemon dropped events: {line}")));
            }
            let detail = params.field("detail");
            if detail.field("path").as_str() == path.to_str() && detail.field("verdict") == verdict {
                return Ok(at);
            }
        }
    }
}
