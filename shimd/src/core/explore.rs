//! Every order of events, explored: the machine beside a model of the world, with a crash of the daemon
//! possible between any two actions, until no new state appears.
//!
//! The world holds what outlives the daemon (the store, the instance) and what does not (the effect in
//! flight, armed timers, the machine). Checked in each state:
//! 1. never is an instance let go while another lives;
//! 2. never is the way swept (dentries unlinked) while an instance of the service lives;
//! 3. `running` is shown only while an instance lives, and the moment an audit says otherwise no longer;
//! 4. from each state, if the world then behaves, the service comes to what was last asked for, or to a
//!    truthful end: with a restart that was accepted, never with the instance that it was to replace.

use std::collections::{BTreeSet, HashSet, VecDeque};

use shimd_api::spec::RestartPolicy;

use super::machine::{Action, Deps, Durable, Event, Found, Machine, Phase, Rest, Timer, Want};
use super::policy::Policy;

/// An instance in the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Live {
    /// The main process lives.
    main: bool,
    /// Other processes of its tree live.
    others: bool,
    /// A restart that is in the store promised that it goes.
    outdated: bool,
}

/// How far a spawn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Effect {
    Clean,
    /// The trampoline waits; nothing is recorded.
    Forked,
    /// The store names it; it has not been let go.
    Recorded,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    machine: Machine,
    store: Durable,
    /// The store names an instance.
    recorded: bool,
    live: Option<Live>,
    effect: Option<Effect>,
    timers: BTreeSet<Timer>,
    /// Actions of the last step that are not performed yet: the daemon may die before each.
    todo: VecDeque<Action>,
    /// What an audit would find.
    reachable: bool,
}

/// One thing that can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Happening {
    Perform,
    Feed(Event),
    Record,
    Go,
    SpawnFails { transient: bool },
    MainEnds { success: bool, others: bool },
    OthersEnd,
    Reachable(bool),
    Crash,
}

impl World {
    fn new() -> World {
        let machine = Machine::new();
        World {
            store: machine.durable(),
            machine,
            recorded: false,
            live: None,
            effect: None,
            timers: BTreeSet::new(),
            todo: VecDeque::new(),
            reachable: false,
        }
    }

    /// Everything that can happen in this state.
    fn happenings(&self) -> Vec<Happening> {
        use Happening::*;
        let mut all = vec![Crash];
        if !self.todo.is_empty() {
            // A step's actions are performed before the next event: only death comes between.
            all.push(Perform);
            return all;
        }
        all.extend([Event::Start, Event::Stop, Event::Restart { clean: false }].map(Feed));
        all.extend([Event::Restart { clean: true }, Event::ResetFailed].map(Feed));
        if matches!(self.machine.phase, Phase::Waiting { .. }) {
            all.extend([Deps::Ready, Deps::Pending, Deps::Blocked].map(|d| Feed(Event::Deps(d))));
        }
        match self.effect {
            Some(Effect::Clean) => all.extend([Event::Cleaned, Event::CleanFailed].map(Feed)),
            Some(Effect::Forked) => {
                all.extend([Record, SpawnFails { transient: true }, SpawnFails { transient: false }])
            }
            Some(Effect::Recorded) => {
                all.extend([Go, SpawnFails { transient: true }, SpawnFails { transient: false }])
            }
            None => {}
        }
        if let Some(live) = self.live {
            if live.main {
                for success in [true, false] {
                    all.extend([true, false].map(|others| MainEnds { success, others }));
                }
            } else {
                all.push(OthersEnd);
            }
            all.push(Reachable(!self.reachable));
            all.push(Feed(Event::Serving(self.reachable)));
        }
        all.extend(self.timers.iter().map(|t| Feed(Event::Timer(*t))));
        all
    }

