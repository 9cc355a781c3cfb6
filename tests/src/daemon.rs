//! `shimd run` as a child, and its control socket in raw lines: a second client, independent of the product's own.

use crate::command::wait_child;
use crate::fault::Context;
use crate::wait::{wait_for, wait_until};
use crate::world::locked;
use crate::{Fault, Json, Result, World, processes};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the daemon may take to answer its first request, and to end.
const DAEMON: Duration = Duration::from_secs(20);

/// How long a request may take: above the longest start and stop time-outs of the records.
const REQUEST: Duration = Duration::from_secs(60);

/// The error of a request.
#[derive(Debug)]
pub struct RpcFailure {
    /// The JSON-RPC code.
    pub code: i64,
    /// Its message.
    pub message: String,
    /// The contract's error name.
    pub kind: String,
    /// The whole error object.
    pub whole: Value,
}

impl fmt::Display for RpcFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.whole)
    }
}

impl World {
    /// Starts `shimd run` and waits until it answers; gives its pid.
    pub fn start_daemon(&self) -> Result<i32> {
        self.answering(self.spawn_daemon()?)
    }

    /// The same by a command of the scenario's own, whose process becomes the daemon.
    pub fn start_daemon_by(&self, command: Command) -> Result<i32> {
        self.answering(self.spawn_logged(command)?)
    }

    fn answering(&self, child: Child) -> Result<i32> {
        let pid = i32::try_from(child.id())?;
        locked(&self.daemons).push(child);
        wait_for(DAEMON, "the daemon answers", || {
            crate::ensure!(processes::alive(pid), "the daemon ended before it answered");
            Ok(self.rpc("shim.info", json!({})).is_ok_and(|info| info.pid("pid").ok() == Some(pid)))
        })?;
        Ok(pid)
    }

    /// Starts `shimd run` without waiting for anything. Its output goes to `daemon.out` in the world's folder.
    pub fn spawn_daemon(&self) -> Result<Child> {
        let mut command = self.command(self.bin("shimd"));
        command.arg("run").stdin(Stdio::null());
        self.spawn_logged(command)
    }

    fn spawn_logged(&self, mut command: Command) -> Result<Child> {
        let output = OpenOptions::new().create(true).append(true).open(self.folder().join("daemon.out"))?;
        let errors = output.try_clone()?;
        command.stdout(output).stderr(errors);
        command.spawn().context("cannot start shimd run")
    }

    /// The pid of the daemon that answers.
    pub fn daemon_pid(&self) -> Result<i32> {
        self.rpc("shim.info", json!({}))?.pid("pid")
    }

    /// Kills the daemon as `kill -9` does, and waits until it is dead.
    pub fn kill_daemon(&self) -> Result<i32> {
        let pid = self.daemon_pid()?;
        processes::signal(pid, Signal::SIGKILL);
        self.await_killed(pid)?;
        Ok(pid)
    }

    /// Waits until a daemon that was killed is dead.
    pub fn await_killed(&self, pid: i32) -> Result {
        self.reap();
        wait_until(DAEMON, "the killed daemon is dead", || {
            self.reap();
            !processes::alive(pid)
        })
    }

    /// Asks the daemon to end, and waits until it is gone.
    pub fn stop_daemon(&self, stop_services: bool) -> Result {
        let pid = self.daemon_pid()?;
        self.rpc("shim.shutdown", json!({"stop_services": stop_services}))?;
        wait_until(DAEMON, format!("the daemon {pid} ends after shim.shutdown"), || {
            self.reap();
            !processes::alive(pid)
        })
    }

    /// A request that must work; gives its result.
    pub fn rpc(&self, method: &str, params: Value) -> Result<Value> {
        match self.request(method, params.clone())? {
            Ok(result) => Ok(result),
            Err(failure) => Err(Fault(format!("{method} {params}: {failure}"))),
        }
    }

    /// A request that must be refused; gives the error.
    pub fn rpc_error(&self, method: &str, params: Value) -> Result<RpcFailure> {
        match self.request(method, params.clone())? {
            Ok(result) => Err(Fault(format!("{method} {params} was to fail, and gave {result}"))),
            Err(failure) => Ok(failure),
        }
    }

