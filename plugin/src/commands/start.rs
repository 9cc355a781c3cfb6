//! `proc start`: services up.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value, record};
use serde_json::json;
use shimd_api::wire::{self, ActionRow};

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::flags::Flags;
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::value;

/// `proc start`.
pub struct Start;

impl PluginCommand for Start {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc start"
    }

    fn description(&self) -> &str {
        "Start services, and wait until clients can reach them."
    }

    fn extra_description(&self) -> &str {
        "What a service depends on is started first. A service that does not come up is a row with its reason; a
service that runs already stays as it is."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "run", "up", "spawn", "systemctl"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc start")
            .services()
            .names("The services.")
            .fail_flag("A service that does not come up is an error.")
            .quiet_flag()
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc start redis",
                description: "Start a service",
                result: Some(Value::test_list(vec![Value::test_record(record! {
                    "name" => Value::test_string("redis"),
                    "status" => Value::test_string("running"),
                    "health_reason" => Value::test_nothing(),
                    "pid" => Value::test_int(4711),
                    "took" => Value::test_duration(42_000_000),
                })])),
            },
            Example {
                example: "proc list | where status == inactive | proc start --fail",
                description: "Start all that are down, and end in an error if one does not come up",
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
            return Ok(value::table::<ActionRow>(&[], call.head));
        }
        let params = json!({ "names": names_param(&names) });
        let mut daemon = Daemon::started(engine, Blame { head: call.head, names }, ProgressLine::of(call)?)?;
        let rows: Vec<ActionRow> = daemon.ask_long("service.start", params)?;
        if call.switch("fail")? {
            let down = rows.iter().filter(|row| row.status != wire::Status::Running);
            error::fail_if_any("did not come up", down.map(reason), daemon.blame())?;
        }
        Ok(value::table(&rows, call.head))
    }
}

/// Why a service is not as it was asked to be.
pub(super) fn reason(row: &ActionRow) -> (String, String) {
    let reason = row.health_reason.clone().unwrap_or_else(|| format!("it is {}", row.status));
    (row.name.clone(), reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Nu};

    #[test]
    fn the_examples_hold() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).examples_hold(&Start);
    }

    #[test]
    fn a_service_that_is_not_up_is_a_row_and_with_fail_an_error() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        let rows = nu.value("[redis web] | proc start").unwrap().into_list().unwrap();
        assert_eq!(rows.len(), 2);
        let error = nu.error("[redis web] | proc start --fail");
        assert_eq!(error.code.as_deref(), Some("proc::failed"));
        assert_eq!(error.msg, "did not come up: web: declared socket missing on disk: rpc.sock");
        assert_eq!(error.help.as_deref(), Some("proc status web; what it wrote: proc logs web --lines 20"));
    }

    #[test]
    fn nothing_named_is_an_error_and_an_empty_table_is_not() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        assert_eq!(nu.error("proc start").code.as_deref(), Some("proc::bad_input"));
        assert_eq!(nu.value("[] | proc start --fail").unwrap(), Value::test_list(vec![]));
        assert!(daemon.requests().is_empty());
    }

    #[test]
    fn progress_is_asked_for() {
        let daemon = FakeDaemon::start();
        Nu::at(&daemon).value("proc start redis").unwrap();
        let asked = json!({ "method": "service.start", "params": { "names": ["redis"], "progress": true } });
        assert_eq!(daemon.requests(), [asked]);
    }
}
