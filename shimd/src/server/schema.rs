//! The JSON Schema of every row and record of `shimd_api`, as tables: the one place where it is written down.
//!
//! A test below holds each table against the serde type of the same name.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use shimd_api::event::EventKind;

/// The type of a param or field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    /// A whole number, zero or more.
    Count,
    /// A whole number of nanoseconds.
    Nanoseconds,
    Pid,
    Text,
    Texts,
    Pids,
    /// An RFC 3339 string.
    Time,
    /// A word of `shimd_api::wire::Status`.
    Status,
    /// A word of `shimd_api::event::EventKind`.
    EventKind,
    EventKinds,
    /// A word of `shimd_api::wire::HealOutcome`.
    HealOutcome,
    /// A service spec: its fields are the contract's, and unknown ones are kept.
    Spec,
    Specs,
    /// A record of this file.
    Record(&'static str),
    /// Records of this file.
    Records(&'static str),
    /// An OpenRPC document.
    OpenRpc,
}

/// A field of a record.
pub(super) struct Field {
    name: &'static str,
    of: Type,
    without: Without,
    about: &'static str,
}

/// How a field says that its value is not known, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// It always has one.
    Never,
    /// It is null.
    Null,
    /// It is left out.
    LeftOut,
}

const fn field(name: &'static str, of: Type, about: &'static str) -> Field {
    Field { name, of, without: Without::Never, about }
}

const fn maybe(name: &'static str, of: Type, about: &'static str) -> Field {
    Field { name, of, without: Without::Null, about }
}

const fn optional(name: &'static str, of: Type, about: &'static str) -> Field {
    Field { name, of, without: Without::LeftOut, about }
}

const OUTCOME_REASON: Field = maybe("health_reason", Type::Text, "why it is not what was asked for");

