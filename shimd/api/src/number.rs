//! Numbers, with and without units, as specs hold them.

use serde_json::Value;

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
