//! `bench [NAME...]`: the project's figures, each beside a floor that was measured in the same run.
//!
//! | name | figure | floor | aim |
//! | --- | --- | --- | --- |
//! | `events` | unlink → event read by a following client, at 1, 1,000, 10,000 sockets | an inotify wake-up | 4×, p99 2 ms |
//! | `verdict` | unlink → verdict visible to a client that asks | an inotify wake-up | 4× |
//! | `heal` | unlink → the client's next connect succeeds, at 1 and 10,000 sockets | inotify, link(2), connect(2) | 0.5 ms, p99 2 ms |
//! | `restart` | `restart --clean` → first answer | the same server's own stop, posix_spawn, first answer | 1.5× |
//! | `gap` | what a client misses of a restart, by `shimd` and by dinit | the server's own stop, posix_spawn | dinit's |
//! | `many` | `restart --clean` of 100 services in one request | the same processes, spawned from here | |
//! | `audit` | one audit at 1,000 and 10,000 sockets | one dump and an lstat each | 1.5× |
//! | `truth` | false ones in a million verdicts under churn | | 0 |
//! | `idle` | processor time of an idle daemon with 1,000 sockets | a dump and an lstat each, every 5 s | 0.1 % |
//! | `list` | `proc list` of 100 and 1,000 services in a warm plugin | `service.list` from here | 2 ms, 15 ms |
//! | | `nu -c 'proc list'` less `nu -c 1` | | 60 ms |
//! | `burst` | a line that `proc logs --follow` gives, at 50,000 a second for 12 s | | 250 ms, 4 MiB more |
//! | `memory` | the daemon with 1, 100 and 1,000 services | | 8 MiB at 1,000 |
//! | `load` | what clients of real servers see of lost dentries and of restarts, in each mode | | none |
//! | `recovery` | a killed daemon with 1,000 running services, started again → it serves | the same with none | 0.5 s |
//! | `intents` | the writes that a clean restart waits for | the store's thread alone | 0.2 ms |
//! | `start` | start of 1,000 services | the same processes, spawned from here | 1 s |
//!
//! Figure and floor take turns, so that a busy moment of the machine meets both. `cargo xtask bench` builds all in
//! release and runs this.

mod audit;
mod burst;
mod churn;
mod client;
mod dump;
mod events;
mod fleet;
mod floor;
mod follower;
mod gap;
mod heal;
mod idle;
mod intents;
mod list;
mod load;
mod many;
mod memory;
mod recovery;
mod restart;
mod samples;
mod start;
mod table;
mod truth;
mod verdict;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::User;
use scenarios::fault::Context;
use scenarios::{Fault, Result, World};
use std::process::ExitCode;
use table::Section;

type Figure = fn() -> Result<Vec<Section>>;

const FIGURES: [(&str, Figure); 16] = [
    ("events", events::measure),
    ("verdict", verdict::measure),
    ("heal", heal::measure),
    ("restart", restart::measure),
    ("gap", gap::measure),
    ("many", many::measure),
    ("audit", audit::measure),
    ("truth", truth::measure),
    ("idle", idle::measure),
    ("list", list::measure),
    ("burst", burst::measure),
    ("memory", memory::measure),
    ("load", load::measure),
    ("recovery", recovery::measure),
    ("intents", intents::measure),
    ("start", start::measure),
];

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    match names.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some((churn::COMMAND, rest)) => return churn::child(rest),
        Some((burst::COMMAND, rest)) => return burst::service(rest),
        _ => {}
    }
    if let Some(strange) = names.iter().find(|name| !FIGURES.iter().any(|(figure, _)| figure == name)) {
        let known: Vec<&str> = FIGURES.iter().map(|(name, _)| *name).collect();
        eprintln!("bench: no figure {strange}; there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    match run(&names) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(names: &[String]) -> Result {
    scenarios::end_worlds_on_interrupt()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let mut sections = Vec::new();
    let mut failed = Vec::new();
    for (name, measure) in FIGURES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("bench: {name}");
            match measure() {
                Ok(measured) => sections.extend(measured),
                Err(fault) => failed.push(format!("{name}: {fault}")),
            }
        }
    }
    table::print(&sections);
    if failed.is_empty() { Ok(()) } else { Err(Fault(failed.join("\n"))) }
}

/// A world for one figure: all that was started in it is dead afterwards, which its end holds.
fn in_world<T>(name: &str, body: impl FnOnce(&World) -> Result<T>) -> Result<T> {
    in_world_of(None, name, body)
}

/// The same, a certain user's.
fn in_world_of<T>(user: Option<&str>, name: &str, body: impl FnOnce(&World) -> Result<T>) -> Result<T> {
    let user = match user {
        Some(user) => Some(User::from_name(user)?.context(format!("no user {user}"))?),
        None => None,
    };
    let world = World::new(name, user)?;
    let measured = body(&world);
    let ended = world.end();
    match (measured, ended) {
        (Ok(measured), Ok(())) => {
            world.remove();
            Ok(measured)
        }
        (Err(fault), _) | (_, Err(fault)) => Err(Fault(format!("{fault}\n{}", world.story()))),
    }
}
