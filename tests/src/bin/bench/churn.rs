//! Listeners that are none of our business and come and go: a child that holds so many, half of them abstract, half
//! with a file, and replaces the oldest ones at a steady rate, each by one of another name.
//!
//! `bench __churn FOLDER COUNT RATE` is the child. It says `ready` once it holds all; then, for each byte that it is sent,
//! how many it has replaced; at the end of its input it ends.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use scenarios::fault::Context;
use scenarios::{Fault, Result, World};
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::time::Instant;

/// The child's command.
pub const COMMAND: &str = "__churn";
/// How many listeners it holds.
pub const LISTENERS: usize = 10_000;
/// So many are replaced before it looks again whether it was asked something.
const AT_ONCE: u64 = 200;

/// The child; dropped, it ends.
pub struct Churn {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What the child had done by a moment.
pub struct Mark {
    at: Instant,
    replaced: u64,
}

impl Churn {
    /// Starts it and waits until it holds all its listeners. `rate`: how many it is to replace each second.
    pub fn start(world: &World, rate: u64) -> Result<Churn> {
        let folder = world.file("churn");
        fs::create_dir_all(&folder)?;
        let mut command = world.command(std::env::current_exe()?);
        command.arg(COMMAND).arg(&folder).arg(LISTENERS.to_string()).arg(rate.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let ask = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("no output of the churning child")?);
        let mut churn = Churn { child, ask, answers };
        match churn.line()?.as_str() {
            "ready" => Ok(churn),
            words => Err(Fault(format!("the churning child says {words:?}"))),
        }
    }

    /// How far it is.
    pub fn mark(&mut self) -> Result<Mark> {
        self.ask.as_mut().context("no input of the churning child")?.write_all(b"?")?;
        let replaced = self.line()?.parse()?;
        Ok(Mark { at: Instant::now(), replaced })
    }

    /// In words, what it did since then.
    pub fn since(&mut self, mark: &Mark) -> Result<String> {
        let now = self.mark()?;
        let rate = (now.replaced - mark.replaced) as f64 / (now.at - mark.at).as_secs_f64();
        Ok(format!("{LISTENERS} unrelated listeners, {rate:.0} replaced a second"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        drop(self.ask.take());
        // Ended already is as good.
        let _ = self.child.wait();
    }
}

/// The child's whole life.
pub fn child(arguments: &[String]) -> ExitCode {
    match arguments {
        [folder, count, rate] => match churn(Path::new(folder), count, rate) {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("bench {COMMAND}: {fault}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::from(2),
    }
}

fn churn(folder: &Path, count: &str, rate: &str) -> Result {
    let (count, rate): (u64, u64) = (count.parse()?, rate.parse()?);
    let mut listeners = VecDeque::new();
    for number in 0..count {
        listeners.push_back(Stranger::bind(folder, number)?);
    }
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout());
    writeln!(output, "ready")?;
    let began = Instant::now();
    let mut replaced: u64 = 0;
    loop {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        for _ in 0..due.saturating_sub(replaced).min(AT_ONCE) {
            drop(listeners.pop_front());
            listeners.push_back(Stranger::bind(folder, count + replaced)?);
            replaced += 1;
        }
        let pause = if due > replaced { PollTimeout::ZERO } else { PollTimeout::from(1_u8) };
        let asked = poll(&mut [PollFd::new(input.as_fd(), PollFlags::POLLIN)], pause)? > 0;
        if asked {
            if input.read(&mut [0])? == 0 {
                return Ok(());
            }
            writeln!(output, "{replaced}")?;
        }
    }
}

/// A listener, and its file where it has one.
struct Stranger {
    _listener: UnixListener,
    file: Option<PathBuf>,
}

impl Stranger {
    fn bind(folder: &Path, number: u64) -> Result<Stranger> {
        if number.is_multiple_of(2) {
            let name = format!("shim-churn-{}-{number}", std::process::id());
            let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
            return Ok(Stranger { _listener, file: None });
        }
        let file = folder.join(number.to_string());
        let _listener = UnixListener::bind(&file)?;
        Ok(Stranger { _listener, file: Some(file) })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // The world's end removes what is left.
            let _ = fs::remove_file(file);
        }
    }
}
