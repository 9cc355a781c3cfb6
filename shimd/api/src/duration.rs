//! Durations as Nushell writes them (CONTRACT "Spec"): a whole number is nanoseconds, a string is numbers with units.
//!
//! | unit | is |
//! | --- | --- |
//! | `ns`, `us` or `µs`, `ms` | nanosecond, microsecond, millisecond |
//! | `sec` or `s`, `min` or `m`, `hr` or `h` | second, minute, hour |
//! | `day` or `d`, `wk` or `w` | 24 hours, 7 days |
//!
//! A duration fits a signed 64-bit count of nanoseconds (292 years), as Nushell's does, and is never negative here.

use std::time::Duration;

use serde_json::Value;

use crate::number::{Quantity, quantities, scaled, whole_number};
use crate::walk::found;

/// The units, longest first, with their nanoseconds; the first spelling of each is the one that is written.
const UNITS: [(&[&str], u64); 8] = [
    (&["wk", "w"], 604_800_000_000_000),
    (&["day", "d"], 86_400_000_000_000),
    (&["hr", "h"], 3_600_000_000_000),
    (&["min", "m"], 60_000_000_000),
    (&["sec", "s"], 1_000_000_000),
    (&["ms"], 1_000_000),
    (&["us", "\u{b5}s", "\u{3bc}s"], 1_000),
    (&["ns"], 1),
];

const FIX: &str = "write a duration such as 500ms, 10sec or 1min 30sec, or a whole number of nanoseconds";

/// A value that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {fix}")]
pub struct BadDuration {
    /// What is wrong, with the value that was found.
    pub problem: String,
    /// What to write in its place.
    pub fix: &'static str,
}

fn bad(problem: String) -> BadDuration {
    BadDuration { problem, fix: FIX }
}

/// The duration that a JSON value means: a whole number of nanoseconds, or a string ([`parse_duration_text`]).
///
/// # Errors
/// Another type, a fraction of a nanosecond, a negative or too long duration, a malformed string.
pub fn parse_duration(value: &Value) -> Result<Duration, BadDuration> {
    match value {
        Value::String(text) => parse_duration_text(text),
        Value::Number(number) => match whole_number(value) {
            Some(nanos) if nanos < 0 => Err(bad(format!("{number} is negative"))),
            Some(nanos) => in_range(nanos, &number.to_string()),
            None => Err(bad(format!("{number} is not a whole number of nanoseconds"))),
        },
        other => Err(bad(format!("is {}, not a duration", found(other)))),
    }
}

/// The duration that a text means: one or more numbers with units, added up (`1min 30sec`, `1.5hr`).
///
/// # Errors
/// No number, no unit or an unknown one, a negative or too long duration.
pub fn parse_duration_text(text: &str) -> Result<Duration, BadDuration> {
    if text.trim_start().starts_with('-') {
        return Err(bad(format!("{text:?} is negative")));
    }
    let parts = quantities(text).ok_or_else(|| bad(format!("{text:?} is not a duration")))?;
    let mut total: i128 = 0;
    for Quantity { number, unit } in parts {
        let nanos = match UNITS.iter().find(|(spellings, _)| spellings.contains(&unit)) {
            Some((_, nanos)) => *nanos,
            None if unit.is_empty() => return Err(bad(format!("{text:?} has no unit after {number}"))),
            None => return Err(bad(format!("{text:?} has an unknown unit {unit:?}"))),
        };
        let part = scaled(number, nanos).ok_or_else(|| bad(format!("{text:?} is longer than 292 years")))?;
        total = total.saturating_add(part);
    }
    in_range(total, text)
}

fn in_range(nanos: i128, text: &str) -> Result<Duration, BadDuration> {
    match i64::try_from(nanos).ok().and_then(|nanos| u64::try_from(nanos).ok()) {
        Some(nanos) => Ok(Duration::from_nanos(nanos)),
        None => Err(bad(format!("{text} is longer than 292 years"))),
    }
}

/// A duration in Nushell's words, exact: `1min 30sec`; `0ns` for none.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut words = Vec::new();
    for (spellings, nanos) in UNITS {
        let nanos = u128::from(nanos);
        if let Some(unit) = spellings.first()
            && rest >= nanos
        {
            words.push(format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    if words.is_empty() { "0ns".into() } else { words.join(" ") }
}

/// A duration as it travels on the wire: whole nanoseconds, at most `i64::MAX`.
pub fn to_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn nushell_spellings_are_read() {
        for (value, nanos) in [
            (json!(0), 0),
            (json!(30_000_000_000i64), 30_000_000_000),
            (json!(1e9), 1_000_000_000),
            (json!("500ms"), 500_000_000),
            (json!("10sec"), 10_000_000_000),
            (json!(" 1min 30sec "), 90_000_000_000),
            (json!("1min30s"), 90_000_000_000),
            (json!("1.5hr"), 5_400_000_000_000),
            (json!("0.1ms"), 100_000),
            (json!("1_000ns"), 1_000),
            (json!("3us"), 3_000),
            (json!("3\u{b5}s"), 3_000),
            (json!("3\u{3bc}s"), 3_000),
            (json!("2 day"), 172_800_000_000_000),
            (json!("1wk 1d 1h 1m 1s"), 694_861_000_000_000),
        ] {
            assert_eq!(parse_duration(&value), Ok(Duration::from_nanos(nanos)), "{value}");
        }
    }

    #[test]
    fn others_are_refused_with_what_was_found() {
        for (value, problem) in [
            (json!(-1), "-1 is negative"),
            (json!(-1.0), "-1.0 is negative"),
            (json!(1.5), "1.5 is not a whole number of nanoseconds"),
            (json!(u64::MAX), "18446744073709551615 is longer than 292 years"),
            (json!("-5sec"), "\"-5sec\" is negative"),
            (json!("5"), "\"5\" has no unit after 5"),
            (json!("5sec 3"), "\"5sec 3\" has no unit after 3"),
            (json!("5 fortnights"), "\"5 fortnights\" has an unknown unit \"fortnights\""),
            (json!("1min -30sec"), "\"1min -30sec\" is not a duration"),
            (json!("1.2.3sec"), "\"1.2.3sec\" is not a duration"),
            (json!("sec"), "\"sec\" is not a duration"),
            (json!(""), "\"\" is not a duration"),
            (json!("99999999wk"), "99999999wk is longer than 292 years"),
            (json!("99999999999999999999999ns"), "\"99999999999999999999999ns\" is longer than 292 years"),
            (json!(true), "is a boolean (true), not a duration"),
            (json!([1]), "is a list, not a duration"),
        ] {
            assert_eq!(parse_duration(&value).unwrap_err().problem, problem);
        }
    }

    #[test]
    fn formatted_is_what_nushell_would_show() {
        assert_eq!(format_duration(Duration::ZERO), "0ns");
        assert_eq!(format_duration(Duration::from_millis(90_500)), "1min 30sec 500ms");
    }

    proptest! {
        #[test]
        fn a_duration_survives_its_text_and_its_number(nanos in 0..=i64::MAX) {
            let duration = Duration::from_nanos(nanos as u64);
            prop_assert_eq!(parse_duration_text(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_duration(&json!(to_nanos(duration))), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse_duration_text(&text);
            let _ = crate::size::parse_size(&json!(text));
        }

        #[test]
        fn no_near_miss_panics(text in "[-0-9._ nsumhdwkMGTPEiB\u{b5}]{0,40}") {
            let _ = parse_duration_text(&text);
            let _ = crate::size::parse_size(&json!(text));
        }
    }
}
