//! Running a command with a bound on its time, its output kept whole.

use crate::fault::Context;
use crate::{Fault, Result};
use std::fmt;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long an ended command's output may stay open: whoever holds it longer was given what is not its own.
const OUTPUT_CLOSES: Duration = Duration::from_secs(3);

/// A command that ended.
#[derive(Debug)]
pub struct Ran {
    /// Its command line.
    pub line: String,
    /// What it wrote to its output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// What it wrote to its error output.
    pub stderr: String,
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// Itself if it exited with 0, else a fault with all it wrote.
    pub fn success(self) -> Result<Ran> {
        if self.code == Some(0) { Ok(self) } else { Err(Fault(self.to_string())) }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}", self.line)?;
        f.write_str(&self.stdout)?;
        if !self.stderr.is_empty() {
            writeln!(f, "[stderr]\n{}", self.stderr.trim_end())?;
        }
        match self.code {
            Some(0) => Ok(()),
            Some(code) => writeln!(f, "[exit {code} after {:?}]", self.took),
            None => writeln!(f, "[ended by a signal after {:?}]", self.took),
        }
    }
}

/// Runs a command to its end; kills it and fails after `limit`, and fails when something that it left behind
/// keeps its output open. Its input is `/dev/null`.
pub fn run(mut command: Command, limit: Duration) -> Result<Ran> {
    let line = line_of(&command);
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(format!("cannot run {line}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let code = match wait_child(&mut child, limit)? {
        Some(code) => code,
        None => {
            child.kill()?;
            child.wait()?;
            let ran = Ran {
                line,
                stdout: stdout.recv_timeout(OUTPUT_CLOSES).unwrap_or_default(),
                stderr: stderr.recv_timeout(OUTPUT_CLOSES).unwrap_or_default(),
                code: None,
                took: start.elapsed(),
            };
            return Err(Fault(format!("not done within {limit:?}, killed:\n{ran}")));
        }
    };
    let took = start.elapsed();
    let open =
        |which: &str| format!("{line}: it ended, but its {which} is still held open by what it started");
    let stdout = stdout.recv_timeout(OUTPUT_CLOSES).map_err(|_| Fault(open("stdout")))?;
    let stderr = stderr.recv_timeout(OUTPUT_CLOSES).map_err(|_| Fault(open("stderr")))?;
    Ok(Ran { line, stdout, stderr, code, took })
}

/// Waits for a child: its exit status (`Some(None)` for a signal), or `None` when the time is over.
pub fn wait_child(child: &mut Child, limit: Duration) -> Result<Option<Option<i32>>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code()));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The command line, for people.
pub fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        line.push(' ');
        if argument.contains([' ', '\'', '"', '|']) {
            line.push_str(&format!("{argument:?}"));
        } else {
            line.push_str(&argument);
        }
    }
    line
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A read error ends the output as its end does; what came before it is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}
