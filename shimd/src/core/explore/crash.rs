//! The death of the daemon: what is left in the store and of the instances, and what the next daemon makes of it.

use super::*;

/// What becomes of an instance while the daemon is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    LivesOn,
    MainEnds,
    Ends,
}

/// How much of what nobody has waited for is in the store, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Disk {
    All,
    /// Not that the new instance was let go.
    Unbegun,
    /// Nor that the old one has left.
    Lags,
}

impl World {
    /// The daemon dies and is started again.
    pub(super) fn crash(&mut self, fates: [Fate; 2], disk: Disk, policy: Policy) {
        // A trampoline that was not let go ends by itself; its record, where there is one, says that it never began.
        if self.effect == Some(Effect::Recorded) {
            let which = self.spawned();
            self.recorded[which] = false;
        }
        (self.effect, self.todo, self.timers) = (None, VecDeque::new(), BTreeSet::new());
        let mut store = if disk == Disk::Lags { self.lag.unwrap_or(self.store) } else { self.store };
        let unbegun = self.unbegun && disk != Disk::All;
        (self.early, self.unbegun, self.lag) = (false, false, None);
        self.published = [false; 2];
        for (live, fate) in self.live.iter_mut().zip(fates) {
            match (fate, &mut *live) {
                (Fate::MainEnds, Some(live)) => (live.main, live.others) = (false, true),
                (Fate::Ends, _) => *live = None,
                _ => {}
            }
            *live = live.filter(|l| l.main || l.others);
        }
        if unbegun && self.live[CURRENT].is_some() {
            match &mut store.restart {
                // The supervisor's recovery: what lives of the two is the one that came.
                Some(restart) if !restart.gapless => restart.leaving = false,
                _ => {
                    self.live.swap(0, 1);
                    self.recorded.swap(0, 1);
                    self.named = self.named.map(|which| 1 - which);
                    self.reachable = false;
                }
            }
        }
        self.store = store;
        self.machine = Machine::restored(store);
        let mut found = [Found::None; 2];
        for which in [CURRENT, SECOND] {
            found[which] = match self.live[which] {
                Some(live) if live.main => Found::Alive,
                Some(_) => Found::Remains,
                None if self.recorded[which] && !unbegun => Found::Gone,
                None => Found::None,
            };
            assert!(
                self.live[which].is_none() || self.recorded[which],
                "an instance lives that the store does not name: {self:?}"
            );
            self.recorded[which] = self.live[which].is_some();
        }
        let [current, other] = found;
        let good = self.live[CURRENT].is_some_and(|live| live.main && !live.outdated);
        let wanted = unbegun && good && self.store.want == Want::Up;
        self.feed(Event::Recovered { current, other }, policy);
        let stopped = matches!(self.machine.phase, Phase::Stopping(_));
        assert!(!(wanted && stopped), "the instance that a restart has brought is stopped again: {self:?}");
    }
}
