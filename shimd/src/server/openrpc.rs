//! The OpenRPC document, made from the table of methods: what `rpc.discover` and `/openrpc.json` give.

use serde_json::{Value, json};
use shimd_api::rpc::code;

use super::methods::{FOLLOW, LOG_STREAM, METHODS, Method, Names, PROGRESS, Param};
use super::schema::{self, Type};

/// The document (OpenRPC 1.3.2, <https://spec.open-rpc.org>).
pub(super) fn document() -> Value {
    json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "shimd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A small supervisor that keeps Unix sockets reachable. JSON-RPC 2.0 on its control socket: \
                one message a line, or POST /rpc over HTTP/1.1. An error's data.kind is its stable name. In lines the \
                daemon sends notifications too: x-notifications.",
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "methods": METHODS.iter().map(method).collect::<Vec<_>>(),
        "components": {"schemas": schema::components()},
        "x-notifications": notifications(),
    })
}

/// What the daemon sends by itself, in lines: OpenRPC has no word for it but an extension.
fn notifications() -> Value {
    let stream = json!({
        "description": "the id of the request that streams",
        "oneOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}],
    });
    let with_stream = json!({"type": "object", "required": ["stream"], "properties": {"stream": stream}});
    let event = Type::Record("EventRow").schema();
    let rows = json!({"description": "lines", "properties": {"rows": Type::Records("LogRow").schema()}});
    let text = json!({"description": "with raw: UTF-8", "properties": {"text": Type::Text.schema()}});
    let byte = json!({"type": "integer", "minimum": 0, "maximum": 255});
    let bytes = json!({"description": "with raw: other bytes",
        "properties": {"bytes": {"type": "array", "items": byte}}});
    let lines =
        json!({"type": "object", "minProperties": 1, "maxProperties": 1, "anyOf": [rows, text, bytes]});
    let log = json!({"type": "object", "required": ["lines"], "properties": {"lines": lines}});
    let end = json!({"type": "object",
        "properties": {"complete": Type::Bool.schema(), "error": {"type": "object"}}});
    json!([
        {
            "name": "progress",
            "summary": "About once a second until the answer, where the request's params hold progress: true",
            "params": Type::Record("Progress").schema(),
        },
        {
            "name": "event",
            "summary": format!("After the answer to {FOLLOW}: each event"),
            "params": {"allOf": [event, with_stream]},
        },
        {
            "name": "log",
            "summary": format!("After the answer to {LOG_STREAM}: lines, in batches"),
            "params": {"allOf": [log, with_stream]},
        },
        {
            "name": "end",
            "summary": format!("After the last of {FOLLOW} or {LOG_STREAM}: the stream is complete, or has failed, or \
                neither is said and the daemon ends"),
            "params": {"allOf": [end, with_stream]},
        },
    ])
}

fn method(method: &Method) -> Value {
    let (result, of) = method.result;
    let params: Vec<Value> =
        method.params.iter().chain([&PROGRESS]).map(|found| param(method, found)).collect();
    json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "by-name",
        "params": params,
        "result": {"name": result, "schema": of.schema()},
        "errors": errors(method),
    })
}

fn param(method: &Method, param: &Param) -> Value {
    let note = match method.names {
        Names::OneOf(one, many) if [one, many].contains(&param.name) => format!("; either {one} or {many}"),
        Names::AtMostOne(one, many) if [one, many].contains(&param.name) => {
            format!("; at most one of {one} and {many}")
        }
        _ => String::new(),
    };
    json!({
        "name": param.name,
        "description": format!("{}{note}", param.about),
        "required": matches!(method.names, Names::Needs(name) if name == param.name),
        "schema": param.of.schema(),
    })
}

/// One error for all of them: OpenRPC wants the codes of a method's errors to differ, and the kinds share theirs.
fn errors(method: &Method) -> Value {
    match method.errors {
        [] => json!([]),
        kinds => json!([{
            "code": code::APP,
            "message": format!("data.kind says why: {}", kinds.join(", ")),
            "data": {"kind": {"enum": kinds}},
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_method_and_only_schemas_that_exist() {
        let document = document();
        let methods = document["methods"].as_array().expect("methods");
        assert_eq!(methods.len(), METHODS.len());
        let text = document.to_string();
        for reference in text.split(r##""$ref":"#/components/schemas/"##).skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        for method in methods {
            for param in method["params"].as_array().expect("params") {
                assert!(param["schema"].is_object());
            }
            assert!(method["result"]["schema"].is_object());
        }
    }
}
