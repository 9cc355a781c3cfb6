//! The soak: an hour's worth of churn in some minutes, after which the daemon holds what it held before.
//!
//! | thread | does, without a pause |
//! | --- | --- |
//! | doers, each with services of its own | starts, stops, restarts, removals, changed specs, delete and set anew |
//! | a client | asks every service |
//! | followers | follow the events for a while, and leave in the middle of them |
//! | lookers | lists, checks, logs, the doctor |

mod holdings;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::ping;
use crate::torture::{Deed, Random, Service, services};
use crate::wait::wait_for;
use crate::{Fault, Json, Result, World};

pub use holdings::Holdings;

const DOERS: usize = 3;
/// The daemon audits everything every 5 s.
const PERIOD: Duration = Duration::from_secs(6);
/// How long what the churn has left under way may take to be over: threads that wait for work end after 10 s.
const SETTLES: Duration = Duration::from_secs(25);
const SOON: Duration = Duration::from_secs(20);
const BREATH: Duration = Duration::from_millis(1);

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    /// Commands that were carried out.
    pub deeds: AtomicU64,
    /// Commands that were refused, or failed.
    pub failed: AtomicU64,
    /// Answers to clients of the services.
    pub answers: AtomicU64,
    /// Times that somebody followed the events.
    pub follows: AtomicU64,
    /// Other questions to the daemon.
    pub looks: AtomicU64,
}

/// How it ended.
#[derive(Debug)]
pub struct Report {
    /// In the time after the warm-up.
    pub done: Done,
    /// What the daemon held after the warm-up.
    pub before: Holdings,
    /// And at the end.
    pub after: Holdings,
    /// What it holds more of than it should.
    pub grown: Vec<String>,
}

/// Churns for this long, after a tenth of it as a warm-up.
///
/// # Errors
/// A daemon that does not answer, a service that does not come back.
pub fn run(world: &World, seed: u64, time: Duration) -> Result<Report> {
    let daemon = world.start_daemon()?;
    let services = services(world);
    // One of each kind at least has its first time in the warm-up.
    churn(world, seed, &services, (time / 10).max(Duration::from_secs(3)))?;
    at_rest(world, &services)?;
    // Holds are taken with a good look: the last of them with the next audit of everything.
    let rested = Instant::now();
    wait_for(SETTLES, "an audit of everything", || Ok((rested.elapsed() > PERIOD).then_some(())))?;
    let before = Holdings::of(world, daemon)?;
    let done = churn(world, seed + 1, &services, time)?;
    at_rest(world, &services)?;
    let mut after = Holdings::of(world, daemon)?;
    let _ = wait_for(SETTLES, "", || {
        after = Holdings::of(world, daemon)?;
        Ok(after.grown_since(&before).is_empty().then_some(()))
    });
    let mut grown = after.grown_since(&before);
    if !grown.is_empty() {
        grown.push(format!("open now: {}", holdings::open(daemon)?.join(", ")));
    }
    Ok(Report { done, before, after, grown })
}

fn churn(world: &World, seed: u64, services: &[Service], time: Duration) -> Result<Done> {
    at_rest(world, services)?;
    let (done, over, until) = (Done::default(), AtomicBool::new(false), Instant::now() + time);
    let count = |counter: &AtomicU64, number: u64| {
        counter.fetch_add(number, Ordering::Relaxed);
    };
    let on = || !over.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let (done, on, count) = (&done, &on, &count);
        for (number, own) in services.chunks(services.len().div_ceil(DOERS)).enumerate() {
            let mut random = Random::new(seed.wrapping_mul(31) + number as u64);
            scope.spawn(move || {
                while on() {
                    for (at, deed) in Deed::some(&mut random, own) {
                        let deed = deed.in_its_mode();
                        let is_done = own.get(at).is_some_and(|service| deed.is_done(world, service).is_ok());
                        // A service that is down has no file to remove.
                        let well = is_done || deed == Deed::Lose;
                        count(if well { &done.deeds } else { &done.failed }, 1);
                    }
                }
            });
        }
        scope.spawn(move || {
            while on() {
                for service in services {
                    count(&done.answers, u64::from(ping(&world.socket(&service.name, "rpc.sock")).is_ok()));
                    std::thread::park_timeout(BREATH);
                }
            }
        });
        scope.spawn(move || {
            let mut random = Random::new(seed ^ 0xf0110);
            while on() {
                count(&done.follows, u64::from(follow(world, random.below(40)).is_ok()));
            }
        });
        scope.spawn(move || {
            while on() {
                for (method, params) in [
                    ("service.list", json!({})),
                    ("socket.check", json!({})),
                    ("service.logs", json!({"name": "s00", "lines": 10})),
                    ("event.list", json!({"limit": 50})),
                    ("shim.doctor", json!({})),
                ] {
                    // Registered, or not at this moment.
                    count(&done.looks, u64::from(world.request(method, params).is_ok()));
                    std::thread::park_timeout(10 * BREATH);
                }
            }
        });
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        over.store(true, Ordering::Relaxed);
    });
    Ok(done)
}

/// Follows the events until so many have come, or none for a while; then hangs up without a word.
fn follow(world: &World, events: usize) -> Result {
    let mut stream = UnixStream::connect(world.control_socket())?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"event.follow\",\"params\":{}}\n")?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    for _ in 0..=events {
        line.clear();
        if lines.read_line(&mut line).is_err() {
            break;
        }
    }
    Ok(())
}

/// Every service as it was at first, and running.
fn at_rest(world: &World, services: &[Service]) -> Result {
    for service in services {
        world.rpc("service.set", json!({"spec": service.spec}))?;
    }
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    world.rpc("service.start", json!({"names": names}))?;
    for name in names {
        world.wait_status(name, "running", SOON).map_err(|fault| Fault(format!("at rest: {fault}")))?;
    }
    for row in world.rpc("socket.check", json!({}))?.rows()? {
        crate::ensure!(row.text("verdict")? == "ok", "at rest: {row}");
    }
    Ok(())
}