/// A record's name and fields.
pub(super) const RECORDS: &[(&str, &[Field])] = &[
    (
        "ChangeRow",
        &[
            field("name", Type::Text, "the service"),
            field("change", Type::Text, "created, updated, unchanged or deleted"),
        ],
    ),
    (
        "ServiceRow",
        &[
            field("name", Type::Text, "the service"),
            field("status", Type::Status, "its state"),
            maybe("health_reason", Type::Text, "why it is not running"),
            maybe("pid", Type::Pid, "the main process of the live instance"),
            maybe("uptime", Type::Nanoseconds, "since the live instance was spawned"),
            field("restarts", Type::Count, "spawns since it was last told to start"),
            field("sockets_ok", Type::Count, "declared sockets that are ok"),
            field("sockets", Type::Count, "declared sockets"),
        ],
    ),
    (
        "StatusRecord",
        &[
            field("name", Type::Text, "the service"),
            field("status", Type::Status, "its state"),
            maybe("health_reason", Type::Text, "why it is not running"),
            maybe("pid", Type::Pid, "the main process of the live instance"),
            maybe("uptime", Type::Nanoseconds, "since the live instance was spawned"),
            field("restarts", Type::Count, "spawns since it was last told to start"),
            field("sockets_ok", Type::Count, "declared sockets that are ok"),
            field("sockets", Type::Records("SocketRow"), "the declared sockets"),
            field("spec", Type::Spec, "the spec as it was given"),
            maybe("instance", Type::Record("InstanceRow"), "the live instance"),
        ],
    ),
    (
        "InstanceRow",
        &[
            field("generation", Type::Count, "counts spawns of this service, from 1"),
            field("pid", Type::Pid, "the main process"),
            field("started", Type::Time, "when it was spawned"),
            field("boot_id", Type::Text, "the boot in which it was spawned"),
            maybe("cgroup", Type::Text, "its cgroup"),
            field("pids", Type::Pids, "every process of the instance"),
        ],
    ),
    (
        "SpecRecord",
        &[
            field("spec", Type::Spec, "the spec"),
            field("spec_json", Type::Text, "the spec, byte for byte as it was given"),
        ],
    ),
    (
        "ActionRow",
        &[
            field("name", Type::Text, "the service"),
            field("status", Type::Status, "the state it settled in"),
            OUTCOME_REASON,
            maybe("pid", Type::Pid, "the main process"),
            field("took", Type::Nanoseconds, "from the request to the settled state"),
        ],
    ),
    (
        "RestartRow",
        &[
            field("name", Type::Text, "the service"),
            field("outcome", Type::Text, "restarted or failed"),
            OUTCOME_REASON,
            maybe("old_pid", Type::Pid, "the main process before"),
            maybe("new_pid", Type::Pid, "the main process now"),
            maybe("stopped_in", Type::Nanoseconds, "until the old process tree was gone"),
            maybe("ready_in", Type::Nanoseconds, "from the spawn until every socket was ok"),
            field("took", Type::Nanoseconds, "in all"),
            field("cleaned", Type::Texts, "paths that were removed"),
            field("killed", Type::Pids, "processes outside the instance that were ended"),
            field("sockets", Type::Records("SocketRow"), "the sockets at the end"),
        ],
    ),
    (
        "StateRow",
        &[field("name", Type::Text, "the service"), field("status", Type::Status, "its state after")],
    ),
    (
        "SocketRow",
        &[
            maybe("service", Type::Text, "the service that declares it"),
            field("socket", Type::Text, "the declared name"),
            field("path", Type::Text, "the absolute path"),
            field(
                "verdict",
                Type::Text,
                "ok, dangling, replaced, foreign, stale, not-socket, absent, unknown",
            ),
            maybe("reason", Type::Text, "the verdict's reason in words"),
            maybe("pid", Type::Pid, "the listener's process"),
            maybe("inode", Type::Count, "the kernel socket's inode"),
            maybe("pending", Type::Count, "connections that wait (bytes for a datagram socket)"),
            maybe("backlog", Type::Count, "the queue's size"),
            maybe("since", Type::Time, "since when the verdict holds"),
            maybe("culprit", Type::Record("Culprit"), "who removed or replaced the dentry"),
            field("relinked", Type::Count, "how often the dentry was put back"),
        ],
    ),
    (
        "HealRow",
        &[
            field("path", Type::Text, "the absolute path"),
            field("outcome", Type::HealOutcome, "what was done"),
            maybe("reason", Type::Text, "how it stands, or why nothing was done"),
        ],
    ),
    (
        "Culprit",
        &[
            field("pid", Type::Pid, "its process id at the time"),
            field("name", Type::Text, "its command name"),
            maybe("exe", Type::Text, "its executable"),
            maybe("uid", Type::Count, "its user id"),
        ],
    ),
    (
        "LogRow",
        &[
            maybe("time", Type::Time, "when the line was written, to about 100 ms"),
            field("stream", Type::Text, "out or err"),
            field("line", Type::Text, "the line"),
        ],
    ),
    (
        "Progress",
        &[
            field("services", Type::Records("ProgressRow"), "how each service of the request stands"),
            field("elapsed", Type::Nanoseconds, "since the request"),
        ],
    ),
    (
        "ProgressRow",
        &[
            field("name", Type::Text, "the service"),
            field("status", Type::Status, "its state now"),
            field("settled", Type::Bool, "whether that is its state in the answer"),
            maybe("took", Type::Nanoseconds, "since its turn began, until it settled; null before its turn"),
        ],
    ),
    (
        "EventRow",
        &[
            field("id", Type::Count, "counts the events of this store, from 1; 0 for a gap"),
            field("time", Type::Time, "when"),
            maybe("service", Type::Text, "the service; null for the daemon itself"),
            field("kind", Type::EventKind, "what kind"),
            field("detail", Type::Record("EventDetail"), "the rest"),
        ],
    ),
    (
        "EventDetail",
        &[
            optional("socket", Type::Text, "the socket as declared"),
            optional("path", Type::Text, "its absolute path"),
            optional("verdict", Type::Text, "the verdict from now on"),
            optional("status", Type::Text, "the state from now on"),
            optional("was", Type::Text, "the verdict, or state, until now"),
            optional("lasted", Type::Nanoseconds, "how long that lasted"),
            optional("reason", Type::Text, "why, in words"),
            optional("pid", Type::Pid, "the listener's process, or the service's main process"),
            optional("culprit", Type::Record("Culprit"), "who removed or replaced the dentry"),
        ],
    ),
    (
        "DoctorRow",
        &[
            field("check", Type::Text, "what was looked at"),
            field("ok", Type::Bool, "whether all is well"),
            field("detail", Type::Text, "what was found"),
            maybe("help", Type::Text, "what to do"),
        ],
    ),
    (
        "ShimInfo",
        &[
            field("pid", Type::Pid, "the daemon's process"),
            field("version", Type::Text, "its version"),
            field("uptime", Type::Nanoseconds, "since it came up"),
            field("services", Type::Count, "registered services"),
            field("socket", Type::Text, "the control socket"),
            field("home", Type::Text, "the folder of its state"),
            field("socket_root", Type::Text, "where sockets declared by a basename live"),
            field("troubles", Type::Texts, "what it could not do"),
        ],
    ),
];

