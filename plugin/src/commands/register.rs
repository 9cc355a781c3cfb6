//! `proc register`: specs declared, from records, tables and files.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, SyntaxShape, Type, Value, record};
use serde_json::{Value as Json, json};
use shimd_api::wire::ChangeRow;
use shimd_api::{ClientError, RpcError, Spec, rpc::kind};

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::{place, value};

/// The largest spec file that is read: no larger message is taken by the daemon.
const LARGEST: u64 = 1 << 20;

/// `proc register`.
pub struct Register;

impl PluginCommand for Register {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc register"
    }

    fn description(&self) -> &str {
        "Declare services, or change how they are declared."
    }

    fn extra_description(&self) -> &str {
        "A spec is a record, or a .json or .nuon file that holds one (or a list of them). It needs a name and exec, a list
of the program and its arguments. A socket that is only a file name lives in the service's own folder, and
{socket:NAME} in exec stands for its path there. Numbers in exec and env become text. Fields that are not known are
kept.

Nothing is started or restarted: proc start and proc restart do that."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "spec", "add", "define", "enable", "upsert"]
    }

    crate::completes!(Spec);

    fn signature(&self) -> Signature {
        let spec = SyntaxShape::OneOf(vec![
            SyntaxShape::Record(vec![].into()),
            SyntaxShape::List(Box::new(SyntaxShape::Any)),
            SyntaxShape::Filepath,
        ]);
        Signature::build("proc register")
            .services()
            .optional(
                "spec",
                spec,
                "A record, a table of records, or a path to .json or .nuon; else the input.",
            )
            .quiet_flag()
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        let row = |name: &str, change: &str| {
            Value::test_record(
                record! { "name" => Value::test_string(name), "change" => Value::test_string(change) },
            )
        };
        vec![
            Example {
                example: "proc register {name: cache, exec: [redis-server --port 0 --unixsocket '{socket:redis.sock}'], sockets: [redis.sock]}",
                description: "Declare a service and its socket",
                result: Some(Value::test_list(vec![row("cache", "created")])),
            },
            Example {
                example: "[[name exec]; [redis [redis-server]] [clock [tail -f /dev/null]]] | proc register",
                description: "Declare several",
                result: Some(Value::test_list(vec![row("redis", "unchanged"), row("clock", "created")])),
            },
            Example {
                example: "proc register web.nuon",
                description: "Take the spec from a file",
                result: None,
            },
            Example {
                example: "glob *.nuon | proc register",
                description: "Take the specs of a folder",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        input: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let given = match call.nth(0) {
            Some(argument) => argument,
            None => {
                let span = input.span().unwrap_or(call.head);
                input.into_value(span)?
            }
        };
        if given.is_nothing() {
            return Err(error::bad_input(
                "proc register needs a spec".into(),
                "no spec as argument, and nothing in the pipeline",
                call.head,
                "give a record with name and exec, or a path to a .json or .nuon file",
            ));
        }
        let mut specs = Vec::new();
        collect(engine, given, &mut specs)?;
        each_once(&specs)?;
        // What no daemon would take is told before one is started, and of several specs it is known which it is.
        for spec in &specs {
            Spec::parse(&spec.json.to_string())
                .map_err(|problem| refused(RpcError::bad_spec(problem), Some(spec), call.head))?;
        }
        let params = match specs.as_slice() {
            [] => return Ok(value::table::<ChangeRow>(&[], call.head)),
            [one] => json!({ "spec": one.json }),
            many => json!({ "specs": many.iter().map(|spec| &spec.json).collect::<Vec<_>>() }),
        };
        let mut daemon = Daemon::started(engine, Blame::head(call.head), ProgressLine::of(call)?)?;
        let answer = daemon.call("service.set", params).map_err(|failure| match failure {
            ClientError::Rpc(refusal) if refusal.kind() == kind::BAD_SPEC => {
                let name = refusal.data.as_ref().and_then(|data| data.name.as_deref());
                let culprit = match specs.as_slice() {
                    [one] => Some(one),
                    many => many
                        .iter()
                        .find(|spec| name.is_some() && spec.json.get("name").and_then(Json::as_str) == name),
                };
                refused(refusal, culprit, call.head)
            }
            other => error::request(other, &Blame::head(call.head)),
        })?;
        let rows: Vec<ChangeRow> = daemon.understand("service.set", answer)?;
        Ok(value::table(&rows, call.head))
    }
}

/// A spec, and where it came from.
struct Given {
    json: Json,
    origin: Origin,
}

enum Origin {
    /// A record of the user's: each of its fields knows where it was written.
    Record(Value),
    /// A file, named at this span.
    File { path: String, span: Span },
}

fn collect(engine: &EngineInterface, value: Value, specs: &mut Vec<Given>) -> Result<(), LabeledError> {
    let span = value.span();
    match value {
        Value::Record { .. } => {
            let json = words(value::to_json(&value).map_err(|unfit| unfit_field(&unfit))?);
            specs.push(Given { json, origin: Origin::Record(value) });
            Ok(())
        }
        Value::List { vals, .. } => vals.into_iter().try_for_each(|item| collect(engine, item, specs)),
        Value::String { val, .. } | Value::Glob { val, .. } => read_file(engine, &val, span, specs),
        Value::Error { error, .. } => Err((*error).into()),
        other => Err(error::bad_input(
            "a spec is a record, or a path to a file that holds one".into(),
            format!("this is {}", error::a_type(&other.get_type())),
            other.span(),
            "proc register {name: web, exec: [/usr/bin/web]}, or: proc register web.nuon",
        )),
    }
}

/// Nushell reads `[redis-server --port 6379]` as two words and a number, and a program is given words: so numbers and
/// booleans in `exec` and `env` become text.
fn words(mut spec: Json) -> Json {
    let word = |item: &mut Json| {
        if item.is_number() || item.is_boolean() {
            *item = Json::String(item.to_string());
        }
    };
    if let Some(words) = spec.get_mut("exec").and_then(Json::as_array_mut) {
        words.iter_mut().for_each(word);
    }
    if let Some(variables) = spec.get_mut("env").and_then(Json::as_object_mut) {
        variables.values_mut().for_each(word);
    }
    spec
}

fn unfit_field(unfit: &value::Unfit) -> LabeledError {
    let problem = format!("{}: a {} cannot be part of a spec", unfit.field, unfit.found);
    let help = "a spec holds strings, numbers, booleans, durations, file sizes, dates, lists and records";
    error::bad_spec(problem, format!("this {} is", unfit.found), unfit.span, help)
}

/// Reads the spec, or the list of specs, of a file.
fn read_file(
    engine: &EngineInterface,
    given: &str,
    span: Span,
    specs: &mut Vec<Given>,
) -> Result<(), LabeledError> {
    let path = place::path(engine, given);
    let name = path.display().to_string();
    let bad =
        |problem: String, help: &str| error::bad_spec(format!("{name}: {problem}"), "this file", span, help);
    let text = || {
        let help = "a spec file is text in UTF-8, of at most 1 MiB, that you may read";
        read_text(&path).map_err(|problem| bad(problem, help))
    };
    let json = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str(&text()?).map_err(|problem| {
            bad(format!("not JSON: {problem}"), "correct the file at that line and column")
        })?,
        Some("nuon") => {
            let value = from_nuon(engine, text()?, span).map_err(|problem| {
                bad(format!("not NUON: {problem}"), "open the file in Nushell to see where it goes wrong")
            })?;
            let json = value::to_json(&value).map_err(|unfit| {
                let help = "see what a spec may hold: help proc register";
                bad(format!("{}: a {} cannot be part of a spec", unfit.field, unfit.found), help)
            })?;
            match json {
                Json::Array(items) => items.into_iter().map(words).collect(),
                one => words(one),
            }
        }
        _ => {
            let help = "proc register FILE takes a .json or .nuon file; to act on a service by its name: proc start NAME";
            return Err(bad("a spec file ends in .json or .nuon".into(), help));
        }
    };
    let found = match json {
        Json::Array(items) => items,
        one => vec![one],
    };
    for json in found {
        if !json.is_object() {
            return Err(bad("holds no record".into(), "a spec file holds a record, or a list of records"));
        }
        specs.push(Given { json, origin: Origin::File { path: name.clone(), span } });
    }
    Ok(())
}

