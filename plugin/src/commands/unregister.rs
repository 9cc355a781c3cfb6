//! `proc unregister`: services stopped and forgotten.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value, record};
use serde_json::json;
use shimd_api::wire::ChangeRow;

use crate::daemon::Daemon;
use crate::error::Blame;
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::value;

/// `proc unregister`.
pub struct Unregister;

impl PluginCommand for Unregister {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc unregister"
    }

    fn description(&self) -> &str {
        "Stop services, and forget their specs."
    }

    fn extra_description(&self) -> &str {
        "What was seen of a service stays: proc events and proc history go on to show it, and its log files are not removed. To
keep a service and only have it down: proc stop."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "remove", "delete", "forget", "disable"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc unregister")
            .services()
            .names("The services.")
            .quiet_flag()
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc unregister web",
                description: "Stop a service and forget it",
                result: Some(Value::test_list(vec![Value::test_record(record! {
                    "name" => Value::test_string("web"),
                    "change" => Value::test_string("deleted"),
                })])),
            },
            Example {
                example: "proc list | where name starts-with test- | proc unregister",
                description: "Forget all whose names begin alike",
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
        let names = Names::read(call, input)?.required(self.name(), call.head)?;
        if names.is_empty() {
            return Ok(value::table::<ChangeRow>(&[], call.head));
        }
        let params = json!({ "names": names_param(&names) });
        let mut daemon = Daemon::started(engine, Blame { head: call.head, names }, ProgressLine::of(call)?)?;
        let rows: Vec<ChangeRow> = daemon.ask_long("service.delete", params)?;
        Ok(value::table(&rows, call.head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Nu};

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&Unregister);
    }

    #[test]
    fn nothing_named_forgets_nothing() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        assert_eq!(nu.error("proc unregister").code.as_deref(), Some("proc::bad_input"));
        assert_eq!(nu.value("[] | proc unregister").unwrap(), Value::test_list(vec![]));
        assert!(daemon.requests().is_empty());
    }
}
