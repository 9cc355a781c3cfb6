//! `proc logs --follow` of a service that writes 50,000 lines a second: how long a line is on its way, from write(2) to
//! the output of Nushell, and whether daemon or plugin grow meanwhile. Each line is to come once, in its order.
//!
//! `bench __lines FILE` is the service. It writes line 0; the others once FILE is there. Each is `NUMBER NANOSECONDS`, the
//! time since 1970 at which it was written, and as many dots as make it 77 bytes.

use crate::in_world;
use crate::memory;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use nix::sys::signal::Signal;
use scenarios::fault::Context;
use scenarios::{Result, ensure, processes};
use serde_json::json;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The service's command.
pub const COMMAND: &str = "__lines";
const RATE: usize = 50_000;
const SECONDS: usize = 12;
const LINES: usize = RATE * SECONDS;
/// Of a line without its newline.
const WIDTH: usize = 76;
/// How long a line of the last second may be on its way, in the middle, also on a busy machine: where a reader fell
/// behind it is seconds.
const LAG: Duration = Duration::from_millis(250);
/// How much larger than it was after [`WARM`] a process may become.
const GROWTH: u64 = 4 << 20;
const WARM: usize = 3 * RATE;
const LIMIT: Duration = Duration::from_secs(60);

pub fn measure() -> Result<Vec<Section>> {
    let count = LINES + 1;
    let rows = format!("proc logs burst --follow --lines 1 | first {count} | get line | to text");
    let raw = format!("proc logs burst --follow --lines 1 --raw | lines | first {count} | to text");
    Ok(vec![followed("proc logs --follow", &rows)?, followed("proc logs --follow --raw", &raw)?])
}

fn followed(what: &str, pipeline: &str) -> Result<Section> {
    in_world("burst", |world| {
        let daemon = world.start_daemon()?;
        let go = world.file("go");
        let exec =
            [&std::env::current_exe()?, Path::new(COMMAND), &go].map(|word| word.display().to_string());
        world.up(&json!({"name": "burst", "exec": exec, "restart": {"policy": "never"}}))?;
        let nu = world.nu_command(pipeline)?.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (lags, sizes) = read(nu, daemon, &go)?;
        let last = lags.get(LINES - RATE..).context("no second was measured")?;
        let mut lines = vec![
            Line::timed("a line: write(2) → Nushell's output", &lags.iter().copied().collect()),
            Line::timed("a line of the last second", &last.iter().copied().collect::<Samples>())
                .aim(Aim::Most(Amount::Time(LAG))),
        ];
        for (who, size) in ["the daemon", "the plugin"].into_iter().zip(sizes) {
            lines.push(Line::weighed(format!("{who}: Rss after {} lines", WARM), size.warm));
            let grown = size.most.saturating_sub(size.warm);
            lines.push(
                Line::weighed(format!("{who}: most of it later, less that"), grown)
                    .aim(Aim::Most(Amount::Bytes(GROWTH))),
            );
        }
        Ok(Section {
            title: format!("{what}, {RATE} lines of {WIDTH} bytes a second for {SECONDS} s"),
            floor: None,
            lines,
        })
    })
}

/// How much memory a process has, in bytes.
#[derive(Default, Clone, Copy)]
struct Size {
    warm: u64,
    most: u64,
}

impl Size {
    fn look(&mut self, pid: i32, line: usize) -> Result {
        let now = memory::field(pid, "status", "VmRSS:")?;
        match line <= WARM {
            true => self.warm = now,
            false => self.most = self.most.max(now),
        }
        Ok(())
    }
}

/// How long each line was on its way; and the sizes of daemon and plugin.
fn read(mut nu: Child, daemon: i32, go: &Path) -> Result<(Vec<Duration>, [Size; 2])> {
    let pid = i32::try_from(nu.id())?;
    let mut output = BufReader::new(nu.stdout.take().context("no output of Nushell")?);
    // Where a line is lost, the last one never comes.
    let (read, reading) = channel::<()>();
    thread::spawn(move || {
        if reading.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            processes::signal(pid, Signal::SIGKILL);
        }
    });
    let mut lags = Vec::with_capacity(LINES);
    let mut sizes = [Size::default(); 2];
    let mut plugin = 0;
    let mut line = String::new();
    for number in 0..=LINES {
        line.clear();
        output.read_line(&mut line)?;
        let mut words = line.split(' ');
        ensure!(words.next() == Some(&number.to_string()), "no line {number}, but {line:?}");
        let written: u64 = words.next().unwrap_or_default().parse()?;
        if number == 0 {
            plugin = *processes::children(pid).first().context("Nushell runs no plugin")?;
            fs::write(go, "")?;
            continue;
        }
        lags.push(now().saturating_sub(Duration::from_nanos(written)));
        if number % RATE == 0 {
            let [of_daemon, of_plugin] = &mut sizes;
            of_daemon.look(daemon, number)?;
            of_plugin.look(plugin, number)?;
        }
    }
    drop(read);
    let ended = nu.wait()?;
    ensure!(ended.success(), "Nushell: {ended}");
    Ok((lags, sizes))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The service: all that is due in one write, each millisecond; then it lives on.
pub fn service(arguments: &[String]) -> ExitCode {
    match arguments {
        [go] if write_lines(Path::new(go)).is_ok() => loop {
            thread::park();
        },
        _ => ExitCode::from(2),
    }
}

fn write_lines(go: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line(0).as_bytes())?;
    out.flush()?;
    while !go.exists() {
        thread::sleep(Duration::from_millis(10));
    }
    let began = Instant::now();
    let mut written = 0;
    while written < LINES {
        let due = LINES.min((began.elapsed().as_secs_f64() * RATE as f64) as usize);
        let some: String = (written + 1..=due).map(line).collect();
        out.write_all(some.as_bytes())?;
        out.flush()?;
        written = due;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn line(number: usize) -> String {
    let words = format!("{number} {} ", now().as_nanos());
    format!("{words:.<WIDTH$}\n")
}
