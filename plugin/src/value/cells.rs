//! The cells of rows: what has one form wherever it stands.

use nu_protocol::{Span, Value};

/// What is not there is nothing.
pub fn maybe<T>(value: Option<T>, show: impl FnOnce(T, Span) -> Value, span: Span) -> Value {
    value.map_or_else(|| Value::nothing(span), |value| show(value, span))
}

/// Text.
pub fn text(text: &str, span: Span) -> Value {
    Value::string(text, span)
}

/// A measured duration. Nushell shows every unit down to the nanosecond, which is noise in the reader's way: two units
/// will do, and whole seconds from a minute on.
pub fn measured(ns: i64, span: Span) -> Value {
    Value::duration(readable(ns), span)
}

/// What is left of a duration when it is rounded so.
pub fn readable(ns: i64) -> i64 {
    let unit = match ns {
        60_000_000_000.. => 1_000_000_000,
        1_000_000_000..60_000_000_000 => 1_000_000,
        1_000_000..1_000_000_000 => 1_000,
        ..1_000_000 => 1,
    };
    ns / unit * unit
}

/// A process.
pub fn pid(pid: i32, span: Span) -> Value {
    Value::int(pid.into(), span)
}

/// Processes.
pub fn pids(pids: &[i32], span: Span) -> Value {
    Value::list(pids.iter().map(|id| pid(*id, span)).collect(), span)
}

/// A number of things.
pub fn count(count: u64, span: Span) -> Value {
    Value::int(i64::try_from(count).unwrap_or(i64::MAX), span)
}

/// A time of the wire; text that is no time stays text.
pub fn time(rfc3339: &str, span: Span) -> Value {
    rfc3339.parse().map_or_else(|_| text(rfc3339, span), |time| Value::date(time, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_dates_and_odd_text_stays_text() {
        let value = time("2026-01-02T03:04:05.678Z", Span::test_data());
        assert_eq!(value.as_date().unwrap().to_rfc3339(), "2026-01-02T03:04:05.678+00:00");
        assert_eq!(time("soon", Span::test_data()), Value::test_string("soon"));
    }

    #[test]
    fn measured_durations_read_well() {
        let shown = |ns| measured(ns, Span::test_data()).to_expanded_string("", &Default::default());
        assert_eq!(shown(850_123), "850µs 123ns");
        assert_eq!(shown(26_610_205), "26ms 610µs");
        assert_eq!(shown(7_503_442_001), "7sec 503ms");
        assert_eq!(shown(7_384_999_999_999), "2hr 3min 4sec");
    }

    #[test]
    fn counts_beyond_an_int_are_capped() {
        assert_eq!(count(u64::MAX, Span::test_data()), Value::test_int(i64::MAX));
    }
}