/// The text of a file, of which no more is read than a daemon would take: `/dev/zero` has no end.
fn read_text(path: &Path) -> Result<String, String> {
    let kind = std::fs::metadata(path).map_err(|problem| problem.to_string())?;
    if !kind.is_file() {
        return Err("is no regular file".into());
    }
    let file = File::open(path).map_err(|problem| problem.to_string())?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|problem| problem.to_string())?;
    if text.len() as u64 > LARGEST { Err("is over 1 MiB".into()) } else { Ok(text) }
}

/// Nushell's own `from nuon`.
fn from_nuon(engine: &EngineInterface, text: String, span: Span) -> Result<Value, String> {
    let parse = || -> Result<Value, LabeledError> {
        let decl = engine
            .find_decl("from nuon")?
            .ok_or_else(|| LabeledError::new("this Nushell has no command `from nuon`"))?;
        let text = PipelineData::value(Value::string(text, span), None);
        match engine.call_decl(decl, EvaluatedCall::new(span), text, true, false)?.into_value(span)? {
            Value::Error { error, .. } => Err((*error).into()),
            value => Ok(value),
        }
    };
    parse().map_err(|error| innermost(&error))
}

/// What an error says at its heart: the parser's own words, not that of the command around it.
fn innermost(error: &LabeledError) -> String {
    match (error.inner.first(), error.labels.first()) {
        (Some(inner), _) => innermost(&LabeledError::from(inner.clone())),
        (None, Some(label)) if !label.text.is_empty() => format!("{} ({})", error.msg, label.text),
        (None, _) => error.msg.clone(),
    }
}

