//! The second instance: how a gapless restart brings up the new one beside the old one, and how one of the two leaves.
//!
//! It has a state of its own, `Machine::beside`, which is there only while there is a second instance or is to be one.
//! The phase goes on to tell how the service's own instance stands: the old one until the new one is published, the new
//! one from then on ([`Action::Swap`]).
//! ```text
//! beside      the second instance
//! Preparing   one Clean is in flight, which touches nothing of the one that serves
//! Spawning    one Spawn is in flight
//! Verifying   is the new one: lives, and does not serve at its private paths yet
//! Publishing  is the new one: its sockets are being put at the public names
//! Draining    is the old one: nobody finds it any more; who is connected to it may end that
//! Stopping    is to go, whichever it is: the stop signal was sent
//! Killing     SIGKILL was sent
//! ```
//! # The table
//! Columns: beside. `-` is "ignored", `none` is "no second instance".
//! ```text
//!                 Preparing  Spawning   Verifying  Publishing  Draining  Stopping     Killing
//! Cleaned         Spawning¹  -          -          -           -         -            -
//! CleanFailed     failed²    -          -          -           -         -            -
//! Spawned         -          Verifying¹ -          -           -         -            -
//! SpawnFailed     -          failed²    -          -           -         -            -
//! Serving         -          -          Publishing -           -         -            -
//! Published       -          -          -          Swap³       -         -            -
//! PublishFailed   -          -          -          failed²     -         -            -
//! Exited          -          -          failed²    failed²     Stopping  -            -
//! Drained         -          -          -          -           Stopping  -            -
//! Gone            -          -          failed²    failed²     none⁴     none⁴        none⁴
//! Timer(Beside)   -          -          failed²    -           Stopping  Killing      Kill again
//! main stops⁵     -          -          Stopping   Stopping    Stopping  -            -
//! main ends⁶      plain      Swap       Swap       Swap        Stopping  -            -
//! Restart⁷        noted      noted      Stopping   Stopping    noted     noted        noted
//! ```
//! 1. Unless it is no longer wanted, by a command or because the service's own instance is gone: then nothing is
//!    spawned, or what was is stopped.
//! 2. The new one is stopped where it lives, and the old one goes on: a clean restart tries once more, else the restart
//!    is over and has failed. Where its sockets may lie at the public names already, the old one's are put back.
//! 3. The service is Running with the new instance, the restart is done; the old one is Draining.
//! 4. A gapless restart that waited for this begins (again): Preparing. A service in Waiting may go on.
//! 5. By a command, a failure or Lost: both instances go.
//! 6. The old one ends by itself while the new one is on its way: the new one is the service's now, and this is a plain
//!    start that goes on. One of which nothing was spawned yet is begun anew, once the old one's tree is gone.
//! 7. Gapless: the one on its way was begun before the command. It goes, and the whole begins again. A plain restart
//!    is note 5.
//!
//! # Which rule wins
//! Nothing is swept and nothing plainly spawned while a second instance lives: Waiting is not left before. A gapless
//! restart of a service that is neither Running nor Impaired, or has no second instance's place free for another reason
//! than a restart or a retirement, is a plain one.

use super::machine::*;

impl Machine {
    /// A gapless restart of a service that runs.
    pub(super) fn restart_beside(&mut self, clean: bool, actions: &mut Vec<Action>) {
        // One that was let go, or may be before its effect has ended, is not the one that is promised now.
        let leaving = !matches!(self.beside, None | Some(Beside::Preparing));
        self.restart = Some(Restart { clean, attempt: 1, leaving, gapless: true });
        match self.beside {
            None => self.begin_beside(actions),
            Some(Beside::Verifying | Beside::Publishing) => self.dismiss(actions),
            Some(_) => {}
        }
    }

    /// Whether what is being prepared beside is what the restart under way wants.
    pub(super) fn wanted_beside(&self) -> bool {
        self.restart.is_some_and(|r| r.gapless && !r.leaving)
    }

    /// The way up beside the old one, from its first step.
    pub(super) fn begin_beside(&mut self, actions: &mut Vec<Action>) {
        if let Some(restart) = &mut self.restart {
            restart.leaving = false;
        }
        self.beside = Some(Beside::Preparing);
        actions.push(Action::Beside(Deed::Clean));
    }

    pub(super) fn on_cleaned_beside(&mut self, actions: &mut Vec<Action>) {
        if self.wanted_beside() {
            self.beside = Some(Beside::Spawning);
            self.count_start(actions);
            actions.push(Action::Beside(Deed::Spawn));
        } else {
            self.beside_is_gone(actions);
        }
    }

    pub(super) fn on_spawned_beside(&mut self, actions: &mut Vec<Action>) {
        self.beside = Some(Beside::Verifying);
        if self.wanted_beside() {
            actions.extend([Action::Arm(Timer::Beside), Action::Beside(Deed::Verify)]);
        } else {
            self.dismiss(actions);
        }
    }

