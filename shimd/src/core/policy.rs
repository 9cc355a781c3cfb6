//! The restart policy as arithmetic: how long the next start waits, and whether there may be one.

use std::time::Duration;

use shimd_api::spec::RestartPolicy;

/// What the machine needs to know of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// When an instance that ended by itself is started again.
    pub restart: RestartPolicy,
    /// How many starts one window may hold; 0 is no limit.
    pub limit: u32,
}

impl Policy {
    /// Whether an instance that ended is to be started again. An exit before the service ever served is a
    /// failure whatever its status: the declared path decides, not the number (KERNEL.md).
    pub fn restarts(self, success: bool) -> bool {
        match self.restart {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => !success,
            RestartPolicy::Never => false,
        }
    }

    /// Whether the window still has room after `starts` starts.
    pub fn allows(self, starts: u32) -> bool {
        self.limit == 0 || starts < self.limit
    }
}

/// The wait before the next start: `delay`, doubled for each start that the window has already seen beyond
/// the first, at most `max_delay`.
pub fn backoff(delay: Duration, max_delay: Duration, starts: u32) -> Duration {
    let doublings = starts.saturating_sub(1).min(31);
    delay.saturating_mul(1 << doublings).min(max_delay.max(delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_maximum() {
        let wait = |starts| backoff(Duration::from_millis(100), Duration::from_secs(1), starts).as_millis();
        assert_eq!([0, 1, 2, 3, 4, 5, 40].map(wait), [100, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_maximum_below_the_delay_does_not_shorten_it() {
        assert_eq!(backoff(Duration::from_secs(2), Duration::from_secs(1), 3), Duration::from_secs(2));
    }
}
