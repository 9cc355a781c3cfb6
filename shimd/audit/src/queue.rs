//! How long a listener's connections have been waiting: the history of its queue, kept by whoever looks again.
//!
//! The kernel gives no times, but it names who waits (UNIX_DIAG_ICONS): the inodes of the connecting sockets, the
//! oldest first, 0 where the client has closed. The queue is first in, first out: it loses entries at its head (they
//! were accepted) and gains them at its end, so an old look and a new one are laid over each other by the smallest
//! shift at which what is left of the old one begins the new one. What was there before keeps the time at which it
//! was first seen. So a slow server, whose queue is never empty and always moves, is told from one that accepts none.
//!
//! Inodes of sockets are not given again for as long as matters, so an age is never over-estimated, with one
//! exception: clients that gave up all look alike. A queue of nothing but those counts as unmoved while it does not
//! get shorter.
//!
//! With more than one or two thousand waiting the kernel names nobody. Then only their number is left to go by: the
//! queue counts as moved when it got shorter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// One look at a listener's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// How many connections wait to be accepted.
    pub pending: u32,
    /// How many may wait; with more than this many a further client hangs.
    pub backlog: u32,
    /// The connecting sockets' inodes, the oldest first, 0 for a client that has closed. `None` where there are too
    /// many for the kernel to name.
    pub icons: Option<Vec<u32>>,
}

/// Whether a queue moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nobody waits, or nobody has waited for too long.
    Flows,
    /// The connection at the head was not accepted in time.
    Stuck {
        /// When it was first seen waiting.
        since: Instant,
        /// How many wait.
        waiting: usize,
    },
}

/// One connection that waits.
#[derive(Debug, Clone, Copy)]
struct Entry {
    icon: u32,
    since: Instant,
}

/// The history of one listener's queue. Another listener needs another one.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// The connections by name, unless `unnamed` tells of them.
    named: VecDeque<Entry>,
    /// Since when at least so many wait, where the kernel named nobody.
    unnamed: Option<(Instant, usize)>,
}

impl Queue {
    /// A queue that was never looked at.
    pub fn new() -> Queue {
        Queue::default()
    }

    /// Takes in a look that was had at `now`.
    pub fn look(&mut self, waiting: &Waiting, now: Instant) {
        match &waiting.icons {
            Some(icons) => self.look_at_names(icons, now),
            None => self.look_at_number(waiting.pending as usize, now),
        }
    }

    /// When the connection at the head was first seen waiting; `None` if nobody waits.
    pub fn oldest(&self) -> Option<Instant> {
        match self.unnamed {
            Some((since, _)) => Some(since),
            None => self.named.front().map(|entry| entry.since),
        }
    }

    /// How many waited at the last look.
    pub fn waiting(&self) -> usize {
        self.unnamed.map_or(self.named.len(), |(_, number)| number)
    }

    /// Whether the head of the queue has been waiting for at least `after`.
    pub fn verdict(&self, after: Duration, now: Instant) -> Flow {
        match self.oldest() {
            Some(since) if now.saturating_duration_since(since) >= after => {
                Flow::Stuck { since, waiting: self.waiting() }
            }
            Some(_) | None => Flow::Flows,
        }
    }

    fn look_at_names(&mut self, icons: &[u32], now: Instant) {
        // It named nobody since there were more: some of them were accepted, and nobody knows which.
        if self.unnamed.take().is_some() {
            self.named.clear();
        }
        while !self.begins(icons) {
            self.named.pop_front();
        }
        for (at, &icon) in icons.iter().enumerate() {
            match self.named.get_mut(at) {
                Some(entry) => entry.icon = icon,
                None => self.named.push_back(Entry { icon, since: now }),
            }
        }
    }

    /// Whether these may be the same connections, in part given up by now, and then further ones.
    fn begins(&self, icons: &[u32]) -> bool {
        self.named.len() <= icons.len()
            && self.named.iter().zip(icons).all(|(entry, &icon)| icon == entry.icon || icon == 0)
    }

