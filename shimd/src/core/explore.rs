//! Every order of events, explored: the machine beside a model of the world, with a crash of the daemon
//! possible between any two actions (and the instances' ends with it), until no new state appears.
//!
//! The world holds what outlives the daemon (the store, the instances) and what does not (the effect in
//! flight, armed timers, the machine). Checked in each state:
//! 1. never is an instance let go while another lives, but beside it by a gapless restart; never a third;
//! 2. never is the way swept (dentries unlinked) while an instance of the service lives;
//! 3. `running` is shown only while an instance lives whose sockets lie at the public names, and the moment an
//!    audit says otherwise no longer;
//! 4. from each state, if the world then behaves, the service comes to what was last asked for, or to a
//!    truthful end, with one instance at most: with a restart that was accepted, never with the instance that it
//!    was to replace, unless the new one of a gapless restart has failed;
//! 5. an instance that was recorded early and let go is not taken, after a crash, for the one that it has replaced.

use std::collections::{BTreeSet, HashSet, VecDeque};

use shimd_api::spec::RestartPolicy;

use super::machine::{
    Action, Beside, Deed, Deps, Durable, Event, Found, Machine, Next, Phase, Rest, Sign, Timer, Want,
};
use super::policy::Policy;

use crash::{Disk, Fate};

mod crash;
mod outcome;

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

impl Live {
    const NEW: Live = Live { main: true, others: false, outdated: false };
}

/// The service's own instance, and the second one.
const CURRENT: usize = 0;
const SECOND: usize = 1;

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
    /// The service's instance, and the second one.
    live: [Option<Live>; 2],
    /// Whether the store names them.
    recorded: [bool; 2],
    /// The store names the instance that is to follow the one that is being stopped.
    early: bool,
    /// The service's instance was named early: that it was let go may not be in the store.
    unbegun: bool,
    /// What the store may still say: that the old instance has left is written, and nobody waits for it.
    lag: Option<Durable>,
    /// A Publish for them was performed, and not answered yet.
    published: [bool; 2],
    /// The dependencies were said to be ready; who waits on for something else has to ask again.
    told: bool,
    /// Whose sockets were put at the public names last.
    named: Option<usize>,
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
    RecordEarly,
    /// What was recorded early is not wanted, or not fit.
    ForgetEarly,
    Record,
    Go,
    SpawnFails {
        transient: bool,
    },
    MainEnds {
        which: usize,
        success: bool,
        others: bool,
    },
    OthersEnd(usize),
    Reachable(bool),
    /// While the daemon is down, this becomes of the two instances.
    Crash([Fate; 2], Disk),
}

impl World {
    fn new() -> World {
        let machine = Machine::new();
        World {
            store: machine.durable(),
            machine,
            live: [None; 2],
            recorded: [false; 2],
            early: false,
            unbegun: false,
            lag: None,
            published: [false; 2],
            told: false,
            named: None,
            effect: None,
            timers: BTreeSet::new(),
            todo: VecDeque::new(),
            reachable: false,
        }
    }

