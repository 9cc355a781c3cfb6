//! The only place where wire types become Nushell values, and Nushell values become JSON.
//!
//! | on the wire | in Nushell |
//! | --- | --- |
//! | nanoseconds | `duration`, rounded as one would say it (see `measured`) |
//! | RFC 3339 text | `datetime` |
//! | pid, inode, count | `int` |
//! | a list of rows | a table |
//! | `null` | `nothing` |

use nu_protocol::{
    LabeledError, ListStream, PipelineData, PipelineMetadata, Record, ShellError, Signals, Span, Value,
    record,
};
use serde_json::Value as Json;
use shimd_api::event::{DoctorRow, EventDetail, EventRow};
use shimd_api::wire::{
    ActionRow, ChangeRow, Culprit, HealRow, InstanceRow, LogRow, RestartRow, ServiceRow, ShimInfo, SocketRow,
    StateRow, StatusRecord,
};

use crate::spells::Spell;

/// A wire type that has a form in Nushell.
pub trait ToValue {
    /// The columns that get their width first.
    const KEYS: &'static [&'static str];

    /// The value, every part of it marked with `span`.
    fn to_value(&self, span: Span) -> Value;
}

/// A table of rows, whose key columns get their width first.
pub fn table<T: ToValue>(rows: &[T], span: Span) -> PipelineData {
    PipelineData::value(list(rows, span), Some(key_columns(T::KEYS, span)))
}

/// A table whose rows come as they happen. An error is its last row.
pub fn stream<T: ToValue>(
    rows: impl Iterator<Item = Result<T, LabeledError>> + Send + 'static,
    span: Span,
) -> PipelineData {
    let rows = rows.map(move |row| match row {
        Ok(row) => row.to_value(span),
        Err(error) => Value::error(ShellError::from(error), span),
    });
    // Ctrl-C is seen to by the rows.
    PipelineData::list_stream(ListStream::new(rows, span, Signals::empty()), Some(key_columns(T::KEYS, span)))
}

/// Metadata that tells `table` which columns to give their width first.
pub fn key_columns(keys: &[&str], span: Span) -> PipelineMetadata {
    PipelineMetadata::default().with_table_width_priority_columns(span, keys)
}

fn list<T: ToValue>(rows: &[T], span: Span) -> Value {
    Value::list(rows.iter().map(|row| row.to_value(span)).collect(), span)
}

impl ToValue for HealRow {
    const KEYS: &'static [&'static str] = &["path", "outcome", "reason"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "path" => text(&self.path, span),
                "outcome" => text(self.outcome.as_str(), span),
                "reason" => maybe(self.reason.as_deref(), text, span),
            },
            span,
        )
    }
}

impl ToValue for ChangeRow {
    const KEYS: &'static [&'static str] = &["name", "change"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! { "name" => text(&self.name, span), "change" => text(&self.change, span) },
            span,
        )
    }
}

impl ToValue for StateRow {
    const KEYS: &'static [&'static str] = &["name", "status"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! { "name" => text(&self.name, span), "status" => text(self.status.as_str(), span) },
            span,
        )
    }
}

impl ToValue for ServiceRow {
    const KEYS: &'static [&'static str] = &["name", "status", "health_reason"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "name" => text(&self.name, span),
                "status" => text(self.status.as_str(), span),
                "health_reason" => maybe(self.health_reason.as_deref(), text, span),
                "pid" => maybe(self.pid, pid, span),
                "uptime" => maybe(self.uptime, measured, span),
                "restarts" => count(self.restarts, span),
                "sockets_ok" => count(self.sockets_ok.into(), span),
                "sockets" => count(self.sockets.into(), span),
            },
            span,
        )
    }
}

impl ToValue for ActionRow {
    const KEYS: &'static [&'static str] = &["name", "status", "health_reason"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "name" => text(&self.name, span),
                "status" => text(self.status.as_str(), span),
                "health_reason" => maybe(self.health_reason.as_deref(), text, span),
                "pid" => maybe(self.pid, pid, span),
                "took" => measured(self.took, span),
            },
            span,
        )
    }
}

impl ToValue for RestartRow {
    const KEYS: &'static [&'static str] = &["name", "outcome", "health_reason", "new_pid", "took"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "name" => text(&self.name, span),
                "outcome" => text(&self.outcome, span),
                "health_reason" => maybe(self.health_reason.as_deref(), text, span),
                "old_pid" => maybe(self.old_pid, pid, span),
                "new_pid" => maybe(self.new_pid, pid, span),
                "stopped_in" => maybe(self.stopped_in, measured, span),
                "ready_in" => maybe(self.ready_in, measured, span),
                "took" => measured(self.took, span),
                "cleaned" => Value::list(self.cleaned.iter().map(|path| text(path, span)).collect(), span),
                "killed" => pids(&self.killed, span),
                "sockets" => list(&self.sockets, span),
            },
            span,
        )
    }
}

impl ToValue for SocketRow {
    const KEYS: &'static [&'static str] = &["service", "socket", "verdict", "reason"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "service" => maybe(self.service.as_deref(), text, span),
                "socket" => text(&self.socket, span),
                "path" => text(&self.path, span),
                "verdict" => text(&self.verdict, span),
                "reason" => maybe(self.reason.as_deref(), text, span),
                "pid" => maybe(self.pid, pid, span),
                "inode" => maybe(self.inode, count, span),
                "pending" => maybe(self.pending.map(u64::from), count, span),
                "backlog" => maybe(self.backlog.map(u64::from), count, span),
                "since" => maybe(self.since.as_deref(), time, span),
                "culprit" => self.culprit.as_ref().map_or_else(|| Value::nothing(span), |c| culprit(c, span)),
                "relinked" => count(self.relinked, span),
            },
            span,
        )
    }
}

