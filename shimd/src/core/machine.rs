//! One service as a state machine: `step(state, event) -> actions`.
//!
//! # States
//! ```text
//! phase       status     meaning
//! Loaded      starting   read from the store; what is left of the last instance is not known yet
//! Inactive    inactive   no instance, none on its way
//! Waiting     starting   wanted; a dependency is not up (failed, where the dependency itself has failed)
//! Preparing   starting   one Clean is in flight
//! Spawning    starting   one Spawn is in flight
//! Verifying   starting   the instance lives; clients cannot reach all of it yet
//! Running     running    the instance lives; every socket is ok and it said that it is ready
//! Impaired    failed     the instance lives; clients cannot reach it
//! Stopping    stopping   the stop signal was sent; its tree is not gone
//! Killing     stopping   SIGKILL was sent; its tree is not gone
//! Backoff     backoff    no instance; the next start waits
//! Failed      failed     no instance; only a command starts it again
//! ```
//! # The table
//! Columns: phase. Rows: events. `-` is "ignored". `N` is the Next that Stopping and Killing carry:
//! Down → Inactive, Again → Waiting, Retry → Backoff or (no start left) Failed, Fail → Failed.
//! ```text
//!              Inactive Waiting   Preparing  Spawning   Verifying    Running     Impaired    Stopping     Killing      Backoff  Failed
//! Start        Waiting  -         want       want       -            -           -           N:=Again¹    N:=Again¹    Waiting  Waiting
//! Stop         -        Inactive  want       want       Stop(Down)   Stop(Down)  Stop(Down)  N:=Down      N:=Down      Inactive Inactive
//! Restart      Waiting  Waiting   redo²      redo²      Stop(Again)  Stop(Again) Stop(Again) N:=Again     N:=Again     Waiting  Waiting
//! ResetFailed  -        -         -          -          -            -           Verify      -            -            Inactive Inactive
//! Deps(s)      -        by s³     -          -          -            -           -           -            -            -        -
//! Cleaned      -        -         Spawning⁴  -          -            -           -           -            -            -        -
//! CleanFailed  -        -         start⁵     -          -            -           -           -            -            -        -
//! Spawned      -        -         -          Verifying⁴ -            -           -           -            -            -        -
//! SpawnFailed  -        -         -          start⁵     -            -           -           -            -            -        -
//! Serving(yes) -        -         -          -          Running      -           Running     -            -            -        -
//! Serving(no)  -        -         -          -          -            Impaired    -           -            -            -        -
//! Exited       -        -         -          -          Stop(by⁶)    Stop(by⁶)   Stop(by⁶)   -            -            -        -
//! TreeGone     -        -         -          -          as Exited⁷   as Exited⁷  as Exited⁷  by N         by N         -        -
//! Timer(Start) -        -         -          -          start⁵       -           -           -            -            -        -
//! Timer(Stop)  -        -         -          -          -            -           -           Killing      -            -        -
//! Timer(Kill)  -        -         -          -          -            -           -           -            Kill again   -        -
//! Timer(Back)  -        -         -          -          -            -           -           -            -            Waiting  -
//! Timer(Window) in every phase: the count of starts begins anew
//! Recovered    in Loaded alone: Alive → Verifying, or Stopping where the store says it is to leave;
//!              Remains → Stopping; Gone, None → what `want`, the open command and the policy say
//! ```
//! 1. Whatever N was: what is being stopped goes, and is wanted again.
//! 2. `want` and the command are noted; the effect in flight ends first, then Waiting or Stop(Again).
//! 3. Ready → Preparing; Pending, Blocked → Waiting, shown as starting or as failed.
//! 4. Unless meanwhile unwanted (Inactive, Stop(Down)) or told to restart (note 2).
//! 5. A start that failed: under a clean restart's first attempt the whole once more; else, where an
//!    instance lives, Impaired (its process is left alone); else Backoff for a passing cause or Failed.
//! 6. By the command under way and the policy: Down, Again, Retry or Fail. What is left of the tree is
//!    stopped before anything else happens, so no two instances ever live at once.
//! 7. An adopted instance can be gone without an exit status: that counts as a failure.
//!
//! # Which rule wins
//! The last command decides `want`. At most one effect (Clean, Spawn) is in flight, and no phase is left
//! while its effect is: that is what keeps one instance one. The process of a service whose sockets are
//! not ok is never touched by the machine itself.
//!
//! # What survives a crash
//! [`Machine::durable`] is written to the store, when a step has changed it, before the step's actions
//! are performed; the instance itself is recorded between the trampoline's fork and its exec.

