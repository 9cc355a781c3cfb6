//! `proc list`: the services and how they are.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Span, Type, Value, record};
use serde_json::json;
use shimd_api::wire::ServiceRow;

use crate::daemon::Daemon;
use crate::error::Blame;
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::value;

/// `proc list`.
pub struct List;

impl PluginCommand for List {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc list"
    }

    fn description(&self) -> &str {
        "List services: their state, and whether clients can reach them."
    }

    fn extra_description(&self) -> &str {
        "status is running only while every declared socket is ok; health_reason says why it is not."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "ps", "ls", "status", "systemctl"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc list")
            .services()
            .names("The services; all of them if none is named.")
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc list",
                description: "All services",
                result: Some(Value::test_list(vec![
                    Value::test_record(record! {
                        "name" => Value::test_string("redis"),
                        "status" => Value::test_string("running"),
                        "health_reason" => Value::test_nothing(),
                        "pid" => Value::test_int(4711),
                        "uptime" => Value::test_duration(7_500_000_000),
                        "restarts" => Value::test_int(0),
                        "sockets_ok" => Value::test_int(1),
                        "sockets" => Value::test_int(1),
                    }),
                    Value::test_record(record! {
                        "name" => Value::test_string("web"),
                        "status" => Value::test_string("failed"),
                        "health_reason" => Value::test_string("declared socket missing on disk: rpc.sock"),
                        "pid" => Value::test_int(4712),
                        "uptime" => Value::test_duration(60_000_000_000),
                        "restarts" => Value::test_int(2),
                        "sockets_ok" => Value::test_int(1),
                        "sockets" => Value::test_int(2),
                    }),
                ])),
            },
            Example {
                example: "proc list | where status == failed | proc restart --clean",
                description: "Restart whatever clients cannot reach",
                result: None,
            },
            Example {
                example: "proc list | where $it.sockets_ok < $it.sockets | proc socket-check",
                description: "See what is wrong with the sockets of services that have a bad one",
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
        let (params, names) = match Names::read(call, input)? {
            Names::NotGiven => (json!({}), Vec::new()),
            Names::Given(names) if names.is_empty() => return Ok(nothing_to_do(call.head)),
            Names::Given(names) => (json!({ "names": names_param(&names) }), names),
        };
        let mut daemon = Daemon::running(engine, Blame { head: call.head, names })?;
        let rows: Vec<ServiceRow> = daemon.ask("service.list", params)?;
        Ok(value::table(&rows, call.head))
    }
}

fn nothing_to_do(head: Span) -> PipelineData {
    value::table::<ServiceRow>(&[], head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Nu};

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&List);
    }

    #[test]
    fn named_services_only() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let names = |value: Value| -> Vec<String> {
            let rows = value.into_list().unwrap();
            rows.iter().map(|row| row.get_data_by_key("name").unwrap().as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(nu.value("proc list web").unwrap()), ["web"]);
        assert_eq!(names(nu.value("[redis web] | proc list").unwrap()), ["redis", "web"]);
        assert_eq!(names(nu.value("{service: web} | proc list").unwrap()), ["web"]);
        let before = daemon.requests().len();
        assert_eq!(nu.value("[] | proc list").unwrap(), Value::test_list(vec![]));
        assert_eq!(daemon.requests().len(), before, "an empty table asks for nothing");
    }

    #[test]
    fn an_unknown_service_is_labelled_where_it_was_named() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let error = nu.error("proc list redis nowhere");
        assert_eq!(error.code.as_deref(), Some("proc::unknown_service"));
        assert_eq!(nu.labelled_text(&error), "nowhere");
    }
}
