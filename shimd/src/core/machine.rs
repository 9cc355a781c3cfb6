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
//! Verifying   starting   the instance lives; it does not serve all of its sockets yet
//! Publishing  starting   it does; its `publish` sockets are being put at the public names (late: failed)
//! Running     running    the instance lives; every socket is ok and it said that it is ready
//! Impaired    failed     the instance lives; clients cannot reach it
//! Stopping    stopping   the stop signal was sent; its tree is not gone
//! Killing     stopping   SIGKILL was sent; its tree is not gone
//! Backoff     backoff    no instance; the next start waits
//! Failed      failed     no instance; only a command starts it again
//! ```
//! With a gapless restart there is a second instance for a while: its states, and what they do to these, are in
//! [`beside`](super::beside). What a start of the daemon makes of both is in [`recovered`](super::recovered).
//! # The table
//! Columns: phase. Rows: events. `-` is "ignored". `N` is the Next that Stopping and Killing carry:
//! Down → Inactive, Again → Waiting, Retry → Backoff or (no start left) Failed, Fail → Failed.
//! ```text
//!              Inactive Waiting   Preparing  Spawning   Verifying   Publishing  Running      Impaired    Stopping  Killing    Backoff  Failed
//! Start        Waiting  -         want       want       -           -           -            -           N:=Again¹ N:=Again¹  Waiting  Waiting
//! Stop         -        Inactive  want       want       Stop(Down)  Stop(Down)  Stop(Down)   Stop(Down)  N:=Down   N:=Down    Inactive Inactive
//! Restart      Waiting  Waiting   redo²      redo²      Stop(Again) Stop(Again) Stop(Again)⁸ Stop(Ag.)⁸  N:=Again  N:=Again   Waiting  Waiting
//! Lost         -        -         -          -          -           -           by limit⁹    by limit⁹   -         -          -        -
//! ResetFailed  -        -         -          -          -           -           -            Verify      -         -          Inactive Inactive
//! Deps(s)      -        by s³     -          -          -           -           -            -           -         -          -        -
//! Cleaned      -        -         Spawning⁴  -          -           -           -            -           -         -          -        -
//! CleanFailed  -        -         start⁵     -          -           -           -            -           -         -          -        -
//! Spawned      -        -         -          Verifying⁴ -           -           -            -           -         -          -        -
//! SpawnFailed  -        -         -          start⁵     -           -           -            -           -         -          -        -
//! Serving(yes) -        -         -          -          Publishing¹⁰ -          -            Publishing¹⁰ -        -          -        -
//! Serving(no)  -        -         -          -          -           -           Impaired     -           -         -          -        -
//! Published    -        -         -          -          -           Running     -            -           -         -          -        -
//! PublishFailed -       -         -          -          -           start⁵      -            -           -         -          -        -
//! Exited       -        -         -          -          Stop(by⁶)   Stop(by⁶)   Stop(by⁶)    Stop(by⁶)   -         -          -        -
//! TreeGone     -        -         -          -          as Exited⁷  as Exited⁷  as Exited⁷   as Exited⁷  by N      by N       -        -
//! Timer(Start) -        -         -          -          start⁵      -           -            -           -         -          -        -
//! Timer(Stop)  -        -         -          -          -           -           -            -           Killing   -          -        -
//! Timer(Kill)  -        -         -          -          -           -           -            -           -         Kill again -        -
//! Timer(Back)  -        -         -          -          -           -           -            -           -         -          Waiting  -
//! Timer(Window) in every phase: the count of starts begins anew
//! Recovered    in Loaded alone
//! ```
//! 1. Whatever N was: what is being stopped goes, and is wanted again.
//! 2. `want` and the command are noted; the effect in flight ends first, then Waiting or Stop(Again).
//! 3. Ready → Preparing, where no second instance is left; Pending, Blocked → Waiting, shown as starting or as failed.
//! 4. Unless meanwhile unwanted (Inactive, Stop(Down)) or told to restart (note 2).
//! 5. A start that failed: under a clean restart's first attempt the whole once more; else, where an
//!    instance lives, Impaired (its process is left alone); else Backoff for a passing cause or Failed.
//! 6. By the command under way and the policy: Down, Again, Retry or Fail. What is left of the tree is
//!    stopped before anything else happens, so no two instances ever live at once.
//! 7. An adopted instance can be gone without an exit status: that counts as a failure.
//! 8. With `gapless`, in Running and Impaired: the new instance is brought up beside. Who is connected to an impaired one, or
//!    waits in its queue, is not to be cut off either.
//! 9. A clean restart within the restart limits: Stop(Again) where it is the window's first start, Stop(Retry) where the
//!    window has room, else Impaired. Ignored while a restart is under way: the new instance will have its own dentry.
//! 10. Not while the public names are being given to a new instance beside it.
//!
//! # Which rule wins
//! The last command decides `want`. At most one Clean or Spawn is in flight, and no phase is left while its effect
//! is: that is what keeps one instance one. A Publish is answered before anything else happens; an answer that finds
//! another phase is ignored. The process of a service whose sockets are not ok is never touched by the machine
//! itself, unless `on_missing` asks for it (Lost).
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
    /// Where the second instance stands, while there is one.
    pub beside: Option<Beside>,
}

