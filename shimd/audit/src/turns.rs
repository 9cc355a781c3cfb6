//! Which paths of a large audit have the folders on their way looked at.
//!
//! To look at a socket's own bits is free, for it is looked at anyway. The folders that lead to a thousand sockets
//! would double the cost of an audit, and they change their bits seldom. So of many paths with a trusted listener a
//! part has its turn in each audit, and all have had theirs after a few. A path that was found to be denied has its
//! turn in every audit until it is not, so that its verdict does not come and go. An audit of few paths, as one
//! after an event is, looks at everything.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::audit::Finding;
use crate::verdict::Verdict;

/// How many paths have their turn in one audit.
const TURNS: usize = 64;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    next: usize,
    denied: HashSet<PathBuf>,
}

impl Turns {
    /// Whether the path with this index of `count` has its turn.
    pub(crate) fn has(&self, index: usize, count: usize) -> bool {
        count <= TURNS || (index + count - self.next % count) % count < TURNS
    }

    /// Whether a path was denied when it was last looked at.
    pub(crate) fn was_denied(&self, path: &Path) -> bool {
        !self.denied.is_empty() && self.denied.contains(path)
    }

    /// Passes the turn on after an audit of `count` paths.
    pub(crate) fn pass_on(&mut self, count: usize) {
        if count > TURNS {
            self.next = (self.next + TURNS) % count;
        }
    }

    /// Takes a finding in.
    pub(crate) fn note(&mut self, finding: &Finding) {
        if finding.verdict == Verdict::Denied {
            self.denied.insert(finding.path.clone());
        } else if !self.denied.is_empty() {
            self.denied.remove(&finding.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_turn_before_anyone_has_a_second() {
        for count in [0, 1, TURNS, TURNS + 1, 1000, 3 * TURNS] {
            let (mut turns, mut had) = (Turns::default(), vec![0; count]);
            for _ in 0..count.div_ceil(TURNS) {
                let now: Vec<_> = (0..count).filter(|index| turns.has(*index, count)).collect();
                assert_eq!(now.len(), count.min(TURNS));
                now.into_iter().for_each(|index| had[index] += 1);
                turns.pass_on(count);
            }
            assert!(had.iter().all(|had| (1..=2).contains(had)), "{count}");
        }
    }

    #[test]
    fn a_number_of_paths_that_changes_leaves_nobody_out() {
        let mut turns = Turns::default();
        (0..20).for_each(|_| turns.pass_on(5000));
        let had = (0..1000).filter(|index| turns.has(*index, 1000)).count();
        assert!(had <= TURNS);
        let mut had = vec![false; 1000];
        for _ in 0..1000usize.div_ceil(TURNS) + 1 {
            had.iter_mut().enumerate().for_each(|(index, had)| *had |= turns.has(index, 1000));
            turns.pass_on(1000);
        }
        assert!(had.iter().all(|had| *had));
    }
}
