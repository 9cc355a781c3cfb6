//! What the flags of a call hold.
//!
//! A null is as good as no flag, as it is for the switches of Nushell's own commands (`ls --all=$nothing`) and for every
//! flag of a command that a user defines: so a wrapper passes on what it was given or not given.

use nu_plugin::EvaluatedCall;
use nu_protocol::{LabeledError, Spanned, Value};

use crate::error;

/// The flags of a call.
pub trait Flags {
    /// Whether a switch is on.
    ///
    /// # Errors
    /// Nushell's own, where it is neither a bool nor null.
    fn switch(&self, name: &str) -> Result<bool, LabeledError>;

    /// What a flag holds, a whole number or a duration, that may not be negative.
    ///
    /// # Errors
    /// `proc::bad_input` labels it, and shows what could have been meant. Nushell's own, where it is of another type.
    fn not_negative(&self, name: &str, help: &str) -> Result<Option<i64>, LabeledError>;
}

impl Flags for EvaluatedCall {
    fn switch(&self, name: &str) -> Result<bool, LabeledError> {
        Ok(!is_null(self, name) && self.has_flag(name)?)
    }

    fn not_negative(&self, name: &str, help: &str) -> Result<Option<i64>, LabeledError> {
        if is_null(self, name) {
            return Ok(None);
        }
        let given: Option<Spanned<i64>> = self.get_flag(name)?;
        match given {
            Some(given) if given.item < 0 => {
                let problem = format!("--{name} is negative");
                Err(error::bad_input(problem, "there is no such past", given.span, help))
            }
            given => Ok(given.map(|given| given.item)),
        }
    }
}

fn is_null(call: &EvaluatedCall, name: &str) -> bool {
    call.get_flag_value(name).is_some_and(|value| matches!(value, Value::Nothing { .. }))
}