impl Machine {
    /// A service that was just registered.
    pub fn new() -> Self {
        Machine {
            want: Want::Down,
            phase: Phase::Inactive,
            restart: None,
            rest: None,
            starts: 0,
            beside: None,
        }
    }

    /// A service as the store has it, before recovery has looked at its instance.
    pub fn restored(durable: Durable) -> Self {
        let Durable { want, restart, rest } = durable;
        Machine { want, phase: Phase::Loaded, restart, rest, starts: 0, beside: None }
    }

    /// What a crash must not lose.
    pub fn durable(&self) -> Durable {
        Durable { want: self.want, restart: self.restart, rest: self.rest }
    }

    /// The state as users see it.
    pub fn status(&self) -> shimd_api::wire::Status {
        use shimd_api::wire::Status;
        match self.phase {
            Phase::Inactive if self.beside.is_some() => Status::Stopping,
            Phase::Inactive => Status::Inactive,
            Phase::Loaded
            | Phase::Waiting { blocked: false }
            | Phase::Preparing { .. }
            | Phase::Spawning
            | Phase::Verifying
            | Phase::Publishing { late: false } => Status::Starting,
            Phase::Running => Status::Running,
            Phase::Impaired
            | Phase::Publishing { late: true }
            | Phase::Failed
            | Phase::Waiting { blocked: true } => Status::Failed,
            Phase::Stopping(_) | Phase::Killing(_) => Status::Stopping,
            Phase::Backoff => Status::Backoff,
        }
    }

    /// Whether an instance of the service may live in this phase.
    pub fn has_instance(&self) -> bool {
        self.beside.is_some()
            || matches!(
                self.phase,
                Phase::Verifying
                    | Phase::Publishing { .. }
                    | Phase::Running
                    | Phase::Impaired
                    | Phase::Stopping(_)
                    | Phase::Killing(_)
            )
    }