    fn apply(&mut self, happening: Happening, policy: Policy) {
        match happening {
            Happening::Perform => {
                if let Some(action) = self.todo.pop_front() {
                    self.perform(action, policy);
                }
            }
            Happening::Feed(event) => {
                if matches!(event, Event::Cleaned | Event::CleanFailed) {
                    self.effect = None;
                }
                if let Event::Timer(timer) = event {
                    self.timers.remove(&timer);
                }
                self.feed(event, policy);
            }
            Happening::Record => {
                self.recorded = true;
                self.effect = Some(Effect::Recorded);
            }
            Happening::Go => {
                assert_eq!(self.live, None, "an instance is let go while another lives: {self:?}");
                self.live = Some(Live { main: true, others: false, outdated: false });
                self.reachable = false;
                self.effect = None;
                self.feed(Event::Spawned, policy);
                // A restart that was accepted while the spawn was in flight is a promise about this one too.
                if self.machine.restart.is_some_and(|r| r.leaving)
                    && let Some(live) = &mut self.live
                {
                    live.outdated = true;
                }
            }
            Happening::SpawnFails { transient } => {
                self.effect = None;
                self.recorded = false;
                self.feed(Event::SpawnFailed { transient }, policy);
            }
            Happening::MainEnds { success, others } => {
                if let Some(live) = &mut self.live {
                    (live.main, live.others) = (false, others);
                }
                self.reachable = false;
                self.feed(Event::Exited { success }, policy);
                self.tree_may_be_gone(policy);
            }
            Happening::OthersEnd => {
                if let Some(live) = &mut self.live {
                    live.others = false;
                }
                self.tree_may_be_gone(policy);
            }
            Happening::Reachable(yes) => self.reachable = yes,
            Happening::Crash => self.crash(policy),
        }
    }

    /// A step: the store first, then the actions one by one.
    fn feed(&mut self, event: Event, policy: Policy) {
        let actions = self.machine.step(event, policy);
        self.store = self.machine.durable();
        if let (Event::Restart { .. }, Some(live)) = (event, &mut self.live) {
            live.outdated = true;
        }
        if event == Event::Serving(false) {
            assert_ne!(self.machine.phase, Phase::Running, "an audit's finding was ignored: {self:?}");
        }
        self.todo.extend(actions);
    }

    fn perform(&mut self, action: Action, policy: Policy) {
        match action {
            Action::Clean { .. } => {
                assert_eq!(self.live, None, "the way is swept under a live instance: {self:?}");
                assert_eq!(self.effect, None, "two effects at once: {self:?}");
                self.effect = Some(Effect::Clean);
            }
            Action::Spawn => {
                assert_eq!(self.effect, None, "two effects at once: {self:?}");
                assert!(!self.recorded, "a spawn while the store names an instance: {self:?}");
                self.effect = Some(Effect::Forked);
            }
            Action::Signal | Action::Kill => self.tree_may_be_gone(policy),
            Action::Arm(timer) => {
                self.timers.insert(timer);
            }
            Action::Disarm(timer) => {
                self.timers.remove(&timer);
            }
            Action::CheckDeps | Action::Adopt | Action::Verify => {}
        }
    }

    /// The supervisor tells of an empty tree while it waits for one.
    fn tree_may_be_gone(&mut self, policy: Policy) {
        let empty = self.live.is_none_or(|l| !l.main && !l.others);
        if empty {
            self.live = None;
        }
        let waits = matches!(self.machine.phase, Phase::Stopping(_) | Phase::Killing(_));
        // Only once the signal was performed: an action still to do will look by itself.
        let told = !self.todo.iter().any(|a| matches!(a, Action::Signal | Action::Kill));
        if empty && waits && told {
            self.recorded = false;
            self.feed(Event::TreeGone, policy);
        }
    }

