//! The dice: xorshift64, the same throws for the same seed.

use std::time::Duration;

/// A sequence of throws.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; 0 would throw nothing else.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % bound.max(1) as u64) as usize
    }

    /// A span up to the longest, in steps of 10 µs.
    pub fn within(&mut self, longest: Duration) -> Duration {
        let steps = longest.as_micros() / 10;
        Duration::from_micros(10) * self.below(steps as usize + 1) as u32
    }
}