    /// Everything that can happen in this state.
    fn happenings(&self) -> Vec<Happening> {
        use Happening::*;
        let fates = |live: Option<Live>| match live {
            Some(live) if live.main => vec![Fate::LivesOn, Fate::MainEnds, Fate::Ends],
            Some(_) => vec![Fate::LivesOn, Fate::Ends],
            None => vec![Fate::LivesOn],
        };
        let [first, second] = self.live.map(fates);
        let mut disks = vec![Disk::All];
        disks.extend(self.unbegun.then_some(Disk::Unbegun));
        disks.extend(self.lag.map(|_| Disk::Lags));
        let fates = first.iter().flat_map(|a| second.iter().map(move |b| [*a, *b]));
        let mut all: Vec<Happening> =
            fates.flat_map(|fates| disks.iter().map(move |disk| Crash(fates, *disk))).collect();
        if !self.todo.is_empty() {
            // A step's actions are performed before the next event: only death comes between.
            all.push(Perform);
            return all;
        }
        all.extend([Event::Start, Event::Stop, Event::Lost, Event::ResetFailed].map(Feed));
        for clean in [true, false] {
            all.extend([true, false].map(|gapless| Feed(Event::Restart { clean, gapless })));
        }
        if self.waits() {
            all.extend([Deps::Ready, Deps::Pending, Deps::Blocked].map(|d| Feed(Event::Deps(d))));
        }
        match self.effect {
            Some(Effect::Clean) => {
                let failed = [true, false].map(|transient| Event::CleanFailed { transient });
                all.extend([Event::Cleaned].into_iter().chain(failed).map(Feed));
            }
            Some(Effect::Forked) => {
                all.extend([Record, SpawnFails { transient: true }, SpawnFails { transient: false }])
            }
            Some(Effect::Recorded) => {
                all.extend([Go, SpawnFails { transient: true }, SpawnFails { transient: false }])
            }
            None => {}
        }
        let again = matches!(self.machine.phase, Phase::Stopping(Next::Again) | Phase::Killing(Next::Again));
        if self.early {
            all.push(ForgetEarly);
        } else if again && self.machine.restart.is_some() && self.machine.beside.is_none() {
            all.push(RecordEarly);
        }
        for which in [CURRENT, SECOND] {
            match self.live[which] {
                Some(live) if live.main => {
                    for success in [true, false] {
                        all.extend([true, false].map(|others| MainEnds { which, success, others }));
                    }
                }
                Some(_) => all.push(OthersEnd(which)),
                None => {}
            }
        }
        if self.live[CURRENT].is_some() {
            all.push(Reachable(!self.reachable));
            all.push(Feed(Event::Serving(self.reachable)));
        }
        if self.live[SECOND].is_some_and(|l| l.main) {
            all.extend([Sign::Serving, Sign::Drained].map(|sign| Feed(Event::Beside(sign))));
        }
        if self.published[CURRENT] {
            all.extend([Event::Published, Event::PublishFailed].map(Feed));
        }
        if self.published[SECOND] {
            all.extend([Sign::Published, Sign::PublishFailed].map(|sign| Feed(Event::Beside(sign))));
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
                if matches!(event, Event::Cleaned | Event::CleanFailed { .. }) {
                    self.effect = None;
                }
                match event {
                    Event::Timer(timer) => drop(self.timers.remove(&timer)),
                    Event::Published | Event::PublishFailed => self.published[CURRENT] = false,
                    Event::Beside(Sign::Published | Sign::PublishFailed) => self.published[SECOND] = false,
                    _ => {}
                }
                self.feed(event, policy);
            }
            Happening::RecordEarly => self.early = true,
            Happening::ForgetEarly => self.early = false,
            Happening::Record => {
                self.recorded[self.spawned()] = true;
                self.effect = Some(Effect::Recorded);
            }
            Happening::Go => {
                let which = self.spawned();
                assert_eq!(self.live[which], None, "let go in another's place: {self:?}");
                let alone = self.live[1 - which].is_none();
                assert!(alone || self.machine.beside.is_some(), "let go while another lives: {self:?}");
                self.live[which] = Some(Live::NEW);
                self.named = self.named.filter(|named| *named != which);
                self.reachable &= which == SECOND;
                self.effect = None;
                self.feed(Event::Spawned, policy);
                // A restart that was accepted while the spawn was in flight is a promise about this one too.
                if self.machine.restart.is_some_and(|r| r.leaving)
                    && let Some(live) = &mut self.live[which]
                {
                    live.outdated = true;
                }
            }
            Happening::SpawnFails { transient } => {
                self.effect = None;
                self.recorded[self.spawned()] = false;
                self.feed(Event::SpawnFailed { transient }, policy);
            }
            Happening::MainEnds { which, success, others } => {
                if let Some(live) = &mut self.live[which] {
                    (live.main, live.others) = (false, others);
                }
                let current = which == CURRENT;
                self.reachable &= !current;
                let event = if current { Event::Exited { success } } else { Event::Beside(Sign::Exited) };
                self.feed(event, policy);
                self.trees_may_be_gone(policy);
            }
            Happening::OthersEnd(which) => {
                if let Some(live) = &mut self.live[which] {
                    live.others = false;
                }
                self.trees_may_be_gone(policy);
            }
            Happening::Reachable(yes) => self.reachable = yes,
            Happening::Crash(fates, disk) => self.crash(fates, disk, policy),
        }
    }

    fn waits(&self) -> bool {
        matches!(self.machine.phase, Phase::Waiting { .. })
    }

    /// For which place the spawn in flight is.
    fn spawned(&self) -> usize {
        if self.machine.phase == Phase::Spawning { CURRENT } else { SECOND }
    }

    /// A step: the store first, with who is who; then the actions one by one.
    fn feed(&mut self, event: Event, policy: Policy) {
        let before = self.machine;
        let mut actions: VecDeque<Action> = self.machine.step(event, policy).into();
        let now = self.machine.durable();
        if now != self.store {
            if self.store.has_only_left(now) {
                self.lag.get_or_insert(self.store);
            } else {
                (self.lag, self.unbegun) = (None, false);
            }
            self.store = now;
        }
        let swaps = actions.front() == Some(&Action::Swap);
        if swaps {
            actions.pop_front();
            self.live.swap(0, 1);
            self.recorded.swap(0, 1);
            // A Publish that was performed is answered before anything else, but the answer may be under way.
            self.published.swap(0, 1);
            self.named = self.named.map(|which| 1 - which);
            self.reachable = false;
        }
        assert!(!actions.contains(&Action::Swap), "a swap that is not in the store: {self:?}");
        match event {
            Event::Restart { .. } => self.live.iter_mut().flatten().for_each(|l| l.outdated = true),
            Event::Lost if self.machine.restart != before.restart => {
                self.live.iter_mut().flatten().for_each(|l| l.outdated = true);
            }
            Event::Serving(false) => {
                assert_ne!(self.machine.phase, Phase::Running, "an audit's finding was ignored: {self:?}");
            }
            Event::Deps(deps) => self.told = deps == Deps::Ready && self.waits(),
            // The command is told that it failed.
            Event::Published | Event::Serving(true) => {}
            _ if !swaps && before.restart.is_some_and(|r| r.gapless) && self.machine.restart.is_none() => {
                self.live.iter_mut().take(1).flatten().for_each(|l| l.outdated = false);
            }
            _ => {}
        }
        self.todo.extend(actions);
        if let (Some(Beside::Stopping | Beside::Killing), Some(live)) =
            (self.machine.beside, &mut self.live[SECOND])
        {
            live.outdated = true;
        }
        self.told &= self.waits();
        // Answered before anything that happens later: an answer that finds another phase is never kept for the next.
        self.published[CURRENT] &= matches!(self.machine.phase, Phase::Publishing { .. });
        self.published[SECOND] &= self.machine.beside == Some(Beside::Publishing);
        self.named = self.named.filter(|_| self.live != [None; 2]);
    }

    fn perform(&mut self, action: Action, policy: Policy) {
        let clean = matches!(action, Action::Clean { .. } | Action::Beside(Deed::Clean));
        if clean || matches!(action, Action::Spawn | Action::Beside(Deed::Spawn)) {
            assert_eq!(self.effect, None, "two effects at once: {self:?}");
            self.effect = Some(if clean { Effect::Clean } else { Effect::Forked });
            if action == Action::Spawn && std::mem::take(&mut self.early) {
                (self.effect, self.recorded[CURRENT], self.unbegun) = (Some(Effect::Recorded), true, true);
            }
        }
        match action {
            Action::Clean { .. } => {
                assert_eq!(self.live, [None; 2], "the way is swept under a live instance: {self:?}");
            }
            Action::Spawn => {
                let named = [self.recorded[CURRENT] && !self.unbegun, self.recorded[SECOND]];
                assert_eq!(named, [false; 2], "a spawn while the store names an instance: {self:?}");
            }
            Action::Beside(Deed::Clean | Deed::Spawn) => {
                assert!(!self.recorded[SECOND] && self.live[SECOND].is_none(), "no place beside: {self:?}");
            }
            Action::Signal | Action::Kill | Action::Beside(Deed::Signal | Deed::Kill) => {
                self.trees_may_be_gone(policy);
            }
            Action::Publish => (self.published[CURRENT], self.named) = (true, Some(CURRENT)),
            Action::Beside(Deed::Publish) => (self.published[SECOND], self.named) = (true, Some(SECOND)),
            Action::Arm(timer) => drop(self.timers.insert(timer)),
            Action::Disarm(timer) => drop(self.timers.remove(&timer)),
            Action::CheckDeps => self.told = false,
            Action::Swap | Action::Adopt | Action::Verify | Action::Beside(_) => {}
        }
    }

    /// The supervisor tells of an empty tree while it waits for one.
    fn trees_may_be_gone(&mut self, policy: Policy) {
        // Only once the signal was performed: an action still to do will look by itself.
        let told = |todo: &VecDeque<Action>, actions: [Action; 2]| !actions.iter().any(|a| todo.contains(a));
        self.live.iter_mut().for_each(|l| *l = l.filter(|l| l.main || l.others));
        let waits = matches!(self.machine.phase, Phase::Stopping(_) | Phase::Killing(_));
        if self.live[CURRENT].is_none() && waits && told(&self.todo, [Action::Signal, Action::Kill]) {
            self.recorded[CURRENT] = false;
            self.feed(Event::TreeGone, policy);
        }
        let waits = matches!(self.machine.beside, Some(Beside::Stopping | Beside::Killing));
        let deeds = [Deed::Signal, Deed::Kill].map(Action::Beside);
        if self.live[SECOND].is_none() && waits && told(&self.todo, deeds) {
            self.recorded[SECOND] = false;
            self.feed(Event::Beside(Sign::Gone), policy);
        }
    }

    fn check(&self) {
        use Phase::*;
        if self.machine.phase == Running {
            assert!(self.live[CURRENT].is_some_and(|l| l.main), "running without an instance: {self:?}");
            let sure = self.todo.is_empty() && self.machine.beside != Some(Beside::Publishing);
            assert!(!sure || self.named == Some(CURRENT), "clients find another's sockets: {self:?}");
        }
        let phase = self.machine.phase;
        let current = matches!(
            phase,
            Loaded | Verifying | Publishing { .. } | Running | Impaired | Stopping(_) | Killing(_)
        );
        let second = !matches!(self.machine.beside, None | Some(Beside::Preparing | Beside::Spawning));
        assert!(current || self.live[CURRENT].is_none(), "an instance that no phase accounts for: {self:?}");
        assert!(
            second || phase == Loaded || self.live[SECOND].is_none(),
            "a second one that nothing accounts for: {self:?}"
        );
    }
}

