//! From `unlink` by another process to the client's next connect that succeeds.
//!
//! One socket is unlinked again and again: that of a service which has no other, and one of a service of a hundred; all
//! others are watched and pinned. A client connects in a tight loop from the unlink on, and whom it reaches must be the
//! process that it reached before: no restart. The floor is the least that any guard takes: a thread of this program that
//! an inotify event wakes, and that links a second link back; its client is the same.
//!
//! An ordinary user is not told who removed a file, so that there the spec's `settle` comes first.

use crate::fleet::{self, WIDE};
use crate::floor::{Guard, unlink};
use crate::in_world_of;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use scenarios::fault::Context;
use scenarios::{Result, World, ensure, specs};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many sockets are watched, and how often one is lost.
const SIZES: [(usize, usize); 2] = [(1, 1_000), (10_000, 1_000)];
const AS_USER: usize = 50;
/// Before an unlink, the daemon and the machine come to rest.
const REST: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(10);
const MEDIAN: Aim = Aim::Most(Amount::Time(Duration::from_micros(500)));
const P99: Aim = Aim::P99(Duration::from_millis(2));

pub fn measure() -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for (sockets, rounds) in SIZES {
        sections.push(in_world_of(None, "heal", |world| as_root(world, sockets, rounds))?);
    }
    if nix::unistd::geteuid().is_root() {
        sections.push(in_world_of(Some("nobody"), "heal", as_user)?);
    }
    Ok(sections)
}

fn as_root(world: &World, sockets: usize, rounds: usize) -> Result<Section> {
    world.start_daemon()?;
    let pid = world.up(&specs::with(specs::unixd(world, "web", &[]), json!({"on_missing": "relink"})))?;
    let others = fleet::up_wide(world, sockets - 1, "relink")?;
    let mut victims = vec![Victim::new(world.socket("web", "rpc.sock"), "the only one of a service")?];
    ensure!(victims.iter().all(|victim| victim.pid == pid), "somebody else listens");
    if let Some(path) = others.into_iter().next() {
        victims.push(Victim::new(path, &format!("one of {WIDE} of a service"))?);
    }
    let guard = Guard::start(world)?;
    let mut floor = Samples::default();
    for _ in 0..rounds {
        std::thread::sleep(REST);
        floor.add(until_served(guard.socket())?.0);
        for victim in &mut victims {
            victim.lose()?;
        }
    }
    Ok(Section {
        title: format!("unlink → the next connect succeeds, {sockets} watched sockets"),
        floor: Some(Line::timed("inotify wake-up, link(2), connect(2)", &floor)),
        lines: victims.iter().flat_map(|victim| victim.lines(true)).collect(),
    })
}

fn as_user(world: &World) -> Result<Section> {
    world.start_daemon()?;
    world.up(&specs::with(specs::unixd(world, "web", &[]), json!({"on_missing": "relink"})))?;
    let mut victim = Victim::new(world.socket("web", "rpc.sock"), "an ordinary user's")?;
    for _ in 0..AS_USER {
        victim.lose()?;
    }
    Ok(Section {
        title: "unlink → the next connect succeeds, settle (100 ms) first".into(),
        floor: None,
        lines: victim.lines(false),
    })
}

/// A socket that is lost again and again.
struct Victim {
    path: PathBuf,
    what: String,
    pid: i32,
    away: Samples,
}

impl Victim {
    fn new(path: PathBuf, what: &str) -> Result<Victim> {
        let pid = reached(&path).context(path.display())?;
        Ok(Victim { path, what: what.to_owned(), pid, away: Samples::default() })
    }

    fn lose(&mut self) -> Result {
        std::thread::sleep(REST);
        let (away, pid) = until_served(&self.path)?;
        ensure!(pid == self.pid, "{}: it was restarted", self.path.display());
        self.away.add(away);
        Ok(())
    }

    fn lines(&self, aimed: bool) -> Vec<Line> {
        let (median, longest) = (Line::timed(&self.what, &self.away), Amount::Time(self.away.longest()));
        let median = if aimed { median.aim(MEDIAN).aim(P99) } else { median };
        vec![median, Line::found("… the longest", self.away.runs(), longest)]
    }
}

/// Unlinks, and connects in a tight loop until that succeeds; gives how long it took, and who is there.
fn until_served(path: &Path) -> Result<(Duration, i32)> {
    let mut served = None;
    let start = unlink(path)?;
    while start.elapsed() < LIMIT {
        if let Some(pid) = reached(path) {
            served = Some((start.elapsed(), pid));
            break;
        }
    }
    served.context(format!("{}: not back within {LIMIT:?}", path.display()))
}

/// Connects; gives who listens there.
fn reached(path: &Path) -> Option<i32> {
    let stream = UnixStream::connect(path).ok()?;
    Some(getsockopt(&stream, PeerCredentials).ok()?.pid())
}
