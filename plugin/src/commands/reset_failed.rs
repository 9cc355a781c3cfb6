//! `proc reset-failed`: a restart limit forgotten.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value, record};
use serde_json::json;
use shimd_api::wire::StateRow;

use crate::daemon::Daemon;
use crate::error::Blame;
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::value;

/// `proc reset-failed`.
pub struct ResetFailed;

impl PluginCommand for ResetFailed {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc reset-failed"
    }

    fn description(&self) -> &str {
        "Forget that services failed, so that they may be started again."
    }

    fn extra_description(&self) -> &str {
        "A service that ends too often within its restart.window is failed and not started again by itself. This forgets how often
that was, and starts nothing. Its log says why it ended: proc logs NAME."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "limit", "clear", "systemctl"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc reset-failed")
            .services()
            .names("The services.")
            .quiet_flag()
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc reset-failed web",
                description: "Clear a restart limit that was reached",
                result: Some(Value::test_list(vec![Value::test_record(record! {
                    "name" => Value::test_string("web"),
                    "status" => Value::test_string("inactive"),
                })])),
            },
            Example {
                example: "proc list | where status == failed | proc reset-failed | proc start",
                description: "Try all that failed once more",
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
            return Ok(value::table::<StateRow>(&[], call.head));
        }
        let params = json!({ "names": names_param(&names) });
        let mut daemon = Daemon::started(engine, Blame { head: call.head, names }, ProgressLine::of(call)?)?;
        let rows: Vec<StateRow> = daemon.ask("service.reset_failed", params)?;
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
        Nu::at(&daemon).examples_hold(&ResetFailed);
    }
}