/// Of two specs of one name, which is meant?
fn each_once(specs: &[Given]) -> Result<(), LabeledError> {
    let mut seen = HashSet::new();
    for spec in specs {
        let Some(name) = spec.json.get("name").and_then(Json::as_str) else { continue };
        if !seen.insert(name) {
            let (label, span) = match &spec.origin {
                Origin::Record(value) => ("the second of this name", field_span(value, "name")),
                Origin::File { span, .. } => ("the second is in this file", *span),
            };
            let help = "give each service one spec; nothing was registered";
            return Err(error::bad_spec(format!("name: two specs are called {name}"), label, span, help));
        }
    }
    Ok(())
}

/// A refused spec: labelled at the field itself where the spec was written as a record.
fn refused(refusal: RpcError, culprit: Option<&Given>, head: Span) -> LabeledError {
    let data = refusal.data.unwrap_or_default();
    let field = data.field.unwrap_or_default();
    let (message, label, span) = match culprit.map(|spec| &spec.origin) {
        Some(Origin::Record(value)) => {
            (refusal.message, format!("{field} of this spec"), field_span(value, &field))
        }
        Some(Origin::File { path, span }) => {
            (format!("{path}: {}", refusal.message), "this file".into(), *span)
        }
        None => (refusal.message, "one of these specs".into(), head),
    };
    let help = data.help.unwrap_or_else(|| "see what a spec may hold: help proc register".into());
    error::bad_spec(message, label, span, &help)
}

