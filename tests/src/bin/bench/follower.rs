//! A client that follows the verdicts: `event.follow` on the control socket, in raw lines.

use scenarios::fault::Context;
use scenarios::{Json, Result, World, ensure};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// No event takes longer in good order: the daemon's own period finds what events did not tell.
const LIMIT: Duration = Duration::from_secs(20);

/// The connection, read by a thread that notes when each line had come.
pub struct Follower {
    lines: Receiver<(Instant, String)>,
    /// What was last said of each path.
    said: HashMap<PathBuf, String>,
    /// Events that nothing had given cause for.
    pub strange: u64,
}

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
        Ok(Follower { lines: events, said: HashMap::new(), strange: 0 })
    }

    /// When the event came that gives `path` this verdict. Any other that comes before it is strange.
    pub fn wait(&mut self, path: &Path, verdict: &str) -> Result<Instant> {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let next = self.lines.recv_timeout(left);
            let (at, line) = next.context(format!("{}: no event {verdict}", path.display()))?;
            let (of, said) = self.take(&line)?;
            if of == path && said == verdict {
                return Ok(at);
            }
            self.wonder(&line);
        }
    }

    /// Takes what has come meanwhile, all of it strange, and waits until `path` is `ok` again if that said otherwise.
    pub fn rest(&mut self, path: &Path) -> Result {
        while let Ok((_, line)) = self.lines.try_recv() {
            self.take(&line)?;
            self.wonder(&line);
        }
        if self.said.get(path).is_some_and(|said| said != "ok") {
            self.wait(path, "ok")?;
        }
        Ok(())
    }

    fn wonder(&mut self, line: &str) {
        self.strange += 1;
        eprintln!("bench: an event without a cause: {}", line.trim_end());
    }

    fn take(&mut self, line: &str) -> Result<(PathBuf, String)> {
        let event: Value = serde_json::from_str(line).context(line)?;
        let params = event.field("params");
        ensure!(params.field("kind") == "verdict", "no event of a verdict: {line}");
        let detail = params.field("detail");
        let (path, said) = (PathBuf::from(detail.text("path")?), detail.text("verdict")?.to_owned());
        self.said.insert(path.clone(), said.clone());
        Ok((path, said))
    }
}