    /// The row of `service.list` for one service.
    pub fn service(&self, name: &str) -> Result<Value> {
        Ok(self.rpc("service.list", json!({}))?.row("name", name)?.clone())
    }

    /// The record of `service.status`.
    pub fn status(&self, name: &str) -> Result<Value> {
        self.rpc("service.status", json!({"name": name}))
    }

    /// Every process of the service's live instance.
    pub fn instance_pids(&self, name: &str) -> Result<Vec<i32>> {
        let status = self.status(name)?;
        let pids = status.field("instance").field("pids");
        let pids = pids.as_array().context(format!("no instance in {status}"))?;
        Ok(pids.iter().filter_map(|pid| i32::try_from(pid.as_i64()?).ok()).collect())
    }

    /// Registers a spec over the control socket.
    pub fn register(&self, spec: &Value) -> Result {
        self.note(format!("service.set {spec}"));
        self.rpc("service.set", json!({"spec": spec})).map(drop)
    }

    /// Registers and starts a service that must come up; gives its pid.
    pub fn up(&self, spec: &Value) -> Result<i32> {
        self.register(&self.relinking_spec(spec))?;
        let name = spec.text("name")?;
        let row = self.rpc("service.start", json!({"name": name}))?;
        let row = row.only()?;
        crate::ensure!(row.text("status")? == "running", "it did not come up: {row}");
        self.remember(name)?;
        row.pid("pid")
    }

    /// Waits until a service is in a state; gives its row.
    pub fn wait_status(&self, name: &str, status: &str, limit: Duration) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait_for(limit, format!("{name} is {status}"), || {
            last = self.service(name)?;
            Ok((last.text("status")? == status).then(|| last.clone()))
        });
        waited.map_err(|fault| Fault(format!("{fault}; it is {last}")))
    }

    /// One request on a connection of its own, in a raw line. Progress notifications are passed over.
    pub fn request(&self, method: &str, params: Value) -> Result<std::result::Result<Value, RpcFailure>> {
        let line = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let response = self.exchange(&line)?;
        if method != "shim.info" && method != "service.list" {
            self.note(format!("{method} {params}\n  {response}"));
        }
        match response.get("error") {
            None => Ok(Ok(response.field("result").clone())),
            Some(error) => Ok(Err(RpcFailure {
                code: error.int("code")?,
                message: error.text("message")?.to_owned(),
                kind: error.field("data").text("kind").unwrap_or_default().to_owned(),
                whole: error.clone(),
            })),
        }
    }

    /// Sends one line, whatever it holds, and gives the first response.
    pub fn exchange(&self, line: &str) -> Result<Value> {
        let start = Instant::now();
        let mut stream =
            UnixStream::connect(self.control_socket()).context("no daemon at the control socket")?;
        stream.set_read_timeout(Some(REQUEST))?;
        stream.set_write_timeout(Some(REQUEST))?;
        stream.write_all(line.as_bytes())?;
        stream.write_all(b"\n")?;
        let mut reader = BufReader::new(stream);
        loop {
            crate::ensure!(start.elapsed() < REQUEST, "no response to {line} within {REQUEST:?}");
            let mut answer = String::new();
            let count = reader.read_line(&mut answer).context(format!("no response to {line}"))?;
            crate::ensure!(count > 0, "the daemon closed without a response to {line}");
            let answer: Value = serde_json::from_str(&answer).context(format!("no JSON: {answer}"))?;
            if answer.get("method").is_none() {
                return Ok(answer);
            }
        }
    }

    /// Ends whatever daemon answers, with its services, and every daemon that was started here.
    pub(crate) fn end_daemon(&self) -> Result {
        // No answer, or that of a scenario which plays the daemon itself: there is none to end in an orderly way.
        let own = i32::try_from(std::process::id())?;
        let ended = match self.daemon_pid() {
            Ok(pid) if pid != own => self.stop_daemon(true),
            _ => Ok(()),
        };
        for mut child in locked(&self.daemons).drain(..) {
            let limit = if ended.is_ok() { DAEMON } else { Duration::ZERO };
            if wait_child(&mut child, limit)?.is_none() {
                child.kill()?;
                child.wait()?;
            }
        }
        ended
    }

    fn reap(&self) {
        locked(&self.daemons).retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
