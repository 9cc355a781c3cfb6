//! The two clients of the figures: one that keeps its connection to the daemon open, as a screen of states would,
//! and one of the servers themselves.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use scenarios::fault::Context;
use scenarios::{Fault, Json, Result, World};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// No answer takes longer in good order.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions to a server that does not answer yet.
const AGAIN: Duration = Duration::from_micros(100);

/// An open connection to the control socket.
pub struct Control(BufReader<UnixStream>);

impl Control {
    /// Connects.
    pub fn open(world: &World) -> Result<Control> {
        let stream = UnixStream::connect(world.control_socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Control(BufReader::new(stream)))
    }

    /// One request and its result.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.0.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        let mut answer: Value = serde_json::from_str(&answer).context(format!("{method}: {answer}"))?;
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(Fault(format!("{method}: {answer}"))),
        }
    }

    /// The state of a service as a method of one row says it.
    pub fn status(&mut self, method: &str, name: &str) -> Result<String> {
        let rows = self.call(method, json!({"names": [name]}))?;
        Ok(rows.only()?.text("status")?.to_owned())
    }
}

/// Asks again and again until another process than `old` answers; gives the moment and its pid.
pub fn first_answer(path: &Path, question: &str, old: i32) -> Result<(Instant, i32)> {
    let start = Instant::now();
    loop {
        if let Some(pid) = answer(path, question, old) {
            return Ok((Instant::now(), pid));
        }
        scenarios::ensure!(start.elapsed() < PATIENCE, "{}: no answer", path.display());
        std::thread::sleep(AGAIN);
    }
}

fn answer(path: &Path, question: &str, old: i32) -> Option<i32> {
    let mut stream = UnixStream::connect(path).ok()?;
    // Who called listen(2) there.
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    if pid == old {
        return None;
    }
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let count = stream.read(&mut [0; 256]).ok()?;
    (count > 0).then_some(pid)
}