    /// Whether an instance lives that is on its way no longer, whether it has come up or not.
    pub fn has_arrived(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Impaired)
    }

    /// Whether a Clean or a Spawn is in flight.
    pub fn effect_in_flight(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. } | Phase::Spawning)
            || matches!(self.beside, Some(Beside::Preparing | Beside::Spawning))
    }

    /// Whether nothing more happens by itself: what a command that waits for its outcome waits for.
    pub fn settled(&self) -> bool {
        self.beside.is_none()
            && matches!(
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
            Event::Restart { clean, gapless } => self.on_restart(clean, gapless, &mut actions),
            Event::Lost => self.on_lost(policy, &mut actions),
            Event::ResetFailed => self.on_reset(&mut actions),
            Event::Deps(deps) => self.on_deps(deps, &mut actions),
            Event::Cleaned => self.on_cleaned(&mut actions),
            Event::CleanFailed { transient } => {
                if self.beside == Some(Beside::Preparing) {
                    self.on_effect_failed_beside(&mut actions);
                } else if matches!(self.phase, Phase::Preparing { .. }) && !self.overtaken(&mut actions) {
                    // One that did not come as far as its spawn is a try all the same: tries have a limit.
                    self.count_start(&mut actions);
                    self.start_failed(transient, policy, &mut actions);
                }
            }
            Event::Spawned => self.on_spawned(&mut actions),
            Event::SpawnFailed { transient } => {
                if self.beside == Some(Beside::Spawning) {
                    self.on_effect_failed_beside(&mut actions);
                } else if self.phase == Phase::Spawning && !self.overtaken(&mut actions) {
                    self.start_failed(transient, policy, &mut actions);
                }
            }
            Event::Serving(yes) => self.on_serving(yes, &mut actions),
            Event::Published => self.on_published(),
            Event::PublishFailed => {
                if let Phase::Publishing { .. } = self.phase {
                    self.start_failed(false, policy, &mut actions);
                }
            }
            Event::Exited { success } => self.on_exited(success, policy, &mut actions),
            Event::TreeGone => self.on_tree_gone(policy, &mut actions),
            Event::Timer(timer) => self.on_timer(timer, policy, &mut actions),
            Event::Beside(sign) => self.on_sign(sign, &mut actions),
            Event::Recovered { current, other } => {
                self.on_recovered(current, other, policy, &mut actions);
            }
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
                self.restart = Some(Restart { clean: false, attempt: 1, leaving: true, gapless: false });
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
            | Phase::Publishing { .. }
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
            Phase::Verifying | Phase::Publishing { .. } | Phase::Running | Phase::Impaired => {
                self.stop(Next::Down, actions)
            }
            Phase::Stopping(_) => self.phase = Phase::Stopping(Next::Down),
            Phase::Killing(_) => self.phase = Phase::Killing(Next::Down),
            Phase::Loaded | Phase::Preparing { .. } | Phase::Spawning => {}
        }
    }

    fn on_restart(&mut self, clean: bool, gapless: bool, actions: &mut Vec<Action>) {
        self.want = Want::Up;
        self.starts = 0;
        self.rest = None;
        if gapless && self.has_arrived() {
            return self.restart_beside(clean, actions);
        }
        // The mark `leaving` is what tells a crash's recovery the old instance from the new one.
        let leaving = self.has_instance() || matches!(self.phase, Phase::Spawning | Phase::Loaded);
        self.restart = Some(Restart { clean, attempt: 1, leaving, gapless: false });
        match self.phase {
            Phase::Inactive | Phase::Waiting { .. } | Phase::Backoff | Phase::Failed => self.begin(actions),
            Phase::Verifying | Phase::Publishing { .. } | Phase::Running | Phase::Impaired => {
                self.stop(Next::Again, actions)
            }
            Phase::Stopping(_) => self.phase = Phase::Stopping(Next::Again),
            Phase::Killing(_) => self.phase = Phase::Killing(Next::Again),
            Phase::Loaded | Phase::Preparing { .. } | Phase::Spawning => {}
        }
    }

    /// Note 9.
    fn on_lost(&mut self, policy: Policy, actions: &mut Vec<Action>) {
        if !matches!(self.phase, Phase::Running | Phase::Impaired) || self.restart.is_some() {
            return;
        }
        if !policy.allows(self.starts) {
            self.phase = Phase::Impaired;
            return;
        }
        self.restart = Some(Restart { clean: true, attempt: 1, leaving: true, gapless: false });
        self.stop(if self.starts == 0 { Next::Again } else { Next::Retry }, actions);
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
                // The end of the second instance asks again.
                Deps::Ready if self.beside.is_some() => self.phase = Phase::Waiting { blocked: false },
                Deps::Ready => self.prepare(actions),
                Deps::Pending => self.phase = Phase::Waiting { blocked: false },
                Deps::Blocked => self.phase = Phase::Waiting { blocked: true },
            }
        }
    }

    fn on_cleaned(&mut self, actions: &mut Vec<Action>) {
        if self.beside == Some(Beside::Preparing) {
            return self.on_cleaned_beside(actions);
        }
        let Phase::Preparing { force } = self.phase else { return };
        if self.want == Want::Down {
            self.rest_inactive(actions);
        } else if self.restart.is_some_and(|r| r.clean) && !force {
            self.prepare(actions);
        } else {
            self.phase = Phase::Spawning;
            self.count_start(actions);
            actions.push(Action::Spawn);
        }
    }

    pub(super) fn count_start(&mut self, actions: &mut Vec<Action>) {
        if self.starts == 0 {
            actions.push(Action::Arm(Timer::Window));
        }
        self.starts = self.starts.saturating_add(1);
    }

    fn on_spawned(&mut self, actions: &mut Vec<Action>) {
        if self.beside == Some(Beside::Spawning) {
            return self.on_spawned_beside(actions);
        }
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
            // The public names are being given to the new instance: not back to the old one meanwhile.
            (Phase::Verifying | Phase::Impaired, true) if self.beside != Some(Beside::Publishing) => {
                self.disarm_start(actions);
                self.phase = Phase::Publishing { late: self.phase == Phase::Impaired };
                actions.push(Action::Publish);
            }
            (Phase::Running, false) => self.phase = Phase::Impaired,
            _ => {}
        }
    }

    fn on_published(&mut self) {
        if let Phase::Publishing { .. } = self.phase {
            self.phase = Phase::Running;
            // A gapless restart goes on: this is the old instance, found again after a crash.
            self.restart = self.restart.filter(|r| r.gapless);
        }
    }

    fn on_exited(&mut self, success: bool, policy: Policy, actions: &mut Vec<Action>) {
        let served = match self.phase {
            Phase::Running | Phase::Impaired => true,
            Phase::Verifying | Phase::Publishing { .. } => false,
            _ => return,
        };
        if let Some(Restart { gapless: true, .. }) = self.restart {
            if !self.take_over(actions) {
                self.restart_plainly();
                self.stop(Next::Again, actions);
            }
            return;
        }
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
            Phase::Verifying | Phase::Publishing { .. } | Phase::Running | Phase::Impaired => {
                self.on_exited(false, policy, actions);
                // The stop that on_exited began has nothing left to do.
                if actions.first() == Some(&Action::Swap) {
                    actions.retain(|a| *a != Action::Beside(Deed::Signal));
                    self.on_sign(Sign::Gone, actions);
                } else {
                    actions.retain(|a| *a != Action::Signal);
                    self.on_tree_gone(policy, actions);
                }
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
            (Timer::Beside, _) => self.on_timer_beside(actions),
            _ => {}
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Machine::new()
    }
}
