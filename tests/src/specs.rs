//! Specs of services that run the fixture server.

use crate::World;
use serde_json::{Map, Value, json};

/// A service on one socket, `rpc.sock`, with short time-outs, that is never restarted by itself and whose lost socket is
/// only reported.
pub fn unixd(world: &World, name: &str, options: &[&str]) -> Value {
    unixd_on(world, name, &["rpc.sock"], options)
}

/// The same on several sockets, each a basename with its type before it (`dgram:log.sock`) where that is not `stream`.
pub fn unixd_on(world: &World, name: &str, sockets: &[&str], options: &[&str]) -> Value {
    let mut exec = vec![world.unixd()];
    exec.extend(options.iter().map(|option| (*option).to_owned()));
    let mut declared = Vec::new();
    for socket in sockets {
        let (kind, base) = socket.split_once(':').unwrap_or(("stream", socket));
        exec.push(format!("{kind}:{{socket:{base}}}"));
        declared.push(json!({"path": base, "type": kind}));
    }
    json!({
        "name": name,
        "exec": exec,
        "sockets": declared,
        "ready": {"timeout": "10sec"},
        "stop": {"timeout": "5sec"},
        "restart": {"policy": "never"},
        "on_missing": "report",
    })
}

/// The same with sockets of the mode `activate`, which the server takes as they are handed over.
pub fn activated(world: &World, name: &str, sockets: &[&str], options: &[&str]) -> Value {
    let mut all = vec!["--activated"];
    all.extend(options);
    let mut spec = unixd_on(world, name, sockets, &all);
    for socket in spec.get_mut("sockets").and_then(Value::as_array_mut).into_iter().flatten() {
        merge(socket, json!({"mode": "activate"}));
    }
    spec
}

/// The spec with these fields set; a record is merged field by field.
pub fn with(mut spec: Value, fields: Value) -> Value {
    merge(&mut spec, fields);
    spec
}

fn merge(into: &mut Value, from: Value) {
    match from {
        Value::Object(from) => {
            if !into.is_object() {
                *into = Value::Object(Map::new());
            }
            if let Value::Object(into) = into {
                for (name, value) in from {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        value => *into = value,
    }
}