impl Type {
    /// The schema.
    pub(super) fn schema(self) -> Value {
        match self {
            Type::Bool => json!({"type": "boolean"}),
            Type::Count => json!({"type": "integer", "minimum": 0}),
            Type::Nanoseconds => json!({"type": "integer", "description": "nanoseconds"}),
            Type::Pid => json!({"type": "integer", "minimum": 1}),
            Type::Text => json!({"type": "string"}),
            Type::Texts => json!({"type": "array", "items": Type::Text.schema()}),
            Type::Pids => json!({"type": "array", "items": Type::Pid.schema()}),
            Type::Time => json!({"type": "string", "format": "date-time"}),
            Type::Status => json!({
                "type": "string", "enum": ["inactive", "starting", "running", "stopping", "backoff", "failed"]
            }),
            Type::EventKind => json!({"type": "string", "enum": EventKind::ALL.map(EventKind::as_str)}),
            Type::HealOutcome => json!({"type": "string", "enum": ["relinked", "bridged", "not_possible"]}),
            Type::EventKinds => json!({"type": "array", "items": Type::EventKind.schema()}),
            Type::Spec => json!({
                "type": "object",
                "required": ["name", "exec"],
                "properties": {"name": Type::Text.schema(), "exec": Type::Texts.schema()},
                "additionalProperties": true
            }),
            Type::Specs => json!({"type": "array", "items": Type::Spec.schema()}),
            Type::Record(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
            Type::Records(name) => json!({"type": "array", "items": Type::Record(name).schema()}),
            Type::OpenRpc => json!({
                "$ref": "https://raw.githubusercontent.com/open-rpc/meta-schema/master/schema.json"
            }),
        }
    }

    /// What a value of this type has to be, in words, if `value` is not.
    ///
    /// A spec is left to the handler, whose errors name its fields.
    pub(super) fn refuses(self, value: &Value) -> Option<&'static str> {
        let texts = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_string));
        match self {
            Type::Bool => (!value.is_boolean()).then_some("must be true or false"),
            Type::Count | Type::Nanoseconds | Type::Pid => {
                (!value.is_u64()).then_some("must be a whole number, zero or more")
            }
            Type::Text | Type::Time | Type::Status | Type::EventKind | Type::HealOutcome => {
                (!value.is_string()).then_some("must be a string")
            }
            Type::EventKinds => {
                let known = Vec::<EventKind>::deserialize(value).is_ok();
                (!known).then_some("must be a list of verdict, culprit, state, control, gap")
            }
            Type::Texts => (!texts(value)).then_some("must be a list of strings"),
            Type::Specs | Type::Pids | Type::Records(_) => (!value.is_array()).then_some("must be a list"),
            Type::Spec | Type::Record(_) | Type::OpenRpc => None,
        }
    }
}

