//! How often one dentry is put back. Pure.
//!
//! A socket that is lost now and then is put back at once, each time: a client should not wait for our caution. One that
//! something removes in a loop must not make two programs spin: [`BURST`] repairs are free, and [`REFILL`] more each
//! second; whoever uses that up waits 50 ms for the next, then twice as long each time, up to 10 s, until the dentry has
//! stayed for [`CALM`] beyond the wait.

use std::time::{Duration, Instant};

/// Repairs at once, from a full store of patience.
pub const BURST: u32 = 1024;
/// Repairs a second that never wear it out.
pub const REFILL: u32 = 20;
/// So long it must stay before all is forgotten.
pub const CALM: Duration = Duration::from_secs(30);

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(10);

/// The patience with one socket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    left: f64,
    last: Option<Instant>,
    wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { left: f64::from(BURST), last: None, wait: Duration::ZERO }
    }
}

impl Patience {
    /// From when on the next repair may be; `None`: now.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        let at = self.last? + self.wait;
        (!self.wait.is_zero() && at > now).then_some(at)
    }

    /// Whether the loss is one of many.
    pub fn is_worn(&self) -> bool {
        !self.wait.is_zero()
    }

    /// A repair was made, or tried in vain.
    pub fn used(&mut self, now: Instant) {
        let since = self.last.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        if since >= self.wait.saturating_add(CALM) {
            *self = Patience { last: Some(now), ..Patience::default() };
        } else if self.wait.is_zero() {
            let refilled = self.left + since.as_secs_f64() * f64::from(REFILL);
            self.left = refilled.min(f64::from(BURST));
        }
        if self.wait.is_zero() && self.left >= 1.0 {
            self.left -= 1.0;
        } else {
            self.wait = (self.wait * 2).clamp(FIRST, LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repairs as soon as they may be, against a remover that needs `each`; how many within `long`.
    fn repairs(each: Duration, long: Duration) -> usize {
        let begin = Instant::now();
        let (mut now, mut patience, mut count) = (begin, Patience::default(), 0);
        while now < begin + long {
            now = patience.until(now).unwrap_or(now);
            patience.used(now);
            count += 1;
            now += each;
        }
        count
    }

    #[test]
    fn a_remover_now_and_then_is_always_answered_at_once() {
        let hour = Duration::from_secs(3600);
        assert_eq!(repairs(Duration::from_millis(100), hour), 36_000);
    }

    #[test]
    fn a_thousand_removals_in_a_row_are_answered_at_once() {
        assert_eq!(repairs(Duration::from_millis(1), Duration::from_secs(1)), 1000);
    }

    #[test]
    fn a_loop_wears_it_out_and_does_not_spin() {
        let minute = repairs(Duration::from_micros(100), Duration::from_secs(60));
        assert!(minute > BURST as usize && minute < BURST as usize + 30, "{minute}");
    }

    #[test]
    fn calm_restores_it() {
        let mut now = Instant::now();
        let mut patience = Patience::default();
        for _ in 0..BURST + 2 {
            patience.used(now);
        }
        assert!(patience.is_worn() && patience.until(now).is_some());
        now += Duration::from_secs(41);
        assert_eq!(patience.until(now), None);
        patience.used(now);
        assert!(!patience.is_worn());
    }
}
