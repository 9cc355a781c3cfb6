//! What several rows of the table share: the way up, the way down, and how a start ends that failed.

use super::machine::*;
use super::policy::Policy;

impl Machine {
    /// The way up, from its first step.
    pub(super) fn begin(&mut self, actions: &mut Vec<Action>) {
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

    pub(super) fn prepare(&mut self, actions: &mut Vec<Action>) {
        let force = self.restart.is_some_and(|r| r.clean);
        self.phase = Phase::Preparing { force };
        actions.push(Action::Clean { force });
    }

    /// The way down, from its first step.
    pub(super) fn stop(&mut self, next: Next, actions: &mut Vec<Action>) {
        self.disarm_start(actions);
        self.phase = Phase::Stopping(next);
        actions.extend([Action::Arm(Timer::Stop), Action::Signal]);
        self.dismiss(actions);
    }

    pub(super) fn disarm_start(&self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Verifying {
            actions.push(Action::Disarm(Timer::Start));
        }
    }

    /// A stop or a restart came while an effect was in flight that has now ended without an instance.
    pub(super) fn overtaken(&mut self, actions: &mut Vec<Action>) -> bool {
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
    pub(super) fn start_failed(&mut self, transient: bool, policy: Policy, actions: &mut Vec<Action>) {
        let live = matches!(self.phase, Phase::Verifying | Phase::Publishing { .. });
        match self.restart {
            // The old instance, found again after a crash: the new one is on its way.
            Some(Restart { gapless: true, .. }) if live => self.phase = Phase::Impaired,
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

    pub(super) fn second_attempt(&mut self, leaving: bool) {
        if let Some(restart) = &mut self.restart {
            restart.attempt = 2;
            restart.leaving = leaving;
        }
    }

    /// The gapless restart goes on as a plain one.
    pub(super) fn restart_plainly(&mut self) {
        if let Some(restart) = &mut self.restart {
            (restart.gapless, restart.leaving) = (false, true);
        }
    }

    pub(super) fn retry(&mut self, policy: Policy, actions: &mut Vec<Action>) {
        if policy.allows(self.starts) {
            self.phase = Phase::Backoff;
            actions.push(Action::Arm(Timer::Backoff));
        } else {
            self.fail(actions);
        }
    }

    pub(super) fn fail(&mut self, actions: &mut Vec<Action>) {
        self.restart = None;
        self.rest = Some(Rest::Failed);
        self.phase = Phase::Failed;
        self.disarm_window(actions);
    }

    pub(super) fn rest_inactive(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Backoff {
            actions.push(Action::Disarm(Timer::Backoff));
        }
        self.restart = None;
        self.rest = None;
        self.phase = Phase::Inactive;
        self.disarm_window(actions);
    }

    pub(super) fn disarm_window(&mut self, actions: &mut Vec<Action>) {
        actions.push(Action::Disarm(Timer::Window));
    }
}
