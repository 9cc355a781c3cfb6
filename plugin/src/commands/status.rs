//! `proc status`: one service, whole.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type};
use serde_json::json;
use shimd_api::wire::StatusRecord;

use crate::daemon::Daemon;
use crate::error::Blame;
use crate::input::Names;
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::value::ToValue;

/// `proc status`.
pub struct Status;

impl PluginCommand for Status {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc status"
    }

    fn description(&self) -> &str {
        "Show one service: its state, spec, instance, and sockets."
    }

    fn extra_description(&self) -> &str {
        "sockets are the rows of proc socket-check. spec is as it was registered: proc register takes it back."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "show", "inspect", "spec", "systemctl"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc status").services().names("The service: one name.").takes_names(Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc status redis",
                description: "All there is to know of a service",
                result: None,
            },
            Example {
                example: "proc status redis | get sockets | where verdict != ok",
                description: "Its sockets that clients cannot reach",
                result: None,
            },
            Example {
                example: "proc status redis | get spec | upsert settle 200ms | proc register",
                description: "Change one field of its spec",
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
        let name = Names::read(call, input)?.only(self.name(), call.head)?;
        let params = json!({ "name": name.item });
        let mut daemon = Daemon::running(engine, Blame { head: call.head, names: vec![name] })?;
        let record: StatusRecord = daemon.ask("service.status", params)?;
        Ok(PipelineData::value(record.to_value(call.head), None))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{FakeDaemon, Nu, at};
    use nu_protocol::Value;

    #[test]
    fn a_service_whole() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let record = nu.value("proc status web").unwrap();
        assert_eq!(at(&record, &["status"]), Value::test_string("failed"));
        assert_eq!(at(&record, &["uptime"]), Value::test_duration(60_000_000_000));
        assert_eq!(at(&record, &["instance", "generation"]), Value::test_int(3));
        assert!(at(&record, &["instance", "started"]).as_date().is_ok());
        assert_eq!(at(&record, &["spec", "settle"]), Value::test_duration(100_000_000));
        assert_eq!(at(&record, &["spec", "x-mine"]), Value::test_int(1));
        let sockets = at(&record, &["sockets"]).into_list().unwrap();
        let socket = sockets.first().unwrap();
        assert_eq!(at(socket, &["verdict"]), Value::test_string("dangling"));
        assert_eq!(at(socket, &["culprit", "name"]), Value::test_string("rm"));
        assert!(at(socket, &["since"]).as_date().is_ok());
        assert_eq!(nu.value("{name: web} | proc status").unwrap(), record);
    }

    #[test]
    fn one_and_only_one() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let error = nu.error("proc status web redis");
        assert_eq!(error.code.as_deref(), Some("proc::bad_input"));
        assert_eq!(nu.labelled_text(&error), "redis");
        assert_eq!(nu.error("[] | proc status").code.as_deref(), Some("proc::bad_input"));
        let error = nu.error("proc status nowhere");
        assert_eq!(error.code.as_deref(), Some("proc::unknown_service"));
        assert_eq!(nu.labelled_text(&error), "nowhere");
    }
}
