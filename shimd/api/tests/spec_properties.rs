//! Properties of specs: nothing panics, a wrong value is refused under its own field, an unknown field changes nothing.

#![allow(clippy::unwrap_used)] // Tests.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use shimd_api::spec::{Spec, SpecError};

fn parse(value: Value) -> Result<Spec, SpecError> {
    Spec::parse(&value.to_string())
}

/// A spec with these fields besides `name` and `exec`.
fn with(fields: Value) -> Value {
    let mut spec = json!({"name": "web", "exec": ["server"]});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

/// Any JSON, with the names that specs use among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[@/.a{}0-9 -]{0,12}".prop_map(Value::from),
        "[-0-9. ]{0,4}(ms|sec|MB|SIG|RTMIN\\+|\\{socket:)?[0-9a]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        let key = prop_oneof![proptest::sample::select(FIELDS).prop_map(str::to_string), any::<String>(),];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..8)
                .prop_map(|fields| Value::from(Map::from_iter(fields))),
        ]
    })
}

const FIELDS: &[&str] = &[
    "name",
    "exec",
    "cwd",
    "env",
    "user",
    "group",
    "umask",
    "sockets",
    "kill_other",
    "ready",
    "stop",
    "restart",
    "on_missing",
    "settle",
    "depends_on",
    "log",
    "autostart",
    "wedged_after",
    "path",
    "type",
    "mode",
    "optional",
    "clients",
    "backlog",
    "socket",
    "timeout",
    "marker",
    "notify",
    "signal",
    "policy",
    "delay",
    "max_delay",
    "limit",
    "window",
    "max_size",
    "keep",
];

proptest! {
    #[test]
    fn no_json_panics(value in any_json()) {
        let _ = parse(value);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        prop_assert!(Spec::parse(&text).is_err());
    }

    /// One field of a good spec replaced by anything: refused under that field's name, or taken and placed.
    #[test]
    fn a_wrong_value_is_refused_under_its_field(field in proptest::sample::select(&FIELDS[..18]), value in any_json()) {
        let mut fields = Map::new();
        fields.insert(field.into(), value);
        match parse(with(Value::from(fields))) {
            Ok(spec) => {
                let _ = spec.check_placed(Path::new("/srv/sockets"));
            }
            Err(error) => {
                let rest = error.field.strip_prefix(field);
                prop_assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])), "{}", error);
            }
        }
    }

    #[test]
    fn unknown_fields_change_nothing(extra in proptest::collection::vec((any::<String>(), any_json()), 0..8)) {
        let good = json!({
            "sockets": [{"path": "rpc.sock", "type": "stream"}], "kill_other": {"socket": ["rpc.sock"]},
            "ready": {"timeout": "5sec"}, "stop": {"signal": "INT"}, "restart": {"limit": 3}, "log": {"keep": 1},
        });
        let good = with(good);
        let mut more = good.clone();
        let unknown = |(key, _): &(String, Value)| !FIELDS.contains(&key.as_str());
        for (key, value) in extra.into_iter().filter(unknown) {
            for place in ["", "/sockets/0", "/kill_other", "/ready", "/stop", "/restart", "/log"] {
                more.pointer_mut(place).unwrap().as_object_mut().unwrap().insert(key.clone(), value.clone());
            }
        }
        prop_assert_eq!(parse(more), parse(good));
    }
}