    /// The effect in flight for it has ended without an instance.
    pub(super) fn on_effect_failed_beside(&mut self, actions: &mut Vec<Action>) {
        if self.wanted_beside() {
            self.new_one_failed();
        }
        self.beside_is_gone(actions);
    }

    pub(super) fn on_sign(&mut self, sign: Sign, actions: &mut Vec<Action>) {
        let Some(beside) = self.beside else { return };
        match (sign, beside) {
            (Sign::Serving, Beside::Verifying) => {
                self.beside = Some(Beside::Publishing);
                actions.extend([Action::Disarm(Timer::Beside), Action::Beside(Deed::Publish)]);
            }
            (Sign::Published, Beside::Publishing) => {
                actions.push(Action::Swap);
                self.disarm_start(actions);
                self.phase = Phase::Running;
                self.restart = None;
                actions.push(Action::Verify);
                self.drain(actions);
            }
            (Sign::PublishFailed, Beside::Publishing)
            | (Sign::Exited, Beside::Verifying | Beside::Publishing) => {
                self.new_one_failed();
                self.dismiss(actions);
            }
            (Sign::Exited | Sign::Drained, Beside::Draining) => self.dismiss(actions),
            (Sign::Gone, Beside::Verifying | Beside::Publishing) => {
                self.new_one_failed();
                self.put_back(beside, actions);
                self.beside_is_gone(actions);
            }
            (Sign::Gone, Beside::Draining | Beside::Stopping | Beside::Killing) => {
                self.beside_is_gone(actions);
            }
            _ => {}
        }
    }

    pub(super) fn on_timer_beside(&mut self, actions: &mut Vec<Action>) {
        match self.beside {
            Some(Beside::Verifying) => {
                self.new_one_failed();
                self.dismiss(actions);
            }
            Some(Beside::Draining) => self.dismiss(actions),
            Some(Beside::Stopping | Beside::Killing) => {
                self.beside = Some(Beside::Killing);
                actions.extend([Action::Arm(Timer::Beside), Action::Beside(Deed::Kill)]);
            }
            _ => {}
        }
    }

    /// Note 6: the service's own instance ended while a gapless restart was under way. True where the new one has
    /// taken its place.
    pub(super) fn take_over(&mut self, actions: &mut Vec<Action>) -> bool {
        let phase = match self.beside {
            Some(Beside::Spawning) if self.wanted_beside() => Phase::Spawning,
            Some(Beside::Verifying | Beside::Publishing) => Phase::Verifying,
            _ => return false,
        };
        actions.push(Action::Swap);
        if let Some(restart) = &mut self.restart {
            restart.gapless = false;
        }
        self.disarm_start(actions);
        actions.push(Action::Disarm(Timer::Beside));
        if phase == Phase::Verifying {
            actions.extend([Action::Arm(Timer::Start), Action::Verify]);
        }
        self.phase = phase;
        self.send_off(actions);
        true
    }

    /// The second instance is to go, if it lives: what is in flight for it ends first.
    pub(super) fn dismiss(&mut self, actions: &mut Vec<Action>) {
        if let Some(beside @ (Beside::Verifying | Beside::Publishing | Beside::Draining)) = self.beside {
            self.put_back(beside, actions);
            self.send_off(actions);
        }
    }

    pub(super) fn drain(&mut self, actions: &mut Vec<Action>) {
        self.beside = Some(Beside::Draining);
        actions.extend([Action::Arm(Timer::Beside), Action::Beside(Deed::Drain)]);
    }

    pub(super) fn send_off(&mut self, actions: &mut Vec<Action>) {
        self.beside = Some(Beside::Stopping);
        actions.extend([Action::Arm(Timer::Beside), Action::Beside(Deed::Signal)]);
    }

    /// The new one's sockets may lie at the public names already: the serving one's are put there again.
    fn put_back(&self, beside: Beside, actions: &mut Vec<Action>) {
        let serves = matches!(self.phase, Phase::Publishing { .. } | Phase::Running | Phase::Impaired);
        if beside == Beside::Publishing && serves {
            actions.push(Action::Publish);
        }
    }

    /// Note 2.
    fn new_one_failed(&mut self) {
        match &mut self.restart {
            Some(restart) if restart.clean && restart.attempt == 1 => {
                restart.attempt = 2;
                restart.leaving = true;
            }
            _ => self.restart = None,
        }
    }

    /// Note 4.
    fn beside_is_gone(&mut self, actions: &mut Vec<Action>) {
        self.beside = None;
        actions.push(Action::Disarm(Timer::Beside));
        if self.restart.is_some_and(|r| r.gapless) {
            self.begin_beside(actions);
        } else if let Phase::Waiting { .. } = self.phase {
            actions.push(Action::CheckDeps);
        }
    }
}
