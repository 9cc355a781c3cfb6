//! What wrap does at which event: pure, without a clock.
//!
//! | event | starting | up | stopping | restarting | ending |
//! | --- | --- | --- | --- | --- | --- |
//! | all sockets `ok`, and READY=1 if asked for | say READY → up | | | | |
//! | not ready in time | stop the service → ending (125) | | | | |
//! | a signal | hand it on | hand it on | hand it on | hand it on | hand it on |
//! | … that stops (TERM, INT) | and unpin → stopping | and unpin → stopping | | → stopping; with the main process gone → ending (of it) | with the main process gone: kill what is left |
//! | a socket is lost for good, `restart` | unpin, stop → restarting; over the limit → ending (125) | the same | | | |
//! | main process ended | end the rest → ending (as it did) | the same | the same | end the rest | end the rest |
//! | time to stop is over | | | | kill all | kill all |
//! | nothing left | | | | clean, spawn → starting | end |
//! | cannot clean, cannot spawn | end | | | end | |
//!
//! *Stop* is SIGTERM to the main process, *end the rest* is SIGTERM to all that it leaves, both with a time-out.
//! The first row that fits is the rule; an event without an entry changes nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many restarts …
const RESTARTS: usize = 5;
/// … in so long, and no more (the same as a spec's `restart.limit` and `window`).
const WINDOW: Duration = Duration::from_secs(60);

/// How wrap ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As the service did: a status of wait(2).
    Of(i32),
    /// By a fault of its own, with this exit status.
    With(u8),
}

/// Exit status where wrap could not do its part: that of env(1), timeout(1) and others who run a program.
pub const FAULT: u8 = 125;

/// Where the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It was spawned, and READY was not said.
    Starting,
    /// READY was said.
    Up,
    /// A signal to stop was handed on: what goes now is to go.
    Stopping,
    /// It is to stop, and to be spawned again.
    Restarting,
    /// It is over; so will be wrap, in this way.
    Ending(End),
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The program runs.
    Spawned,
    /// Whether every socket is `ok`.
    Reachable(bool),
    /// The service said READY=1.
    ServiceReady,
    /// Wrap got a signal that is to be handed on.
    Signal(i32),
    /// A socket cannot be had back but by a restart.
    Lost,
    /// The main process ended: a status of wait(2).
    Ended(i32),
    /// No process of the service is left.
    Empty,
    /// The time that was asked for is over.
    Deadline,
    /// The way could not be cleaned, or the program not be executed: the exit status.
    Refused(u8),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Say READY=1.
    SayReady,
    /// Remove the pins: what goes now is to go.
    Unpin,
    /// Give the main process a signal that wrap got.
    Forward(i32),
    /// Tell the main process to stop.
    Stop,
    /// Tell what is left to stop.
    StopRest,
    /// SIGKILL to all.
    KillAll,
    /// Clean the sockets and spawn the next generation.
    Respawn,
    /// Call [`Event::Deadline`] when the time to get ready is over.
    ArmReady,
    /// Call [`Event::Deadline`] when the time to stop is over.
    ArmStop,
    /// No longer.
    Disarm,
    /// Too many restarts: to be told.
    TellLimit,
    /// End so.
    End(End),
}

/// The service as wrap sees it.
#[derive(Debug)]
pub struct Table {
    phase: Phase,
    main_lives: bool,
    reachable: bool,
    /// READY=1 is still awaited.
    awaits_ready: bool,
    asks_ready: bool,
    restarts: VecDeque<Instant>,
}

impl Table {
    /// Before the first spawn. `notify`: the service has to say READY=1 too.
    pub fn new(notify: bool) -> Table {
        Table {
            phase: Phase::Starting,
            main_lives: false,
            reachable: false,
            awaits_ready: notify,
            asks_ready: notify,
            restarts: VecDeque::new(),
        }
    }

    /// Where the service is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a lost dentry is a loss.
    pub fn cares(&self) -> bool {
        self.main_lives && matches!(self.phase, Phase::Starting | Phase::Up)
    }

    /// The row of the table.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Spawned => {
                self.main_lives = true;
                if self.phase == Phase::Starting { vec![Action::ArmReady] } else { Vec::new() }
            }
            Event::Reachable(all) => {
                self.reachable = all;
                self.ready()
            }
            Event::ServiceReady => {
                self.awaits_ready = false;
                self.ready()
            }
            Event::Signal(signal) => self.signal(signal),
            Event::Lost => self.lost(now),
            Event::Ended(status) => {
                self.main_lives = false;
                match self.phase {
                    Phase::Starting | Phase::Up | Phase::Stopping => {
                        self.phase = Phase::Ending(End::Of(status));
                        vec![Action::Unpin, Action::StopRest, Action::ArmStop]
                    }
                    // The time that began with the stop goes on.
                    Phase::Restarting | Phase::Ending(_) => vec![Action::StopRest],
                }
            }
            Event::Empty if self.main_lives => Vec::new(),
            Event::Empty => match self.phase {
                Phase::Restarting => {
                    self.phase = Phase::Starting;
                    self.awaits_ready = self.asks_ready;
                    self.reachable = false;
                    vec![Action::Disarm, Action::Respawn]
                }
                Phase::Ending(end) => vec![Action::End(end)],
                Phase::Starting | Phase::Up | Phase::Stopping => Vec::new(),
            },
            Event::Deadline => match self.phase {
                Phase::Starting => {
                    self.phase = Phase::Ending(End::With(FAULT));
                    vec![Action::Unpin, Action::Stop, Action::ArmStop]
                }
                Phase::Restarting | Phase::Ending(_) => vec![Action::KillAll],
                Phase::Up | Phase::Stopping => Vec::new(),
            },
            Event::Refused(status) => {
                self.phase = Phase::Ending(End::With(status));
                vec![Action::End(End::With(status))]
            }
        }
    }

    fn ready(&mut self) -> Vec<Action> {
        if self.phase != Phase::Starting || !self.reachable || self.awaits_ready || !self.main_lives {
            return Vec::new();
        }
        self.phase = Phase::Up;
        vec![Action::Disarm, Action::SayReady]
    }

    fn signal(&mut self, signal: i32) -> Vec<Action> {
        let stops = matches!(signal, libc::SIGTERM | libc::SIGINT);
        match self.phase {
            Phase::Starting | Phase::Up if stops => {
                self.phase = Phase::Stopping;
                vec![Action::Disarm, Action::Unpin, Action::Forward(signal)]
            }
            Phase::Restarting if stops && self.main_lives => {
                self.phase = Phase::Stopping;
                vec![Action::Disarm, Action::Forward(signal)]
            }
            Phase::Restarting if stops => {
                // A death by a signal, as wait(2) tells it, is its number.
                self.phase = Phase::Ending(End::Of(signal));
                Vec::new()
            }
            Phase::Ending(_) if stops && !self.main_lives => vec![Action::KillAll],
            _ if self.main_lives => vec![Action::Forward(signal)],
            _ => Vec::new(),
        }
    }

    fn lost(&mut self, now: Instant) -> Vec<Action> {
        if !self.cares() {
            return Vec::new();
        }
        self.restarts.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if self.restarts.len() >= RESTARTS {
            self.phase = Phase::Ending(End::With(FAULT));
            return vec![Action::TellLimit, Action::Unpin, Action::Stop, Action::ArmStop];
        }
        self.restarts.push_back(now);
        self.phase = Phase::Restarting;
        vec![Action::Unpin, Action::Stop, Action::ArmStop]
    }
}

#[cfg(test)]
mod tests;
