//! What is done about one socket's verdict: pure.
//!
//! | verdict | after it was `ok` | and | does |
//! | --- | --- | --- | --- |
//! | `ok` | | | keep it: pin the inode, if it is another |
//! | `unknown` | | | look again |
//! | any other | no | | await it |
//! | `dangling` | yes | gone for less than `settle`, and not known to be another process's deed | look again |
//! | `dangling` | yes | `relink`, a pin, its turn | link it back |
//! | `dangling` | yes | `relink`, a pin, removed again and again | when it is its turn (below) |
//! | `dangling` | yes | `relink` without a pin, or `restart` | restart |
//! | `replaced` | yes | by a dead socket file; else as for `dangling` | exchange it |
//! | `absent`, `stale` | yes | gone for less than `settle` | look again |
//! | `absent`, `stale` | yes | `restart` | restart |
//! | else | yes | | say it |
//!
//! A dentry that is lost again and again is put back ever more rarely ([`Patience`]): a cleaner in a loop is answered, and
//! never chased.

use std::time::{Duration, Instant};

use shimd_api::spec::OnMissing;
use socket_audit::Verdict;

use crate::supervisor::patience::Patience;

/// Who took the dentry away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doer {
    /// A process outside the service.
    Other,
    /// The service, or nobody that is known.
    Unsure,
}

/// What is known of a socket that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The audit's word.
    pub verdict: Verdict,
    /// What lies in its place is a socket file that nobody listens on.
    pub dead_in_place: bool,
    /// Who did it.
    pub doer: Doer,
    /// There is a pin.
    pub pinned: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Pin it.
    Keep,
    /// It was not there yet: look again soon.
    Await,
    /// Look again at this time.
    Settle(Instant),
    /// Link it back.
    LinkBack,
    /// Put it in place of the dead socket file.
    Exchange,
    /// Restart the service.
    Restart,
    /// Say how it is, and look again now and then.
    Say,
}

/// One socket's memory.
#[derive(Debug, Default)]
pub struct Care {
    /// It was `ok` in this generation.
    well: bool,
    missed: Option<Instant>,
    patience: Patience,
}

impl Care {
    /// A new generation: nothing is there yet. Repairs are remembered.
    pub fn begin(&mut self) {
        self.well = false;
        self.missed = None;
    }

    /// Whether it was `ok` in this generation.
    pub fn was_well(&self) -> bool {
        self.well
    }

    /// Since when it is not.
    pub fn missed(&self) -> Option<Instant> {
        self.missed
    }

    /// Whether it is lost again and again.
    pub fn is_worn(&self) -> bool {
        self.patience.is_worn()
    }

    /// A repair was done, or tried in vain.
    pub fn repaired(&mut self, now: Instant) {
        self.patience.used(now);
    }

    /// The row of the table.
    pub fn step(&mut self, sight: Sight, on_missing: OnMissing, settle: Duration, now: Instant) -> Step {
        match sight.verdict {
            Verdict::Ok => {
                self.well = true;
                self.missed = None;
                return Step::Keep;
            }
            _ if !self.well => return Step::Await,
            _ => {}
        }
        let missed = *self.missed.get_or_insert(now);
        let settled = missed + settle;
        match sight.verdict {
            Verdict::Unknown => Step::Await,
            Verdict::Dangling | Verdict::Absent | Verdict::Stale
                if sight.doer == Doer::Unsure && now < settled =>
            {
                Step::Settle(settled)
            }
            Verdict::Dangling => self.put_back(Step::LinkBack, sight.pinned, on_missing, now),
            Verdict::Replaced if sight.dead_in_place => {
                self.put_back(Step::Exchange, sight.pinned, on_missing, now)
            }
            Verdict::Absent | Verdict::Stale if on_missing == OnMissing::Restart => Step::Restart,
            _ => Step::Say,
        }
    }

