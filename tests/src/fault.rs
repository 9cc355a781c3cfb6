//! Why a scenario failed, in words.

use std::fmt;

/// A failed step. Any error becomes one with `?`; [`Context`] adds what was being done.
#[derive(Debug)]
pub struct Fault(pub String);

/// The result of a step.
pub type Result<T = ()> = std::result::Result<T, Fault>;

impl Fault {
    /// A fault with these words.
    pub fn new(words: impl Into<String>) -> Fault {
        Fault(words.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// `Fault` is no `std::error::Error` itself: that is what lets every error turn into one.
impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault(error.to_string())
    }
}

/// Adds what was being done to whatever went wrong.
pub trait Context<T> {
    /// `doing` is put before the words of the error.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Fault(format!("{doing}: {error}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Fault(doing.to_string()))
    }
}

/// Fails the step, with words, unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::Fault::new(format!($($words)+)));
        }
    };
}