    /// The daemon dies and is started again.
    fn crash(&mut self, policy: Policy) {
        // A trampoline that was not let go ends by itself; its record, where there is one, names nobody.
        (self.effect, self.todo, self.timers) = (None, VecDeque::new(), BTreeSet::new());
        self.live = self.live.filter(|l| l.main || l.others);
        self.machine = Machine::restored(self.store);
        let found = match self.live {
            Some(live) if live.main => Found::Alive,
            Some(_) => Found::Remains,
            None if self.recorded => Found::Gone,
            None => Found::None,
        };
        assert!(
            self.live.is_none() || self.recorded,
            "an instance lives that the store does not name: {self:?}"
        );
        if self.live.is_none() {
            self.recorded = false;
        }
        self.feed(Event::Recovered(found), policy);
    }

    /// What a world that behaves does next; `None` when nothing is left to do.
    fn best(&self) -> Option<Happening> {
        use Happening::*;
        if !self.todo.is_empty() {
            return Some(Perform);
        }
        match (self.effect, self.machine.phase, self.live) {
            (Some(Effect::Clean), ..) => Some(Feed(Event::Cleaned)),
            (Some(Effect::Forked), ..) => Some(Record),
            (Some(Effect::Recorded), ..) => Some(Go),
            (_, Phase::Waiting { .. }, _) => Some(Feed(Event::Deps(Deps::Ready))),
            (_, Phase::Stopping(_) | Phase::Killing(_), Some(l)) if l.main => {
                Some(MainEnds { success: true, others: false })
            }
            (_, Phase::Stopping(_) | Phase::Killing(_), Some(_)) => Some(OthersEnd),
            (_, Phase::Backoff, _) => Some(Feed(Event::Timer(Timer::Backoff))),
            (_, Phase::Verifying | Phase::Impaired, Some(_)) if !self.reachable => Some(Reachable(true)),
            (_, Phase::Verifying | Phase::Impaired, Some(_)) => Some(Feed(Event::Serving(true))),
            _ => None,
        }
    }

    fn check(&self) {
        if self.machine.phase == Phase::Running {
            assert!(self.live.is_some_and(|l| l.main), "running without an instance: {self:?}");
        }
        if !self.machine.has_instance() && self.machine.phase != Phase::Loaded {
            assert_eq!(self.live, None, "an instance that no phase accounts for: {self:?}");
        }
    }

    /// Invariant 4.
    fn check_outcome(&self, policy: Policy) {
        let mut world = self.clone();
        for _ in 0..100 {
            match world.best() {
                Some(happening) => world.apply(happening, policy),
                None => return world.check_end(self),
            }
        }
        panic!("no end is reached from {self:?}");
    }

    fn check_end(&self, from: &World) {
        let ended = self.store.rest;
        match (self.machine.want, self.machine.phase) {
            (Want::Down, Phase::Inactive) => assert_eq!(self.live, None, "stopped, and lives: from {from:?}"),
            (Want::Up, Phase::Running) => {
                let outdated = self.live.is_some_and(|l| l.outdated);
                assert!(!outdated, "a restart left its old instance: from {from:?} to {self:?}");
            }
            (Want::Up, Phase::Failed) => assert_eq!(ended, Some(Rest::Failed), "from {from:?}"),
            (Want::Up, Phase::Inactive) => assert_eq!(ended, Some(Rest::Ended), "from {from:?}"),
            _ => panic!("{from:?} ends as {self:?}"),
        }
    }
}

/// Every reachable state, and how many there are.
fn explore(policy: Policy) -> usize {
    let mut seen = HashSet::from([World::new()]);
    let mut queue = VecDeque::from([World::new()]);
    while let Some(world) = queue.pop_front() {
        world.check();
        world.check_outcome(policy);
        for happening in world.happenings() {
            let mut next = world.clone();
            next.apply(happening, policy);
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    seen.len()
}

#[test]
fn every_order_of_events_and_crashes_keeps_the_invariants() {
    let mut total = 0;
    for restart in [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never] {
        let states = explore(Policy { restart, limit: 2 });
        println!("{restart:?}: {states} states");
        assert!(states > 1000, "{restart:?}: only {states} states: the exploration does not explore");
        total += states;
    }
    println!("{total} states in all, no invariant broken");
}