    fn put_back(&mut self, step: Step, pinned: bool, on_missing: OnMissing, now: Instant) -> Step {
        match on_missing {
            OnMissing::Report => Step::Say,
            OnMissing::Restart => Step::Restart,
            OnMissing::Relink if !pinned => Step::Restart,
            OnMissing::Relink => match self.patience.until(now) {
                Some(at) => Step::Settle(at),
                None => step,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(100);

    fn sight(verdict: Verdict) -> Sight {
        Sight { verdict, dead_in_place: false, doer: Doer::Unsure, pinned: true }
    }

    fn well(now: Instant) -> Care {
        let mut care = Care::default();
        assert_eq!(care.step(sight(Verdict::Ok), OnMissing::Relink, SETTLE, now), Step::Keep);
        care
    }

    #[test]
    fn what_was_never_there_is_awaited_whatever_it_is() {
        let now = Instant::now();
        for verdict in
            [Verdict::Absent, Verdict::Stale, Verdict::Foreign, Verdict::Dangling, Verdict::Unknown]
        {
            for means in [OnMissing::Relink, OnMissing::Restart, OnMissing::Report] {
                assert_eq!(
                    Care::default().step(sight(verdict), means, SETTLE, now),
                    Step::Await,
                    "{verdict}"
                );
            }
        }
    }

    #[test]
    fn a_reload_has_its_time_and_another_process_has_none() {
        let now = Instant::now();
        let mut care = well(now);
        let gone = sight(Verdict::Dangling);
        assert_eq!(care.step(gone, OnMissing::Relink, SETTLE, now), Step::Settle(now + SETTLE));
        let late = now + SETTLE;
        assert_eq!(care.step(gone, OnMissing::Relink, SETTLE, late), Step::LinkBack);
        let other = Sight { doer: Doer::Other, ..gone };
        let mut care = well(now);
        assert_eq!(care.step(other, OnMissing::Relink, SETTLE, now), Step::LinkBack);
        // The reload came to its end.
        let mut care = well(now);
        care.step(gone, OnMissing::Relink, SETTLE, now);
        assert_eq!(care.step(sight(Verdict::Ok), OnMissing::Relink, SETTLE, now), Step::Keep);
        assert_eq!(care.missed(), None);
    }

    #[test]
    fn each_means_has_its_step() {
        let now = Instant::now();
        let late = now + SETTLE;
        let step = |sight: Sight, means| {
            let mut care = well(now);
            care.step(sight, means, SETTLE, now);
            care.step(sight, means, SETTLE, late)
        };
        let gone = sight(Verdict::Dangling);
        assert_eq!(step(gone, OnMissing::Relink), Step::LinkBack);
        assert_eq!(step(Sight { pinned: false, ..gone }, OnMissing::Relink), Step::Restart);
        assert_eq!(step(gone, OnMissing::Restart), Step::Restart);
        assert_eq!(step(gone, OnMissing::Report), Step::Say);
        let dead = Sight { dead_in_place: true, ..sight(Verdict::Replaced) };
        assert_eq!(step(dead, OnMissing::Relink), Step::Exchange);
        assert_eq!(step(dead, OnMissing::Restart), Step::Restart);
        assert_eq!(step(sight(Verdict::Replaced), OnMissing::Restart), Step::Say);
        for closed in [Verdict::Absent, Verdict::Stale] {
            assert_eq!(step(sight(closed), OnMissing::Relink), Step::Say);
            assert_eq!(step(sight(closed), OnMissing::Restart), Step::Restart);
        }
        for left_alone in [Verdict::Foreign, Verdict::NotSocket, Verdict::Wedged, Verdict::Denied] {
            for means in [OnMissing::Relink, OnMissing::Restart, OnMissing::Report] {
                assert_eq!(step(sight(left_alone), means), Step::Say, "{left_alone}");
            }
        }
        assert_eq!(step(sight(Verdict::Unknown), OnMissing::Restart), Step::Await);
    }

    #[test]
    fn a_remover_in_a_loop_is_answered_ever_more_slowly_and_never_given_up() {
        let start = Instant::now();
        let mut now = start;
        let mut care = well(now);
        let gone = Sight { doer: Doer::Other, ..sight(Verdict::Dangling) };
        let mut repairs = 0;
        while now < start + Duration::from_secs(60) {
            match care.step(gone, OnMissing::Relink, SETTLE, now) {
                Step::LinkBack => {
                    care.repaired(now);
                    repairs += 1;
                    now += Duration::from_micros(100);
                }
                Step::Settle(at) => now = at,
                step => panic!("{step:?}"),
            }
        }
        assert!(care.is_worn() && repairs < 1100, "{repairs}");
    }
}
