//! The rows and records of the wire, column by column.

use nu_protocol::{Record, Span, Value, record};
use shimd_api::event::{DoctorRow, EventDetail, EventRow};
use shimd_api::wire::{
    ActionRow, ChangeRow, Culprit, HealRow, InstanceRow, LogRow, RestartRow, ServiceRow, ShimInfo, SocketRow,
    StateRow, StatusRecord,
};

use super::ToValue;
use super::cells::{count, maybe, measured, pid, pids, text, time};
use super::json::spec;
use super::list;
use crate::spells::Spell;

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