    fn look_at_number(&mut self, pending: usize, now: Instant) {
        let since = self.oldest().filter(|_| pending >= self.waiting()).unwrap_or(now);
        self.named.clear();
        self.unnamed = (pending > 0).then_some((since, pending));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AFTER: Duration = Duration::from_secs(5);

    fn named(icons: &[u32]) -> Waiting {
        Waiting { pending: icons.len() as u32, backlog: 4, icons: Some(icons.to_vec()) }
    }

    fn unnamed(pending: u32) -> Waiting {
        Waiting { pending, backlog: 4096, icons: None }
    }

    /// The age of the head after looks at one-second steps.
    fn age(looks: &[Waiting]) -> Option<u64> {
        let start = Instant::now();
        let mut queue = Queue::new();
        let mut now = start;
        for (second, waiting) in (0..).zip(looks) {
            now = start + Duration::from_secs(second);
            queue.look(waiting, now);
        }
        queue.oldest().map(|since| now.duration_since(since).as_secs())
    }

    #[test]
    fn what_was_there_before_keeps_its_time() {
        assert_eq!(age(&[named(&[])]), None);
        assert_eq!(age(&[named(&[7]), named(&[7]), named(&[7, 8])]), Some(2));
        assert_eq!(age(&[named(&[7]), named(&[7, 8]), named(&[8])]), Some(1));
        assert_eq!(age(&[named(&[7]), named(&[8])]), Some(0));
        assert_eq!(age(&[named(&[7]), named(&[]), named(&[7])]), Some(0));
        assert_eq!(age(&[named(&[7, 8]), named(&[0, 8]), named(&[0, 0])]), Some(2), "given up, not accepted");
        assert_eq!(
            age(&[named(&[0, 8]), named(&[8, 9])]),
            Some(1),
            "the one that gave up was taken, 8 waits on"
        );
        assert_eq!(age(&[named(&[0]), named(&[9])]), Some(0), "who is gone does not come back");
    }

    #[test]
    fn without_names_a_queue_moves_when_it_gets_shorter() {
        assert_eq!(age(&[unnamed(2000), unnamed(2000), unnamed(2001)]), Some(2));
        assert_eq!(age(&[unnamed(2000), unnamed(1999), unnamed(1999)]), Some(1));
        assert_eq!(age(&[unnamed(2000), unnamed(0)]), None);
        assert_eq!(age(&[named(&[7, 8]), unnamed(2000)]), Some(1));
        assert_eq!(age(&[named(&[7, 8]), unnamed(1)]), Some(0));
        assert_eq!(age(&[unnamed(2000), named(&[7, 8])]), Some(0));
    }

    /// What happens between two looks.
    #[derive(Debug, Clone)]
    enum Deed {
        Connect(u8),
        Accept(u8),
        GiveUp(u8),
        Look { after: u8 },
    }

    fn deeds(accept: bool, give_up: bool) -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            3 => (1u8..4).prop_map(Deed::Connect),
            u32::from(accept) * 3 => (1u8..4).prop_map(Deed::Accept),
            u32::from(give_up) => any::<u8>().prop_map(Deed::GiveUp),
            4 => (0u8..4).prop_map(|after| Deed::Look { after }),
        ];
        proptest::collection::vec(deed, 0..60)
    }

    /// A queue as the kernel has it, and when each connection in it came.
    #[derive(Debug, Default)]
    struct Kernel {
        queue: VecDeque<(u32, Duration)>,
        last_inode: u32,
        now: Duration,
    }

    impl Kernel {
        /// Does one deed; gives the look, if it was one.
        fn perform(&mut self, deed: &Deed) -> Option<Waiting> {
            match *deed {
                Deed::Connect(number) => {
                    for _ in 0..number {
                        self.last_inode += 1;
                        self.queue.push_back((self.last_inode, self.now));
                    }
                    None
                }
                Deed::Accept(number) => {
                    self.queue.drain(..usize::from(number).min(self.queue.len()));
                    None
                }
                Deed::GiveUp(at) => {
                    let len = self.queue.len().max(1);
                    if let Some(entry) = self.queue.get_mut(usize::from(at) % len) {
                        entry.0 = 0;
                    }
                    None
                }
                Deed::Look { after } => {
                    self.now += Duration::from_secs(u64::from(after));
                    Some(named(&self.queue.iter().map(|(icon, _)| *icon).collect::<Vec<_>>()))
                }
            }
        }
    }

    proptest! {
        #[test]
        fn an_age_is_never_over_estimated_and_a_queue_that_is_served_in_time_is_never_stuck(
            deeds in deeds(true, false)
        ) {
            let start = Instant::now();
            let (mut kernel, mut queue) = (Kernel::default(), Queue::new());
            for deed in &deeds {
                let Some(waiting) = kernel.perform(deed) else { continue };
                queue.look(&waiting, start + kernel.now);
                prop_assert_eq!(queue.waiting(), kernel.queue.len());
                prop_assert_eq!(queue.oldest().is_some(), !kernel.queue.is_empty());
                let Some((_, came)) = kernel.queue.front() else { continue };
                prop_assert!(queue.oldest().is_none_or(|since| since >= start + *came));
                if kernel.now - *came < AFTER {
                    prop_assert_eq!(queue.verdict(AFTER, start + kernel.now), Flow::Flows);
                }
            }
        }

        #[test]
        fn a_queue_of_which_nothing_was_accepted_is_stuck_in_time(deeds in deeds(false, true)) {
            let start = Instant::now();
            let (mut kernel, mut queue) = (Kernel::default(), Queue::new());
            let mut first_seen = None;
            for deed in &deeds {
                let Some(waiting) = kernel.perform(deed) else { continue };
                queue.look(&waiting, start + kernel.now);
                if first_seen.is_none() && !kernel.queue.is_empty() {
                    first_seen = Some(kernel.now);
                }
                let Some(seen) = first_seen else { continue };
                let expected = if kernel.now - seen >= AFTER {
                    Flow::Stuck { since: start + seen, waiting: kernel.queue.len() }
                } else {
                    Flow::Flows
                };
                prop_assert_eq!(queue.verdict(AFTER, start + kernel.now), expected);
            }
        }
    }
}
