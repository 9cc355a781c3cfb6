//! After the daemon's own start: what the store says, and what was found of the instances that it names.
//!
//! Who is who is in the store: which instance was the service's when the last step was taken, and with a gapless restart
//! under way (`restart.gapless`, not `leaving`) the other one is the new one on its way. In every other case the other
//! one is to go.
//! ```text
//! gapless, other on its way:
//! current     other Alive                       other Remains               other Gone, None
//! Alive       Verifying, beside Verifying       Verifying, beside Stopping¹ Verifying, beside Preparing
//! else        Swap: Verifying, beside Stopping  as below, not gapless       as below, not gapless
//!
//! else:
//! other       Alive → beside Draining; Remains → beside Stopping (both: Stopping where the service is to go)
//! current     Alive → Verifying, or Stopping where the store says that it is to leave; Remains → Stopping;
//!             Gone, None → what `want`, the open command and the policy say
//! ```
//! 1. And then Preparing: it ended while nobody could know how.
//!
//! The one that failed may have been let go already, with the restart over: it drains, which takes it no time.

use super::machine::*;
use super::policy::Policy;

impl Machine {
    pub(super) fn on_recovered(
        &mut self,
        mut current: Found,
        mut other: Found,
        policy: Policy,
        actions: &mut Vec<Action>,
    ) {
        if self.phase != Phase::Loaded {
            return;
        }
        let ended = current != Found::Alive && self.restart.is_some_and(|r| r.gapless);
        if ended && self.wanted_beside() && other == Found::Alive {
            actions.push(Action::Swap);
            (current, other) = (other, current);
            if let Some(restart) = &mut self.restart {
                restart.gapless = false;
            }
        } else if ended {
            self.restart_plainly();
        }
        let alone = current != Found::Alive;
        self.other_recovered(other, alone, actions);
        self.current_recovered(current, policy, actions);
    }

    fn current_recovered(&mut self, found: Found, policy: Policy, actions: &mut Vec<Action>) {
        let leaving = self.restart.is_some_and(|r| r.leaving && !r.gapless);
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

    /// `alone`: no instance serves meanwhile.
    fn other_recovered(&mut self, found: Found, alone: bool, actions: &mut Vec<Action>) {
        let coming = self.wanted_beside();
        match found {
            Found::Alive if coming => {
                self.beside = Some(Beside::Verifying);
                let next = [Deed::Adopt, Deed::Verify].map(Action::Beside);
                actions.push(Action::Arm(Timer::Beside));
                actions.extend(next);
            }
            Found::Alive if !alone => {
                actions.push(Action::Beside(Deed::Adopt));
                self.drain(actions);
            }
            Found::Alive | Found::Remains => {
                actions.push(Action::Beside(Deed::Adopt));
                self.send_off(actions);
            }
            Found::Gone | Found::None => {
                if self.restart.is_some_and(|r| r.gapless) {
                    self.begin_beside(actions);
                }
            }
        }
    }
}