/// What was explored.
#[derive(Debug, Default)]
struct Counts {
    /// Reachable states.
    states: usize,
    /// Happenings in them.
    happenings: usize,
    /// … of which deaths of the daemon: in every state, before every action.
    crashes: usize,
    /// Deaths that follow a death before anything else happens.
    twice: usize,
}

/// Every reachable state.
fn explore(policy: Policy) -> Counts {
    let mut seen = HashSet::from([World::new()]);
    let mut queue = VecDeque::from([World::new()]);
    let (mut well, mut counts) = (HashSet::new(), Counts::default());
    let is_crash = |happening: &Happening| matches!(happening, Happening::Crash(..));
    while let Some(world) = queue.pop_front() {
        world.check();
        world.check_outcome(policy, &mut well);
        for happening in world.happenings() {
            let mut next = world.clone();
            next.apply(happening, policy);
            counts.happenings += 1;
            if is_crash(&happening) {
                counts.crashes += 1;
                counts.twice += next.happenings().iter().filter(|again| is_crash(again)).count();
            }
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    Counts { states: seen.len(), ..counts }
}

#[test]
fn every_order_of_events_and_crashes_keeps_the_invariants() {
    let policies = [RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never];
    let explorations =
        policies.map(|restart| std::thread::spawn(move || explore(Policy { restart, limit: 2 })));
    let mut all = Counts::default();
    for (restart, exploration) in policies.into_iter().zip(explorations) {
        let counts = exploration.join().expect("an invariant is broken: see above");
        assert!(counts.states > 1000, "{restart:?}: {counts:?}: the exploration does not explore");
        all.states += counts.states;
        all.happenings += counts.happenings;
        all.crashes += counts.crashes;
        all.twice += counts.twice;
    }
    let Counts { states, happenings, crashes, twice } = all;
    // Not by println!: the runner shows that of a failed test alone.
    let line = format!(
        "explored: {states} states, {happenings} happenings, {crashes} deaths of the daemon and {twice} that follow one at \
         once; no invariant broken\n"
    );
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes()).expect("stdout");
}
