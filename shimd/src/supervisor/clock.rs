//! Times and durations as they travel, and the timers of all services in one heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::core::machine::Timer;

/// Nanoseconds as the wire has them.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A time as the wire has it, RFC 3339 in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(time).to_string()
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alarm {
    /// One of the machine's.
    Machine(Timer),
    /// Look again at an instance that does not serve yet.
    Look,
    /// Look again at the second one.
    Second,
    /// A look at a queue that may stand still.
    Queue,
}

/// When, which epoch, whose, and what for.
type Armed = (Instant, u64, Arc<str>, Alarm);

/// Every armed timer. A timer that was armed again or disarmed stays in the heap until its time, with an
/// epoch that is no longer the current one.
#[derive(Debug, Default)]
pub struct Clock {
    heap: BinaryHeap<Reverse<Armed>>,
    current: HashMap<(Arc<str>, Alarm), u64>,
    epoch: u64,
}

impl Clock {
    /// Starts a timer, in place of one of the same name.
    pub fn arm(&mut self, service: &Arc<str>, alarm: Alarm, after: Duration) {
        // A duration beyond what the clock can hold never comes; a century is as good.
        let at = Instant::now()
            .checked_add(after)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3_155_760_000));
        self.epoch += 1;
        self.current.insert((service.clone(), alarm), self.epoch);
        self.heap.push(Reverse((at, self.epoch, service.clone(), alarm)));
        // Timers that were armed again leave their older selves behind: not without end.
        if self.heap.len() > 64 + 4 * self.current.len() {
            let current = &self.current;
            self.heap.retain(|Reverse((_, epoch, name, alarm))| {
                current.get(&(name.clone(), *alarm)) == Some(epoch)
            });
        }
    }

    /// Stops a timer.
    pub fn disarm(&mut self, service: &Arc<str>, alarm: Alarm) {
        self.current.remove(&(service.clone(), alarm));
    }

    /// Stops all timers of a service that is forgotten.
    pub fn forget(&mut self, service: &Arc<str>) {
        self.current.retain(|(name, _), _| name != service);
    }

    /// When the next timer is due.
    pub fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, epoch, service, alarm))) = self.heap.peek() {
            if self.current.get(&(service.clone(), *alarm)) == Some(epoch) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes a timer that is due.
    pub fn due(&mut self, now: Instant) -> Option<(Arc<str>, Alarm)> {
        while self.next().is_some_and(|at| at <= now) {
            if let Some(Reverse((_, _, service, alarm))) = self.heap.pop() {
                self.current.remove(&(service.clone(), alarm));
                return Some((service, alarm));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_armed_again_rings_once_and_a_disarmed_one_never() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut clock = Clock::default();
        clock.arm(&a, Alarm::Look, Duration::ZERO);
        clock.arm(&a, Alarm::Look, Duration::ZERO);
        clock.arm(&b, Alarm::Look, Duration::ZERO);
        clock.disarm(&b, Alarm::Look);
        let now = Instant::now();
        assert_eq!(clock.due(now), Some((a, Alarm::Look)));
        assert_eq!(clock.due(now), None);
        assert_eq!(clock.next(), None);
    }

    #[test]
    fn an_endless_wait_does_not_overflow() {
        let mut clock = Clock::default();
        clock.arm(&"a".into(), Alarm::Machine(Timer::Start), Duration::MAX);
        assert!(clock.next().is_some());
        assert_eq!(clock.due(Instant::now()), None);
    }
}
