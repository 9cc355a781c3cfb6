//! From `unlink` to the event in the hands of a client that follows, its line read.
//!
//! Two sockets lose their dentry in turn, and get it back from a hard link: that of a service which has no other, and,
//! since the daemon audits a service as a whole, one of a service of a hundred. All others are only watched. Each size is
//! measured idle, and while thousands of unrelated listeners come and go. An event that nothing gave cause for is a false
//! verdict: it is printed and counted.

use crate::churn::{Churn, LISTENERS};
use crate::fleet::{self, WIDE};
use crate::floor::{self, Floor, unlink};
use crate::follower::Follower;
use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::{Result, World, specs};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// How many sockets are watched, and the rounds.
const SIZES: [(usize, usize); 3] = [(1, 400), (1_000, 400), (10_000, 200)];
/// How many of the unrelated listeners are replaced each second.
const RATE: u64 = LISTENERS as u64;
/// Before an unlink, the daemon and the machine come to rest.
const REST: Duration = Duration::from_millis(5);

pub fn measure() -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for (sockets, rounds) in SIZES {
        sections.extend(in_world("events", |world| figures(world, sockets, rounds))?);
    }
    Ok(sections)
}

fn figures(world: &World, sockets: usize, rounds: usize) -> Result<Vec<Section>> {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let others = fleet::up_wide(world, sockets - 1, "report")?;
    let mut victims = vec![Victim::new(world, world.socket("web", "rpc.sock"), "the only one of a service")?];
    if let Some(path) = others.into_iter().next() {
        victims.push(Victim::new(world, path, &format!("one of {WIDE} of a service"))?);
    }
    let plain = Floor::start(world, &world.socket("web", "rpc.sock"))?;
    let mut follower = Follower::start(world)?;
    let mut measure = |beside: &str| -> Result<Section> {
        let mut wake = Samples::default();
        for _ in 0..rounds {
            std::thread::sleep(REST);
            wake.add(plain.wake()?);
            for victim in &mut victims {
                victim.lose(&mut follower)?;
            }
        }
        let title = format!("unlink → event, {sockets} watched sockets, {beside}");
        let mut lines: Vec<Line> = victims.iter_mut().map(Victim::line).collect();
        let events = 2 * rounds * victims.len();
        let strange = Amount::Count(std::mem::take(&mut follower.strange));
        lines.push(Line::found("events without a cause", events, strange).aim(Aim::Most(Amount::Count(0))));
        Ok(Section { title, floor: Some(Line::timed(floor::WHAT, &wake)), lines })
    };
    let idle = measure("idle")?;
    let mut churn = Churn::start(world, RATE)?;
    let mark = churn.mark()?;
    let mut busy = measure("beside ")?;
    busy.title.push_str(&churn.since(&mark)?);
    Ok(vec![idle, busy])
}

/// A watched socket that loses its dentry again and again.
struct Victim {
    socket: PathBuf,
    /// A second link, by which the name comes back without a restart.
    pin: PathBuf,
    what: String,
    took: Samples,
}

impl Victim {
    fn new(world: &World, socket: PathBuf, what: &str) -> Result<Victim> {
        let pin = world.file(&format!("pin of {what}"));
        fs::hard_link(&socket, &pin)?;
        Ok(Victim { socket, pin, what: what.to_owned(), took: Samples::default() })
    }

    fn lose(&mut self, follower: &mut Follower) -> Result {
        std::thread::sleep(REST);
        follower.rest(&self.socket)?;
        let start = unlink(&self.socket)?;
        self.took.add(follower.wait(&self.socket, "dangling")? - start);
        fs::hard_link(&self.pin, &self.socket)?;
        follower.wait(&self.socket, "ok").map(drop)
    }

    /// What was measured since the last line.
    fn line(&mut self) -> Line {
        let took = std::mem::take(&mut self.took);
        let line = Line::timed(format!("a following client has the event: {}", self.what), &took);
        line.aim(Aim::Floors(4.0)).aim(Aim::P99(Duration::from_millis(2)))
    }
}