/// `components.schemas` of the OpenRPC document.
pub(super) fn components() -> Value {
    let schemas = RECORDS.iter().map(|(name, fields)| (name.to_string(), record(fields)));
    Value::Object(schemas.collect())
}

fn record(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| {
            let schema = match field.without {
                Without::Null => {
                    json!({"description": field.about, "oneOf": [field.of.schema(), {"type": "null"}]})
                }
                Without::Never | Without::LeftOut => {
                    json!({"description": field.about, "allOf": [field.of.schema()]})
                }
            };
            (field.name.to_string(), schema)
        })
        .collect();
    let required: Vec<&str> =
        fields.iter().filter(|field| field.without != Without::LeftOut).map(|field| field.name).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Debug;

    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use shimd_api::{event, wire};

    use super::*;

    fn sample(of: Type) -> Value {
        match of {
            Type::Bool => json!(true),
            Type::Count | Type::Nanoseconds | Type::Pid => json!(7),
            Type::Text => json!("x"),
            Type::Texts => json!(["x"]),
            Type::Pids => json!([7]),
            Type::Time => json!("2026-01-01T00:00:00Z"),
            Type::Status => json!("running"),
            Type::EventKind => json!("state"),
            Type::HealOutcome => json!("bridged"),
            Type::EventKinds => json!(["state"]),
            Type::Spec | Type::OpenRpc => json!({"name": "x"}),
            Type::Specs => json!([{"name": "x"}]),
            Type::Record(name) => example(name, false),
            Type::Records(name) => json!([example(name, false)]),
        }
    }

    fn example(name: &str, bare: bool) -> Value {
        let (_, fields) = RECORDS.iter().find(|(record, _)| *record == name).expect("a record of the table");
        let of = |field: &Field| match field.without {
            Without::Null if bare => Some(Value::Null),
            Without::LeftOut if bare => None,
            _ => Some(sample(field.of)),
        };
        Value::Object(fields.iter().filter_map(|field| Some((field.name.to_owned(), of(field)?))).collect())
    }

    /// The table's fields are the type's: it reads them, with each one null or left out that may be, and writes the
    /// same back.
    fn same<T: Serialize + DeserializeOwned + Debug>(name: &str) {
        for bare in [false, true] {
            let written = example(name, bare);
            let read: T = serde_json::from_value(written.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(serde_json::to_value(&read).expect("serializes"), written, "{name}");
        }
    }

    #[test]
    fn the_tables_are_the_wire_types() {
        same::<wire::ChangeRow>("ChangeRow");
        same::<wire::ServiceRow>("ServiceRow");
        same::<wire::StatusRecord>("StatusRecord");
        same::<wire::InstanceRow>("InstanceRow");
        same::<wire::ActionRow>("ActionRow");
        same::<wire::RestartRow>("RestartRow");
        same::<wire::StateRow>("StateRow");
        same::<wire::SocketRow>("SocketRow");
        same::<wire::HealRow>("HealRow");
        same::<wire::Culprit>("Culprit");
        same::<wire::LogRow>("LogRow");
        same::<wire::ShimInfo>("ShimInfo");
        same::<wire::Progress>("Progress");
        same::<wire::ProgressRow>("ProgressRow");
        same::<event::EventRow>("EventRow");
        same::<event::EventDetail>("EventDetail");
        same::<event::DoctorRow>("DoctorRow");
    }

    #[test]
    fn every_record_that_is_named_exists_once() {
        let names: BTreeSet<&str> = RECORDS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), RECORDS.len());
        for (_, fields) in RECORDS {
            for field in *fields {
                if let Type::Record(name) | Type::Records(name) = field.of {
                    assert!(names.contains(name), "{name}");
                }
            }
        }
    }
}
