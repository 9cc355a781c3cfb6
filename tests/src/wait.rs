//! Bounded waits: a condition is looked at until it holds or its time is over.

use crate::{Fault, Result};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
const STEP: Duration = Duration::from_millis(2);

/// What a condition says: `bool`, or `Option<T>` where the value that was waited for is wanted.
pub trait Outcome {
    /// What the wait gives.
    type Value;
    /// The value, once the condition holds.
    fn met(self) -> Option<Self::Value>;
}

impl Outcome for bool {
    type Value = ();
    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn met(self) -> Option<T> {
        self
    }
}

/// Looks at `condition` until it holds; a fault that names `what` after `limit`.
pub fn wait_until<O: Outcome>(
    limit: Duration,
    what: impl Display,
    mut condition: impl FnMut() -> O,
) -> Result<O::Value> {
    wait_for(limit, what, || Ok(condition()))
}

/// The same for a condition that can fail by itself: its fault ends the wait.
pub fn wait_for<O: Outcome>(
    limit: Duration,
    what: impl Display,
    mut condition: impl FnMut() -> Result<O>,
) -> Result<O::Value> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()?.met() {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            return Err(Fault(format!("{what}: not within {limit:?}")));
        }
        std::thread::sleep(STEP);
    }
}

/// Holds a condition to be true all the time for `span`; a fault that names `what` when it is not.
pub fn holds_for(
    span: Duration,
    what: impl Display,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if !condition()? {
            return Err(Fault(format!("{what}: no longer so after {:?}", start.elapsed())));
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}
