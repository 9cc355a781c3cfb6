//! Invariant 4 of the exploration: whatever has happened, a world that behaves from there on comes to a good end.

use std::collections::HashSet;

use super::*;

impl World {
    /// What a world that behaves does next; `None` when nothing is left to do.
    fn best(&self) -> Option<Happening> {
        use Happening::*;
        if !self.todo.is_empty() {
            return Some(Perform);
        }
        let ends = |which, live: Live| match live.main {
            true => MainEnds { which, success: true, others: false },
            false => OthersEnd(which),
        };
        match self.effect {
            Some(Effect::Clean) => return Some(Feed(Event::Cleaned)),
            Some(Effect::Forked) => return Some(Record),
            Some(Effect::Recorded) => return Some(Go),
            None => {}
        }
        match (self.machine.beside, self.live[SECOND]) {
            (Some(Beside::Verifying), Some(_)) => return Some(Feed(Event::Beside(Sign::Serving))),
            (Some(Beside::Publishing), Some(_)) => return Some(Feed(Event::Beside(Sign::Published))),
            (Some(Beside::Draining), Some(_)) => return Some(Feed(Event::Beside(Sign::Drained))),
            (Some(Beside::Stopping | Beside::Killing), Some(l)) => return Some(ends(SECOND, l)),
            _ => {}
        }
        match (self.machine.phase, self.live[CURRENT]) {
            (Phase::Waiting { .. }, _) if !self.told => Some(Feed(Event::Deps(Deps::Ready))),
            (Phase::Stopping(_) | Phase::Killing(_), Some(l)) => Some(ends(CURRENT, l)),
            (Phase::Backoff, _) => Some(Feed(Event::Timer(Timer::Backoff))),
            (Phase::Publishing { .. }, Some(_)) => Some(Feed(Event::Published)),
            (Phase::Verifying | Phase::Impaired, Some(_)) if !self.reachable => Some(Reachable(true)),
            (Phase::Verifying | Phase::Impaired, Some(_)) => Some(Feed(Event::Serving(true))),
            _ => None,
        }
    }

    /// Invariant 4. `well`: from where it is known to hold.
    pub(super) fn check_outcome(&self, policy: Policy, well: &mut HashSet<World>) {
        let mut world = self.clone();
        for _ in 0..100 {
            if !well.insert(world.clone()) {
                return;
            }
            match world.best() {
                Some(happening) => world.apply(happening, policy),
                None => return world.check_end(self),
            }
        }
        panic!("no end is reached from {self:?}");
    }

    fn check_end(&self, from: &World) {
        let ended = self.store.rest;
        let second = (self.machine.beside, self.live[SECOND]);
        assert_eq!(second, (None, None), "a second instance stays: from {from:?} to {self:?}");
        match (self.machine.want, self.machine.phase) {
            (Want::Down, Phase::Inactive) => {
                assert_eq!(self.live[CURRENT], None, "stopped, and lives: from {from:?}");
            }
            (Want::Up, Phase::Running) => {
                let outdated = self.live[CURRENT].is_some_and(|l| l.outdated);
                assert!(!outdated, "a restart left its old instance: from {from:?} to {self:?}");
            }
            (Want::Up, Phase::Failed) => assert_eq!(ended, Some(Rest::Failed), "from {from:?}"),
            (Want::Up, Phase::Inactive) => assert_eq!(ended, Some(Rest::Ended), "from {from:?}"),
            _ => panic!("{from:?} ends as {self:?}"),
        }
    }
}