pub use super::events::*;
use super::policy::Policy;

/// The state of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Machine {
    /// What was last asked for.
    pub want: Want,
    /// Where it stands.
    pub phase: Phase,
    /// The restart under way.
    pub restart: Option<Restart>,
    /// How it came to rest, where it did.
    pub rest: Option<Rest>,
    /// Spawns within the window.
    pub starts: u32,
}

impl Machine {
    /// A service that was just registered.
    pub fn new() -> Self {
        Machine { want: Want::Down, phase: Phase::Inactive, restart: None, rest: None, starts: 0 }
    }

    /// A service as the store has it, before recovery has looked at its instance.
    pub fn restored(durable: Durable) -> Self {
        let Durable { want, restart, rest } = durable;
        Machine { want, phase: Phase::Loaded, restart, rest, starts: 0 }
    }

    /// What a crash must not lose.
    pub fn durable(&self) -> Durable {
        Durable { want: self.want, restart: self.restart, rest: self.rest }
    }

    /// The state as users see it.
    pub fn status(&self) -> shimd_api::wire::Status {
        use shimd_api::wire::Status;
        match self.phase {
            Phase::Inactive => Status::Inactive,
            Phase::Loaded
            | Phase::Waiting { blocked: false }
            | Phase::Preparing { .. }
            | Phase::Spawning
            | Phase::Verifying => Status::Starting,
            Phase::Running => Status::Running,
            Phase::Impaired | Phase::Failed | Phase::Waiting { blocked: true } => Status::Failed,
            Phase::Stopping(_) | Phase::Killing(_) => Status::Stopping,
            Phase::Backoff => Status::Backoff,
        }
    }

    /// Whether an instance of the service may live in this phase.
    pub fn has_instance(&self) -> bool {
        matches!(
            self.phase,
            Phase::Verifying | Phase::Running | Phase::Impaired | Phase::Stopping(_) | Phase::Killing(_)
        )
    }