impl ToValue for StatusRecord {
    const KEYS: &'static [&'static str] = &[];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "name" => text(&self.name, span),
                "status" => text(self.status.as_str(), span),
                "health_reason" => maybe(self.health_reason.as_deref(), text, span),
                "pid" => maybe(self.pid, pid, span),
                "uptime" => maybe(self.uptime, measured, span),
                "restarts" => count(self.restarts, span),
                "sockets_ok" => count(self.sockets_ok.into(), span),
                "sockets" => list(&self.sockets, span),
                "spec" => spec(&self.spec, span),
                "instance" => self.instance.as_ref().map_or_else(|| Value::nothing(span), |i| instance(i, span)),
            },
            span,
        )
    }
}

impl ToValue for ShimInfo {
    const KEYS: &'static [&'static str] = &[];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "pid" => pid(self.pid, span),
                "version" => text(&self.version, span),
                "uptime" => measured(self.uptime, span),
                "services" => count(self.services, span),
                "socket" => text(&self.socket, span),
                "home" => text(&self.home, span),
                "socket_root" => text(&self.socket_root, span),
                "troubles" => Value::list(self.troubles.iter().map(|t| text(t, span)).collect(), span),
            },
            span,
        )
    }
}

impl ToValue for EventRow {
    const KEYS: &'static [&'static str] = &["time", "service", "kind", "detail"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "time" => time(&self.time, span),
                "service" => maybe(self.service.as_deref(), text, span),
                "kind" => text(self.kind.as_str(), span),
                "detail" => detail(&self.detail, span),
            },
            span,
        )
    }
}

impl ToValue for Spell {
    const KEYS: &'static [&'static str] = &["socket", "verdict", "from", "lasted"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "socket" => text(&self.socket, span),
                "verdict" => text(&self.verdict, span),
                "from" => Value::date(self.from.fixed_offset(), span),
                "lasted" => measured(self.lasted(), span),
                "reason" => maybe(self.reason.as_deref(), text, span),
                "culprit" => self.culprit.as_ref().map_or_else(|| Value::nothing(span), |c| culprit(c, span)),
            },
            span,
        )
    }
}

impl ToValue for LogRow {
    const KEYS: &'static [&'static str] = &["time", "stream", "line"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "time" => maybe(self.time.as_deref(), time, span),
                "stream" => text(&self.stream, span),
                "line" => text(&self.line, span),
            },
            span,
        )
    }
}

impl ToValue for DoctorRow {
    const KEYS: &'static [&'static str] = &["check", "ok", "detail"];

    fn to_value(&self, span: Span) -> Value {
        Value::record(
            record! {
                "check" => text(&self.check, span),
                "ok" => Value::bool(self.ok, span),
                "detail" => text(&self.detail, span),
                "help" => maybe(self.help.as_deref(), text, span),
            },
            span,
        )
    }
}

/// Only what applies.
fn detail(detail: &EventDetail, span: Span) -> Value {
    let mut record = Record::new();
    let texts = [
        ("socket", &detail.socket),
        ("path", &detail.path),
        ("verdict", &detail.verdict),
        ("status", &detail.status),
        ("was", &detail.was),
    ];
    for (column, cell) in texts {
        if let Some(cell) = cell {
            record.push(column, text(cell, span));
        }
    }
    if let Some(lasted) = detail.lasted {
        record.push("lasted", measured(lasted, span));
    }
    if let Some(reason) = &detail.reason {
        record.push("reason", text(reason, span));
    }
    if let Some(id) = detail.pid {
        record.push("pid", pid(id, span));
    }
    if let Some(who) = &detail.culprit {
        record.push("culprit", culprit(who, span));
    }
    Value::record(record, span)
}

fn culprit(culprit: &Culprit, span: Span) -> Value {
    Value::record(
        record! {
            "pid" => pid(culprit.pid, span),
            "name" => text(&culprit.name, span),
            "exe" => maybe(culprit.exe.as_deref(), text, span),
            "uid" => maybe(culprit.uid.map(u64::from), count, span),
        },
        span,
    )
}

fn instance(instance: &InstanceRow, span: Span) -> Value {
    Value::record(
        record! {
            "generation" => count(instance.generation, span),
            "pid" => pid(instance.pid, span),
            "started" => time(&instance.started, span),
            "boot_id" => text(&instance.boot_id, span),
            "cgroup" => maybe(instance.cgroup.as_deref(), text, span),
            "pids" => pids(&instance.pids, span),
        },
        span,
    )
}

fn maybe<T>(value: Option<T>, show: impl FnOnce(T, Span) -> Value, span: Span) -> Value {
    value.map_or_else(|| Value::nothing(span), |value| show(value, span))
}

fn text(text: &str, span: Span) -> Value {
    Value::string(text, span)
}

/// A measured duration. Nushell shows every unit down to the nanosecond, which is noise in the reader's way: two units
/// will do, and whole seconds from a minute on.
fn measured(ns: i64, span: Span) -> Value {
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

fn pid(pid: i32, span: Span) -> Value {
    Value::int(pid.into(), span)
}

fn pids(pids: &[i32], span: Span) -> Value {
    Value::list(pids.iter().map(|id| pid(*id, span)).collect(), span)
}

fn count(count: u64, span: Span) -> Value {
    Value::int(i64::try_from(count).unwrap_or(i64::MAX), span)
}

/// A time of the wire; text that is no time stays text.
pub fn time(rfc3339: &str, span: Span) -> Value {
    rfc3339.parse().map_or_else(|_| text(rfc3339, span), |time| Value::date(time, span))
}

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