/// Where the field `sockets[0].path` of a record was written; where it is missing, what it is missing from.
fn field_span(value: &Value, field: &str) -> Span {
    let inner = match value {
        Value::Record { val, .. } => {
            let field = field.strip_prefix('.').unwrap_or(field);
            // A key may hold a dot itself, so the longest that fits is meant.
            let fits = |key: &str| {
                field.strip_prefix(key).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            val.iter().filter_map(|(key, item)| Some((fits(key)?, item))).min_by_key(|(rest, _)| rest.len())
        }
        Value::List { vals, .. } => field
            .strip_prefix('[')
            .and_then(|field| field.split_once(']'))
            .and_then(|(index, rest)| Some((rest, vals.get(index.parse::<usize>().ok()?)?))),
        _ => None,
    };
    match inner {
        Some((rest, item)) => field_span(item, rest),
        None => value.span(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Nu};

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&Register);
    }

    #[test]
    fn a_record_travels_as_nushell_writes_json() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon)
            .value("{name: web, exec: [web --port 80], env: {DEBUG: true}, settle: 100ms, log: {max_size: 10MB}, born: 2026-01-02T03:04:05Z} | proc register")
            .unwrap();
        let spec = json!({ "name": "web", "exec": ["web", "--port", "80"], "env": { "DEBUG": "true" }, "settle": 100_000_000, "log": { "max_size": 10_000_000 },
            "born": "2026-01-02T03:04:05+00:00" });
        assert_eq!(daemon.requests(), [json!({ "method": "service.set", "params": { "spec": spec } })]);
    }

    #[test]
    fn a_bad_field_is_labelled_where_it_was_written() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let error = nu.error("proc register {name: a, exec: [a], sockets: [{path: a.sock, type: raw}]}");
        assert_eq!(error.code.as_deref(), Some("proc::bad_spec"));
        assert!(error.msg.starts_with("sockets[0].type: "), "{}", error.msg);
        assert_eq!(nu.labelled_text(&error), "raw");
        let error = nu.error("proc register {name: a}");
        assert!(error.msg.starts_with("exec: "), "{}", error.msg);
        assert_eq!(nu.labelled_text(&error), "{name: a}");
        let error = nu.error("proc register [{name: a, exec: [a]} {name: b}]");
        assert_eq!(nu.labelled_text(&error), "{name: b}");
        assert!(daemon.requests().is_empty(), "none of these reached the daemon");
        let error = nu.error("[{name: a, exec: [a]} {name: b, exec: [b], user: ghost}] | proc register");
        assert_eq!(error.msg, "user: there is no user ghost");
        assert_eq!(nu.labelled_text(&error), "ghost");
        let error = nu.error("proc register {name: a, exec: [a], env: {HOOK: {|| 1}}}");
        assert_eq!(error.msg, "env.HOOK: a closure cannot be part of a spec");
        assert_eq!(nu.labelled_text(&error), "{|| 1}");
    }

    #[test]
    fn a_json_file_is_taken_as_it_is() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let file = daemon.home().join("web.json");
        let text = r#"{"name": "web", "exec": ["web"], "x-mine": [1.50, null]}"#;
        std::fs::write(&file, text).unwrap();
        for source in [
            "proc register web.json",
            "proc register './web.json'",
            "'~/web.json' | proc register",
            "[web.json] | proc register",
        ] {
            nu.value(source).unwrap_or_else(|error| panic!("{source}: {error:?}"));
        }
        let spec: Json = serde_json::from_str(text).unwrap();
        for request in daemon.requests() {
            assert_eq!(request["params"]["spec"], spec);
        }
    }

    #[test]
    fn a_bad_file_is_named() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let file = |name: &str, text: &str| std::fs::write(daemon.home().join(name), text).unwrap();
        file("torn.json", "{\"name\": \"web\",\n \"exec\": [");
        file("number.json", "5");
        file("web.toml", "name = 'web'");
        file("large.json", &" ".repeat(1_100_000));
        file("nameless.json", r#"{"exec": ["web"]}"#);
        std::fs::create_dir(daemon.home().join("folder.json")).unwrap();
        for (name, problem) in [
            ("torn.json", "not JSON: EOF while parsing a list at line 2 column 10"),
            ("number.json", "holds no record"),
            ("web.toml", "a spec file ends in .json or .nuon"),
            ("large.json", "is over 1 MiB"),
            ("folder.json", "is no regular file"),
            ("missing.json", "No such file or directory (os error 2)"),
        ] {
            let error = nu.error(&format!("proc register {name}"));
            assert_eq!(error.code.as_deref(), Some("proc::bad_spec"), "{name}");
            assert_eq!(error.msg, format!("{}: {problem}", daemon.home().join(name).display()));
            assert_eq!(nu.labelled_text(&error), name);
        }
        let error = nu.error("proc register nameless.json");
        assert!(
            error.msg.starts_with(&format!("{}: name: ", daemon.home().join("nameless.json").display())),
            "{}",
            error.msg
        );
    }

    #[test]
    fn what_is_no_spec_is_named_by_its_type() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let error = nu.error("5 | proc register");
        assert_eq!(error.code.as_deref(), Some("proc::bad_input"));
        assert_eq!(nu.labelled_text(&error), "5");
        assert_eq!(error.labels.first().unwrap().text, "this is an int");
        assert_eq!(nu.error("proc register").code.as_deref(), Some("proc::bad_input"));
        assert_eq!(nu.value("[] | proc register").unwrap(), Value::test_list(vec![]));
        assert!(daemon.requests().is_empty());
    }

    #[test]
    fn a_key_with_a_dot_is_found() {
        let deep = Value::string("deep", Span::new(7, 9));
        let env = Value::test_record(record! { "A" => Value::test_int(1), "A.B" => deep });
        let spec = Value::test_record(record! { "env" => env });
        assert_eq!(field_span(&spec, "env.A.B"), Span::new(7, 9));
        assert_eq!(field_span(&spec, "env.C"), Span::test_data());
    }
}
