//! JSON as Nushell values and back: specs, whose durations and sizes are kept as such.

use nu_protocol::{Record, Span, Value};
use serde_json::Value as Json;

use super::cells::text;

/// The fields of a spec that are durations, as whole nanoseconds or in words.
const DURATIONS: &[&[&str]] = &[
    &["ready", "timeout"],
    &["stop", "timeout"],
    &["restart", "delay"],
    &["restart", "max_delay"],
    &["restart", "window"],
    &["settle"],
    &["wedged_after"],
];

/// The fields of a spec that are file sizes.
const SIZES: &[&[&str]] = &[&["log", "max_size"]];

/// A spec as a record: its whole numbers of nanoseconds and bytes become durations and file sizes, so
/// that they read as they were written; all else stays as it is. `proc register` takes it back unchanged.
pub fn spec(spec: &Json, span: Span) -> Value {
    from_json(spec, &mut Vec::new(), span)
}

fn from_json<'a>(json: &'a Json, at: &mut Vec<&'a str>, span: Span) -> Value {
    match json {
        Json::Null => Value::nothing(span),
        Json::Bool(value) => Value::bool(*value, span),
        Json::String(value) => text(value, span),
        Json::Number(number) => match number.as_i64() {
            Some(value) if DURATIONS.contains(&at.as_slice()) => Value::duration(value, span),
            Some(value) if SIZES.contains(&at.as_slice()) => Value::filesize(value, span),
            Some(value) => Value::int(value, span),
            None => Value::float(number.as_f64().unwrap_or(f64::NAN), span),
        },
        Json::Array(items) => {
            at.push("[]");
            let items = items.iter().map(|item| from_json(item, at, span)).collect();
            at.pop();
            Value::list(items, span)
        }
        Json::Object(fields) => {
            let mut record = Record::with_capacity(fields.len());
            for (field, value) in fields {
                at.push(field);
                record.push(field, from_json(value, at, span));
                at.pop();
            }
            Value::record(record, span)
        }
    }
}

/// A Nushell value that JSON has no form for.
#[derive(Debug, PartialEq)]
pub struct Unfit {
    /// Where it lies in the value, as `env.HOOK` or `sockets[0].path`; empty for the value itself.
    pub field: String,
    /// What it is, as `closure`.
    pub found: String,
    /// Where it was written.
    pub span: Span,
}

/// A Nushell value as JSON, in the way of Nushell's own `to json`: durations are whole nanoseconds, file
/// sizes whole bytes, times RFC 3339.
///
/// # Errors
/// Names the field that holds a closure, binary data, a range, or another value that JSON has no form for.
pub fn to_json(value: &Value) -> Result<Json, Unfit> {
    json_at(value, "")
}

fn json_at(value: &Value, at: &str) -> Result<Json, Unfit> {
    Ok(match value {
        Value::Nothing { .. } => Json::Null,
        Value::Bool { val, .. } => Json::from(*val),
        Value::Int { val, .. } => Json::from(*val),
        Value::Float { val, .. } if val.is_finite() => Json::from(*val),
        Value::String { val, .. } | Value::Glob { val, .. } => Json::from(val.as_str()),
        Value::Duration { val, .. } => Json::from(*val),
        Value::Filesize { val, .. } => Json::from(val.get()),
        Value::Date { val, .. } => Json::from(val.to_rfc3339()),
        Value::List { vals, .. } => Json::Array(
            vals.iter()
                .enumerate()
                .map(|(index, item)| json_at(item, &format!("{at}[{index}]")))
                .collect::<Result<_, _>>()?,
        ),
        Value::Record { val, .. } => Json::Object(
            val.iter()
                .map(|(field, item)| {
                    let at = if at.is_empty() { field.clone() } else { format!("{at}.{field}") };
                    Ok((field.clone(), json_at(item, &at)?))
                })
                .collect::<Result<_, _>>()?,
        ),
        other => {
            return Err(Unfit { field: at.into(), found: other.get_type().to_string(), span: other.span() });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;
    use nu_protocol::record;
    use serde_json::json;

    #[test]
    fn a_spec_comes_back_as_it_was_given() {
        let given = json!({
            "name": "web", "exec": ["/bin/web", "--port", "80"], "settle": 100_000_000,
            "ready": {"timeout": 30_000_000_000_i64, "notify": true}, "stop": {"timeout": "10sec"},
            "log": {"max_size": 10_000_000}, "timeout": 5, "x-mine": {"deep": [1, 2.5, null, {"settle": 3}]},
        });
        let value = spec(&given, Span::test_data());
        assert_eq!(at(&value, &["settle"]), Value::test_duration(100_000_000));
        assert_eq!(at(&value, &["ready", "timeout"]), Value::test_duration(30_000_000_000));
        assert_eq!(at(&value, &["stop", "timeout"]), Value::test_string("10sec"));
        assert_eq!(at(&value, &["log", "max_size"]), Value::test_filesize(10_000_000));
        assert_eq!(at(&value, &["timeout"]), Value::test_int(5), "a field of another's is left alone");
        assert_eq!(to_json(&value), Ok(given));
    }

    #[test]
    fn what_json_cannot_hold_is_named() {
        let value = Value::test_record(record! {
            "name" => Value::test_string("web"),
            "env" => Value::test_record(record! {
                "LIST" => Value::test_list(vec![Value::test_int(1), Value::test_binary(vec![1, 2])]),
            }),
        });
        let unfit = to_json(&value).unwrap_err();
        assert_eq!((unfit.field.as_str(), unfit.found.as_str()), ("env.LIST[1]", "binary"));
        assert_eq!(to_json(&Value::test_float(f64::NAN)).unwrap_err().found, "float");
    }
}
