//! `proc stop`: services down.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value, record};
use serde_json::json;
use shimd_api::wire::{self, ActionRow};

use super::start::reason;
use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::flags::Flags;
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::value;

/// `proc stop`.
pub struct Stop;

impl PluginCommand for Stop {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc stop"
    }

    fn description(&self) -> &str {
        "Stop services, and wait until none of their processes is left."
    }

    fn extra_description(&self) -> &str {
        "Sends the spec's stop signal; what is left after the spec's stop time-out is killed, children and
grandchildren included. Of several services, one is told to stop once those that depend on it are down. Those that
depend on it and are not named go on."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "kill", "down", "end", "systemctl"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc stop")
            .services()
            .names("The services.")
            .fail_flag("A service that is not down is an error.")
            .quiet_flag()
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc stop redis",
                description: "Stop a service",
                result: Some(Value::test_list(vec![Value::test_record(record! {
                    "name" => Value::test_string("redis"),
                    "status" => Value::test_string("inactive"),
                    "health_reason" => Value::test_nothing(),
                    "pid" => Value::test_nothing(),
                    "took" => Value::test_duration(9_000_000),
                })])),
            },
            Example { example: "proc list | proc stop", description: "Stop all services", result: None },
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
            return Ok(value::table::<ActionRow>(&[], call.head));
        }
        let params = json!({ "names": names_param(&names) });
        let mut daemon = Daemon::started(engine, Blame { head: call.head, names }, ProgressLine::of(call)?)?;
        let rows: Vec<ActionRow> = daemon.ask_long("service.stop", params)?;
        if call.switch("fail")? {
            error::fail_if_any(
                "did not stop",
                rows.iter().filter(|row| !is_down(row)).map(reason),
                daemon.blame(),
            )?;
        }
        Ok(value::table(&rows, call.head))
    }
}

/// A service that had failed and has no process left is down too.
fn is_down(row: &ActionRow) -> bool {
    match row.status {
        wire::Status::Inactive => true,
        wire::Status::Failed => row.pid.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Nu};

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&Stop);
    }

    #[test]
    fn down_means_that_no_process_is_left() {
        let row = |status, pid| ActionRow { name: "a".into(), status, health_reason: None, pid, took: 1 };
        assert!(is_down(&row(wire::Status::Inactive, None)));
        assert!(is_down(&row(wire::Status::Failed, None)));
        assert!(!is_down(&row(wire::Status::Failed, Some(1))));
        assert!(!is_down(&row(wire::Status::Stopping, Some(1))));
        assert_eq!(reason(&row(wire::Status::Stopping, Some(1))).1, "it is stopping");
    }

    #[test]
    fn nothing_named_is_an_error() {
        let daemon = FakeDaemon::start();
        let error = Nu::at(&daemon).error("proc stop");
        assert_eq!(error.code.as_deref(), Some("proc::bad_input"));
        assert_eq!(error.help.as_deref(), Some("proc stop NAME, or for all of them: proc list | proc stop"));
    }
}
