//! What was measured often: its median, and the hundredth that is slowest.

use std::time::{Duration, Instant};

/// Durations of one thing.
#[derive(Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// Runs something and adds how long it took.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(start.elapsed());
        result
    }

    /// How many.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// The middle one.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The 99th percentile, where there are enough to speak of one.
    pub fn p99(&self) -> Option<Duration> {
        (self.runs() >= 100).then(|| self.quantile(0.99))
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.quantile(1.0)
    }

    fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(all: I) -> Samples {
        Samples(all.into_iter().collect())
    }
}
