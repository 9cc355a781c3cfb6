//! File sizes as Nushell writes them: a whole number is bytes, a string is a number with a unit.
//!
//! Units are read without regard to case, as Nushell reads them: `B`, `kB` … `EB` (powers of 1000), `KiB` … `EiB`
//! (powers of 1024).

use serde_json::Value;

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
        other => Err(bad(format!("is {}, not a size", crate::parse::found(other)))),
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

/// A number as written, and the letters after it.
pub(crate) struct Quantity<'a> {
    pub(crate) number: &'a str,
    pub(crate) unit: &'a str,
}

/// The numbers and units of a text, in their order; `None` where it is not made of these, or is empty.
pub(crate) fn quantities(text: &str) -> Option<Vec<Quantity<'_>>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || matches!(c, '.' | '_'));
        let (unit, after) = split(after.trim_start(), char::is_alphabetic);
        if !number.starts_with(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return None;
        }
        parts.push(Quantity { number, unit });
        rest = after.trim_start();
    }
    (!parts.is_empty()).then_some(parts)
}

fn split(text: &str, inside: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !inside(c)).unwrap_or(text.len()))
}

/// `number` (digits, at most one point, `_` between digits) times `unit`, what is under one whole dropped; `None` where
/// it has more digits than a 64-bit number can mean.
pub(crate) fn scaled(number: &str, unit: u64) -> Option<i128> {
    let plain: String = number.chars().filter(|c| *c != '_').collect();
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let whole: u64 = whole.parse().ok()?;
    // 18 digits are finer than one part in the largest unit.
    let fraction: String = fraction.chars().take(18).collect();
    let parts: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
    let unit = i128::from(unit);
    Some(i128::from(whole) * unit + i128::from(parts) * unit / scale)
}

/// The whole number that a JSON number is; `1e9` is one too.
pub(crate) fn whole_number(value: &Value) -> Option<i128> {
    if let Some(number) = value.as_i64() {
        return Some(number.into());
    }
    if let Some(number) = value.as_u64() {
        return Some(number.into());
    }
    let number = value.as_f64()?;
    // Within the range in which a float counts exactly.
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i128)
}
