//! File sizes as Nushell writes them: a whole number is bytes, a string is a number with a unit.
//!
//! Units are read without regard to case, as Nushell reads them: `B`, `kB` … `EB` (powers of 1000), `KiB` … `EiB`
//! (powers of 1024).

use serde_json::Value;

use crate::number::{Quantity, quantities, scaled, whole_number};
use crate::walk::found;

const FIX: &str = "write a size such as 500kB, 10MB or 10MiB, or a whole number of bytes";

/// A value that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {fix}")]
pub struct BadSize {
    /// What is wrong, with the value that was found.
    pub problem: String,
    /// What to write in its place.
    pub fix: &'static str,
}

fn bad(problem: String) -> BadSize {
    BadSize { problem, fix: FIX }
}

/// The bytes that a JSON value means: a whole number of them, or a string with a unit (`10MB`, `1.5 MiB`).
///
/// # Errors
/// Another type, a fraction of a byte, a negative size or one over `i64::MAX`, a malformed string.
pub fn parse_size(value: &Value) -> Result<u64, BadSize> {
    match value {
        Value::Number(number) => match whole_number(value) {
            Some(bytes) if bytes < 0 => Err(bad(format!("{number} is negative"))),
            Some(bytes) => in_range(bytes, &number.to_string()),
            None => Err(bad(format!("{number} is not a whole number of bytes"))),
        },
        Value::String(text) if text.trim_start().starts_with('-') => {
            Err(bad(format!("{text:?} is negative")))
        }
        Value::String(text) => match quantities(text).as_deref() {
            Some([Quantity { unit: "", .. }]) => Err(bad(format!("{text:?} has no unit"))),
            Some([Quantity { number, unit }]) => {
                let unit =
                    unit_bytes(unit).ok_or_else(|| bad(format!("{text:?} has an unknown unit {unit:?}")))?;
                in_range(scaled(number, unit).unwrap_or(i128::MAX), text)
            }
            _ => Err(bad(format!("{text:?} is not a size"))),
        },
        other => Err(bad(format!("is {}, not a size", found(other)))),
    }
}

fn in_range(bytes: i128, text: &str) -> Result<u64, BadSize> {
    match i64::try_from(bytes).ok().and_then(|bytes| u64::try_from(bytes).ok()) {
        Some(bytes) => Ok(bytes),
        None => Err(bad(format!("{text} is too large"))),
    }
}

fn unit_bytes(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let prefix = unit.strip_suffix('b')?;
    let (prefix, base) = match prefix.strip_suffix('i') {
        Some(prefix) if !prefix.is_empty() => (prefix, 1024u64),
        _ => (prefix, 1000u64),
    };
    let power = ["", "k", "m", "g", "t", "p", "e"].iter().position(|known| *known == prefix)?;
    base.checked_pow(u32::try_from(power).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nushell_spellings_are_read() {
        for (value, bytes) in [
            (json!(10_000_000), 10_000_000),
            (json!("0B"), 0),
            (json!("10MB"), 10_000_000),
            (json!("10MiB"), 10_485_760),
            (json!("10kb"), 10_000),
            (json!(" 1.5 KiB "), 1_536),
            (json!("1_000 b"), 1_000),
            (json!("9EB"), 9_000_000_000_000_000_000),
        ] {
            assert_eq!(parse_size(&value), Ok(bytes), "{value}");
        }
    }

    #[test]
    fn others_are_refused_with_what_was_found() {
        for (value, problem) in [
            (json!(-1), "-1 is negative"),
            (json!(0.5), "0.5 is not a whole number of bytes"),
            (json!("10"), "\"10\" has no unit"),
            (json!("10M"), "\"10M\" has an unknown unit \"M\""),
            (json!("10iB"), "\"10iB\" has an unknown unit \"iB\""),
            (json!("1MB 5kB"), "\"1MB 5kB\" is not a size"),
            (json!("-1MB"), "\"-1MB\" is negative"),
            (json!("99EiB"), "99EiB is too large"),
            (json!({}), "is a record, not a size"),
        ] {
            assert_eq!(parse_size(&value).unwrap_err().problem, problem);
        }
    }
}
