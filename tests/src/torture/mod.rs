//! The torture run: the daemon is killed at random moments, again and again, and after each recovery the world is held
//! to what must always be so, by the kernel's and the file system's word.
//!
//! | file | holds |
//! | --- | --- |
//! | `deeds` | what is under way when the daemon is killed |
//! | `kept` | whether what was answered is in the store of the daemon that was killed |
//! | `look` | what must be so after each recovery |
//! | `random` | the dice: the same for the same seed |
//!
//! A command that was cut off may have been done or not; what it left must be one of the two, whole. One that was answered is done.

mod deeds;
mod kept;
mod look;
mod random;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client::ping;
use crate::fault::Context;
use crate::wait::wait_for;
use crate::{Result, World, processes};

pub use deeds::{Deed, Mode, Service, services};
use kept::Kept;
use look::Looker;
pub use look::Violation;
pub use random::Random;

/// How many services there are.
pub const SERVICES: usize = 20;
/// The latest moment of a kill after its command was sent.
const LATEST: Duration = Duration::from_millis(50);
/// How long a recovery may take until all is as it must be.
const RECOVERS: Duration = Duration::from_secs(20);

/// What a run came to.
#[derive(Debug, Default)]
pub struct Toll {
    /// How often the daemon was killed.
    pub kills: usize,
    /// How often the clients were answered meanwhile.
    pub answers: u64,
    /// What was not so after a recovery.
    pub violations: Vec<Violation>,
    /// From a start of the daemon until all was as it must be; the longest.
    pub longest: Duration,
    /// What was under way before that one, and what it came to last.
    pub slowest: String,
}

/// Kills the daemon `kills` times. `told` is called after each recovery.
///
/// # Errors
/// Where the run itself cannot go on: a daemon that does not come up, a folder that cannot be read.
pub fn run(world: &World, seed: u64, kills: usize, mut told: impl FnMut(&Toll)) -> Result<Toll> {
    let mut random = Random::new(seed);
    let mut services = deeds::services(world);
    world.start_daemon()?;
    let specs: Vec<_> = services.iter().map(|service| service.spec.clone()).collect();
    world.rpc("service.set", json!({"specs": specs}))?;
    let names: Vec<_> = services.iter().map(|service| &service.name).collect();
    world.rpc("service.start", json!({"names": names}))?;
    let mut looker = Looker::new(world)?;
    let (over, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    let paths: Vec<_> = services.iter().map(|service| world.socket(&service.name, "rpc.sock")).collect();
    let mut toll = Toll::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for path in &paths {
                    answers.fetch_add(u64::from(ping(path).is_ok()), Ordering::Relaxed);
                    std::thread::park_timeout(Duration::from_micros(500));
                }
            }
        });
        let ended = (|| -> Result {
            while toll.kills < kills {
                let deeds = round(world, &mut random, &mut services, &mut toll)?;
                let began = Instant::now();
                let mut last = Vec::new();
                let left = wait_for(RECOVERS, "", || {
                    let found = looker.look(&services)?;
                    let well = found.is_empty().then_some(());
                    last = if found.is_empty() { std::mem::take(&mut last) } else { found };
                    Ok(well)
                });
                if began.elapsed() > toll.longest {
                    toll.longest = began.elapsed();
                    toll.slowest = format!("{}: {}", deeds.join(", "), last.join("; "));
                }
                if left.is_err() {
                    let what = looker.look(&services)?;
                    toll.violations.push(Violation { kill: toll.kills, deeds, what });
                }
                looker.settle(&mut services)?;
                toll.answers = answers.load(Ordering::Relaxed);
                told(&toll);
            }
            Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        ended
    })?;
    Ok(toll)
}

/// Some deeds, a kill in their midst, in one of four rounds another one within the recovery; and a daemon that answers.
fn round(
    world: &World,
    random: &mut Random,
    services: &mut [Service],
    toll: &mut Toll,
) -> Result<Vec<String>> {
    let daemon = world.daemon_pid()?;
    let deeds = Deed::some(random, services);
    let moment = random.within(LATEST);
    let mut words: Vec<String> =
        deeds.iter().map(|(at, deed)| format!("{deed:?} {}", services[*at].name)).collect();
    words.push(format!("killed after {moment:?}"));
    let answers: Vec<Option<Value>> = std::thread::scope(|scope| {
        let under_way = |(at, deed): &(usize, Deed)| {
            let (deed, service) = (*deed, &services[*at]);
            // Most of these connections are cut off; what came of them is looked at afterwards.
            scope.spawn(move || deed.is_done(world, service).ok())
        };
        let under_way: Vec<_> = deeds.iter().map(under_way).collect();
        std::thread::park_timeout(moment);
        processes::signal(daemon, Signal::SIGKILL);
        under_way.into_iter().map(|deed| deed.join().unwrap_or_default()).collect()
    });
    for ((at, deed), answer) in deeds.into_iter().zip(&answers) {
        words.extend(answer.as_ref().map(|_| format!("{deed:?} {} answered", services[at].name)));
        deed.may_have(world, &mut services[at], answer.is_some());
    }
    world.await_killed(daemon)?;
    toll.kills += 1;
    let kept = Kept::of(world)?;
    let mut what = Vec::new();
    for answer in answers.iter().flatten() {
        what.extend(kept.lacks(answer)?);
    }
    if !what.is_empty() {
        toll.violations.push(Violation { kill: toll.kills, deeds: words.clone(), what });
    }
    if random.below(4) == 0 {
        let mut again = world.spawn_daemon()?;
        let moment = random.within(LATEST);
        words.push(format!("and after {moment:?} of its recovery"));
        std::thread::park_timeout(moment);
        again.kill()?;
        again.wait()?;
        toll.kills += 1;
    }
    world.start_daemon().context("the daemon does not come up again")?;
    Ok(words)
}
