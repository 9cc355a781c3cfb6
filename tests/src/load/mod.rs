//! Real servers under real clients, while their sockets' files are removed or they are restarted: what the clients see.

mod dialect;
mod place;

use crate::fault::Context;
use crate::{Fault, Json, Result, World, ensure, wait_until};
use dialect::Talk;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use dialect::Dialect;
pub use place::{Mode, SERVERS, Server, placed};

/// Clients that connect anew for each question, without a pause.
const CLIENTS: usize = 2;
const SOON: Duration = Duration::from_secs(30);
/// Between two questions on a connection that stays open.
const BEAT: Duration = Duration::from_millis(1);
/// Between two removals: repeated ones back off.
const REST: Duration = Duration::from_millis(5);

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls of connect(2), those that failed among them.
    pub connects: usize,
    /// Those that failed, by errno.
    pub refused: BTreeMap<String, usize>,
    /// Questions that were answered.
    pub answered: usize,
    /// Connections that ended, or went wrong, before a question that was asked on them had its answer.
    pub dropped: usize,
    /// The longest time from the first attempt to the whole answer.
    pub longest: Duration,
    /// The first thing that went wrong after a connect.
    pub first_drop: Option<String>,
}

impl Seen {
    /// How many connects failed.
    pub fn failed(&self) -> usize {
        self.refused.values().sum()
    }

    fn add(&mut self, other: Seen) {
        self.connects += other.connects;
        for (errno, count) in other.refused {
            *self.refused.entry(errno).or_default() += count;
        }
        self.answered += other.answered;
        self.dropped += other.dropped;
        self.longest = self.longest.max(other.longest);
        self.first_drop = self.first_drop.take().or(other.first_drop);
    }

    fn drop_of(&mut self, what: &str, error: &std::io::Error) {
        self.dropped += 1;
        self.first_drop.get_or_insert_with(|| format!("{what}: {error}"));
    }
}

/// A server that runs, and its clients' view of it.
pub struct Load<'a> {
    world: &'a World,
    name: String,
    path: std::path::PathBuf,
    dialect: Dialect,
    mode: Mode,
}

impl<'a> Load<'a> {
    /// Starts a real server in one of its modes.
    pub fn up(world: &'a World, server: &Server, mode: Mode) -> Result<Load<'a>> {
        let prepared = server.record()?.prepare(world)?;
        let path = prepared.sockets.first().context("no socket")?.clone();
        let spec = placed(&prepared, server, mode)?;
        world.up(&spec)?;
        // One that is `ok` may still have to read its files.
        prepared.answers(world)?;
        Ok(Load { world, name: server.name.to_owned(), path, dialect: server.dialect, mode })
    }

    /// The socket's file is removed so many times, by this process. Gives what clients saw that connect anew, and those
    /// whose connections stay open (where the server has such).
    pub fn removals(&self, times: usize, open: bool) -> Result<(Seen, Seen)> {
        let pid = self.world.service(&self.name)?.pid("pid")?;
        let seen = self.under_clients(open, || {
            for time in 0..times {
                fs::remove_file(&self.path).context(format!("removal {time}"))?;
                wait_until(SOON, format!("it is back after removal {time}"), || self.path.exists())?;
                std::thread::sleep(REST);
            }
            Ok(())
        })?;
        ensure!(seen.0.answered > 0, "no question was answered");
        let row = self.world.service(&self.name)?;
        ensure!(row.pid("pid")? == pid && row.text("status")? == "running", "it was restarted: {row}");
        Ok(seen)
    }

    /// The service is restarted so many times: cleanly, or without a gap where the mode can.
    pub fn restarts(&self, times: usize) -> Result<Seen> {
        let way = if self.mode == Mode::Bind { "clean" } else { "gapless" };
        let (seen, _) = self.under_clients(false, || {
            for time in 0..times {
                let rows = self.world.rpc("service.restart", json!({"name": self.name, way: true}))?;
                let row = rows.only()?;
                ensure!(row.text("outcome")? == "restarted", "restart {time}: {row}");
            }
            Ok(())
        })?;
        Ok(seen)
    }

    /// Stops it.
    pub fn down(self) -> Result {
        self.world.rpc("service.stop", json!({"name": self.name}))?;
        self.world.rpc("service.delete", json!({"name": self.name})).map(drop)
    }

    fn under_clients(&self, open: bool, work: impl FnOnce() -> Result) -> Result<(Seen, Seen)> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| anew(&self.path, self.dialect, &over))).collect();
            let stayer = open.then(|| scope.spawn(|| stays_open(&self.path, self.dialect, &over)));
            let worked = work();
            over.store(true, Ordering::Relaxed);
            let gone = |_| Fault::new("a client panicked");
            let (mut fresh, mut stayed) = (Seen::default(), Seen::default());
            for client in clients {
                fresh.add(client.join().map_err(gone)?);
            }
            if let Some(stayer) = stayer {
                stayed.add(stayer.join().map_err(gone)?);
            }
            worked?;
            Ok((fresh, stayed))
        })
    }
}

/// Connects, asks, closes, without a pause.
fn anew(path: &Path, dialect: Dialect, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut first = Instant::now();
    while !over.load(Ordering::Relaxed) {
        seen.connects += 1;
        match Talk::open(path, dialect, false) {
            Err(error) => {
                *seen.refused.entry(name_of(&error)).or_default() += 1;
                continue;
            }
            Ok(mut talk) => match talk.greet().and_then(|()| talk.ask()) {
                Ok(_) => {
                    seen.answered += 1;
                    seen.longest = seen.longest.max(first.elapsed());
                }
                Err(error) => {
                    seen.drop_of("a new connection", &error);
                    continue;
                }
            },
        }
        first = Instant::now();
    }
    seen
}

/// Asks on one connection for as long as the server leaves it open.
fn stays_open(path: &Path, dialect: Dialect, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    'connection: while !over.load(Ordering::Relaxed) {
        seen.connects += 1;
        let mut talk = match Talk::open(path, dialect, true) {
            Ok(talk) => talk,
            Err(error) => {
                *seen.refused.entry(name_of(&error)).or_default() += 1;
                continue;
            }
        };
        let mut asked = talk.greet().map(|()| true);
        while !over.load(Ordering::Relaxed) {
            match asked {
                Ok(true) => {}
                // The server said that it would.
                Ok(false) => continue 'connection,
                Err(error) => {
                    seen.drop_of("an open connection", &error);
                    continue 'connection;
                }
            }
            std::thread::sleep(BEAT);
            let start = Instant::now();
            asked = talk.ask();
            if asked.is_ok() {
                seen.answered += 1;
                seen.longest = seen.longest.max(start.elapsed());
            }
        }
    }
    seen
}

fn name_of(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "ENOENT".into(),
        ErrorKind::ConnectionRefused => "ECONNREFUSED".into(),
        ErrorKind::PermissionDenied => "EACCES".into(),
        ErrorKind::WouldBlock => "EAGAIN".into(),
        _ => error.to_string(),
    }
}