    /// Whether a Clean or a Spawn is in flight.
    pub fn effect_in_flight(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. } | Phase::Spawning)
    }

    /// Whether nothing more happens by itself: what a command that waits for its outcome waits for.
    pub fn settled(&self) -> bool {
        matches!(
            self.phase,
            Phase::Inactive
                | Phase::Running
                | Phase::Impaired
                | Phase::Failed
                | Phase::Waiting { blocked: true }
        )
    }

    /// Performs one event. The actions are in the order in which they are to be performed.
    pub fn step(&mut self, event: Event, policy: Policy) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Start => self.on_start(&mut actions),
            Event::Stop => self.on_stop(&mut actions),
            Event::Restart { clean } => self.on_restart(clean, &mut actions),
            Event::ResetFailed => self.on_reset(&mut actions),
            Event::Deps(deps) => self.on_deps(deps, &mut actions),
            Event::Cleaned => self.on_cleaned(&mut actions),
            Event::CleanFailed => {
                if matches!(self.phase, Phase::Preparing { .. }) && !self.overtaken(&mut actions) {
                    self.start_failed(false, policy, &mut actions);
                }
            }
            Event::Spawned => self.on_spawned(&mut actions),
            Event::SpawnFailed { transient } => {
                if self.phase == Phase::Spawning && !self.overtaken(&mut actions) {
                    self.start_failed(transient, policy, &mut actions);
                }
            }
            Event::Serving(yes) => self.on_serving(yes, &mut actions),
            Event::Exited { success } => self.on_exited(success, policy, &mut actions),
            Event::TreeGone => self.on_tree_gone(policy, &mut actions),
            Event::Timer(timer) => self.on_timer(timer, policy, &mut actions),
            Event::Recovered(found) => self.on_recovered(found, policy, &mut actions),
        }
        actions
    }

    fn on_start(&mut self, actions: &mut Vec<Action>) {
        self.want = Want::Up;
        match self.phase {
            Phase::Inactive | Phase::Failed | Phase::Backoff => {
                self.starts = 0;
                self.begin(actions);
            }
            Phase::Stopping(next) | Phase::Killing(next) if next != Next::Again => {
                // What is being stopped goes, whatever is wanted now: to the store this is a restart.
                self.starts = 0;
                self.restart = Some(Restart { clean: false, attempt: 1, leaving: true });
                self.phase = match self.phase {
                    Phase::Killing(_) => Phase::Killing(Next::Again),
                    _ => Phase::Stopping(Next::Again),
                };
            }
            Phase::Loaded
            | Phase::Waiting { .. }
            | Phase::Preparing { .. }
            | Phase::Spawning
            | Phase::Verifying
            | Phase::Running
            | Phase::Impaired
            | Phase::Stopping(_)
            | Phase::Killing(_) => {}
        }
    }

    fn on_stop(&mut self, actions: &mut Vec<Action>) {
        self.want = Want::Down;
        self.restart = None;
        match self.phase {
            Phase::Inactive | Phase::Waiting { .. } | Phase::Backoff | Phase::Failed => {
                self.rest_inactive(actions)
            }
            Phase::Verifying | Phase::Running | Phase::Impaired => self.stop(Next::Down, actions),
            Phase::Stopping(_) => self.phase = Phase::Stopping(Next::Down),
            Phase::Killing(_) => self.phase = Phase::Killing(Next::Down),
            Phase::Loaded | Phase::Preparing { .. } | Phase::Spawning => {}
        }
    }

    fn on_restart(&mut self, clean: bool, actions: &mut Vec<Action>) {
        self.want = Want::Up;
        self.starts = 0;
        self.rest = None;
        // The mark `leaving` is what tells a crash's recovery the old instance from the new one.
        let leaving = self.has_instance() || self.phase == Phase::Spawning || self.phase == Phase::Loaded;
        self.restart = Some(Restart { clean, attempt: 1, leaving });
        match self.phase {
            Phase::Inactive | Phase::Waiting { .. } | Phase::Backoff | Phase::Failed => self.begin(actions),
            Phase::Verifying | Phase::Running | Phase::Impaired => self.stop(Next::Again, actions),
            Phase::Stopping(_) => self.phase = Phase::Stopping(Next::Again),
            Phase::Killing(_) => self.phase = Phase::Killing(Next::Again),
            Phase::Loaded | Phase::Preparing { .. } | Phase::Spawning => {}
        }
    }

    fn on_reset(&mut self, actions: &mut Vec<Action>) {
        self.starts = 0;
        match self.phase {
            Phase::Backoff | Phase::Failed => {
                self.restart = None;
                self.rest_inactive(actions);
                self.rest = (self.want == Want::Up).then_some(Rest::Ended);
            }
            Phase::Impaired => actions.push(Action::Verify),
            _ => {}
        }
    }

    fn on_deps(&mut self, deps: Deps, actions: &mut Vec<Action>) {
        if let Phase::Waiting { .. } = self.phase {
            match deps {
                Deps::Ready => self.prepare(actions),
                Deps::Pending => self.phase = Phase::Waiting { blocked: false },
                Deps::Blocked => self.phase = Phase::Waiting { blocked: true },
            }
        }
    }

    fn on_cleaned(&mut self, actions: &mut Vec<Action>) {
        let Phase::Preparing { force } = self.phase else { return };
        if self.want == Want::Down {
            self.rest_inactive(actions);
        } else if self.restart.is_some_and(|r| r.clean) && !force {
            self.prepare(actions);
        } else {
            self.phase = Phase::Spawning;
            if self.starts == 0 {
                actions.push(Action::Arm(Timer::Window));
            }
            self.starts = self.starts.saturating_add(1);
            actions.push(Action::Spawn);
        }
    }

    fn on_spawned(&mut self, actions: &mut Vec<Action>) {
        if self.phase != Phase::Spawning {
            return;
        }
        if self.want == Want::Down {
            self.stop(Next::Down, actions);
        } else if self.restart.is_some_and(|r| r.leaving) {
            self.stop(Next::Again, actions);
        } else {
            self.phase = Phase::Verifying;
            actions.extend([Action::Arm(Timer::Start), Action::Verify]);
        }
    }

    fn on_serving(&mut self, yes: bool, actions: &mut Vec<Action>) {
        match (self.phase, yes) {
            (Phase::Verifying, true) => {
                actions.push(Action::Disarm(Timer::Start));
                self.restart = None;
                self.phase = Phase::Running;
            }
            (Phase::Impaired, true) => self.phase = Phase::Running,
            (Phase::Running, false) => self.phase = Phase::Impaired,
            _ => {}
        }
    }

    fn on_exited(&mut self, success: bool, policy: Policy, actions: &mut Vec<Action>) {
        let served = match self.phase {
            Phase::Running | Phase::Impaired => true,
            Phase::Verifying => false,
            _ => return,
        };
        let next = match self.restart {
            Some(Restart { clean: true, attempt: 1, .. }) => {
                self.second_attempt(true);
                Next::Again
            }
            Some(Restart { clean: true, .. }) => Next::Fail,
            _ if policy.restarts(success && served) => Next::Retry,
            _ if success && served => Next::Down,
            _ => Next::Fail,
        };
        self.stop(next, actions);
    }

    fn on_tree_gone(&mut self, policy: Policy, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Stopping(next) | Phase::Killing(next) => {
                actions.extend([Action::Disarm(Timer::Stop), Action::Disarm(Timer::Kill)]);
                match next {
                    Next::Down if self.want == Want::Down => self.rest_inactive(actions),
                    Next::Down => {
                        self.phase = Phase::Inactive;
                        self.rest = Some(Rest::Ended);
                        self.restart = None;
                        self.disarm_window(actions);
                    }
                    Next::Again => self.begin(actions),
                    Next::Retry => self.retry(policy, actions),
                    Next::Fail => self.fail(actions),
                }
            }
            Phase::Verifying | Phase::Running | Phase::Impaired => {
                self.on_exited(false, policy, actions);
                // The stop that on_exited began has nothing left to do.
                actions.retain(|a| *a != Action::Signal);
                self.on_tree_gone(policy, actions);
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, timer: Timer, policy: Policy, actions: &mut Vec<Action>) {
        match (timer, self.phase) {
            (Timer::Window, _) => self.starts = 0,
            (Timer::Start, Phase::Verifying) => self.start_failed(false, policy, actions),
            (Timer::Stop, Phase::Stopping(next)) => {
                self.phase = Phase::Killing(next);
                actions.extend([Action::Arm(Timer::Kill), Action::Kill]);
            }
            (Timer::Kill, Phase::Killing(_)) => actions.extend([Action::Arm(Timer::Kill), Action::Kill]),
            (Timer::Backoff, Phase::Backoff) => self.begin(actions),
            _ => {}
        }
    }

    fn on_recovered(&mut self, found: Found, policy: Policy, actions: &mut Vec<Action>) {
        if self.phase != Phase::Loaded {
            return;
        }
        let leaving = self.restart.is_some_and(|r| r.leaving);
        match found {
            Found::Alive | Found::Remains => {
                actions.push(Action::Adopt);
                if self.want == Want::Down {
                    self.stop(Next::Down, actions);
                } else if leaving || found == Found::Remains {
                    self.stop(Next::Again, actions);
                } else {
                    self.phase = Phase::Verifying;
                    actions.extend([Action::Arm(Timer::Start), Action::Verify]);
                }
            }
            Found::Gone | Found::None if self.want == Want::Down => self.rest_inactive(actions),
            Found::Gone
                if !leaving && self.restart.is_none() && self.rest.is_none() && !policy.restarts(false) =>
            {
                self.fail(actions)
            }
            Found::Gone | Found::None => match self.rest {
                Some(Rest::Ended) => self.phase = Phase::Inactive,
                Some(Rest::Failed) => self.phase = Phase::Failed,
                None => self.begin(actions),
            },
        }
    }

    /// The way up, from its first step.
    fn begin(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Backoff {
            actions.push(Action::Disarm(Timer::Backoff));
        }
        if let Some(restart) = &mut self.restart {
            restart.leaving = false;
        }
        self.rest = None;
        self.phase = Phase::Waiting { blocked: false };
        actions.push(Action::CheckDeps);
    }

    fn prepare(&mut self, actions: &mut Vec<Action>) {
        let force = self.restart.is_some_and(|r| r.clean);
        self.phase = Phase::Preparing { force };
        actions.push(Action::Clean { force });
    }

    /// The way down, from its first step.
    fn stop(&mut self, next: Next, actions: &mut Vec<Action>) {
        if self.phase == Phase::Verifying {
            actions.push(Action::Disarm(Timer::Start));
        }
        self.phase = Phase::Stopping(next);
        actions.extend([Action::Arm(Timer::Stop), Action::Signal]);
    }

    /// A stop or a restart came while an effect was in flight that has now ended without an instance.
    fn overtaken(&mut self, actions: &mut Vec<Action>) -> bool {
        if self.want == Want::Down {
            self.rest_inactive(actions);
            true
        } else if self.restart.is_some_and(|r| r.leaving)
            || self.restart.is_some_and(|r| r.clean) && self.phase == (Phase::Preparing { force: false })
        {
            self.begin(actions);
            true
        } else {
            false
        }
    }

    /// Note 5 of the table.
    fn start_failed(&mut self, transient: bool, policy: Policy, actions: &mut Vec<Action>) {
        let live = self.phase == Phase::Verifying;
        match self.restart {
            Some(Restart { clean: true, attempt: 1, .. }) => {
                self.second_attempt(live);
                if live { self.stop(Next::Again, actions) } else { self.begin(actions) }
            }
            _ if live => {
                self.restart = None;
                self.phase = Phase::Impaired;
            }
            _ if transient && policy.restarts(false) => self.retry(policy, actions),
            _ => self.fail(actions),
        }
    }

    fn second_attempt(&mut self, leaving: bool) {
        if let Some(restart) = &mut self.restart {
            restart.attempt = 2;
            restart.leaving = leaving;
        }
    }

    fn retry(&mut self, policy: Policy, actions: &mut Vec<Action>) {
        if policy.allows(self.starts) {
            self.phase = Phase::Backoff;
            actions.push(Action::Arm(Timer::Backoff));
        } else {
            self.fail(actions);
        }
    }

    fn fail(&mut self, actions: &mut Vec<Action>) {
        self.restart = None;
        self.rest = Some(Rest::Failed);
        self.phase = Phase::Failed;
        self.disarm_window(actions);
    }

    fn rest_inactive(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Backoff {
            actions.push(Action::Disarm(Timer::Backoff));
        }
        self.restart = None;
        self.rest = None;
        self.phase = Phase::Inactive;
        self.disarm_window(actions);
    }

    fn disarm_window(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Disarm(Timer::Window));
    }
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new()
    }
}
