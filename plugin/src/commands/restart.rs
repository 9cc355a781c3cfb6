//! `proc restart`: services down and up again, from a clean place.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type};
use serde_json::json;
use shimd_api::wire::RestartRow;

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::flags::Flags;
use crate::input::{Names, names_param};
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::value;

/// `proc restart`.
pub struct Restart;

impl PluginCommand for Restart {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc restart"
    }

    fn description(&self) -> &str {
        "Restart services, and wait until clients can reach them."
    }

    fn extra_description(&self) -> &str {
        "With --clean the whole process tree is stopped, whoever else still listens on the service's sockets is ended,
stale socket files and the ready marker are removed, and only then is the service started. What was removed and
who was ended is in the columns cleaned and killed. The outcome is restarted only when every declared socket is ok;
if one is not, all of it is done once more before the outcome is failed.

With --gapless the new instance comes up beside the old one, which serves until the new one does. Then clients find the
new one, and the old one is stopped once nobody is connected to it any more. If the new one does not come up, the old one
serves on, and the outcome is failed with the reason. It takes sockets of the modes publish and activate."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "reload", "clean", "heal", "systemctl"]
    }

    crate::completes!(Services);

    fn signature(&self) -> Signature {
        Signature::build("proc restart")
            .services()
            .names("The services.")
            .switch(
                "clean",
                "First clear away whatever is left of the old instance, and whoever took its sockets.",
                Some('c'),
            )
            .switch(
                "gapless",
                "Let no client see a refusal (sockets in mode publish or activate).",
                Some('g'),
            )
            .fail_flag("A service that does not come up again is an error.")
            .quiet_flag()
            .takes_names(Type::table())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc restart --clean redis",
                description: "Restart a service whose socket is lost",
                result: None,
            },
            Example {
                example: "proc restart --gapless web",
                description: "Restart a service whose sockets are published, unseen by its clients",
                result: None,
            },
            Example {
                example: "proc list | where status == failed | proc restart --clean",
                description: "Restart whatever has a socket that clients cannot reach",
                result: None,
            },
            Example {
                example: "proc restart --clean redis | select name outcome stopped_in ready_in cleaned killed",
                description: "See what a restart took and cleared away",
                result: None,
            },
            Example {
                example: "proc restart redis --quiet --fail | ignore",
                description: "In a script: no progress, no rows, and an error if it does not come up",
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
            return Ok(value::table::<RestartRow>(&[], call.head));
        }
        let params = json!({
            "names": names_param(&names),
            "clean": call.switch("clean")?,
            "gapless": call.switch("gapless")?,
        });
        let mut daemon = Daemon::started(engine, Blame { head: call.head, names }, ProgressLine::of(call)?)?;
        let rows: Vec<RestartRow> = daemon.ask_long("service.restart", params)?;
        if call.switch("fail")? {
            let failed = rows.iter().filter(|row| row.outcome != "restarted");
            error::fail_if_any("did not come up again", failed.map(reason), daemon.blame())?;
        }
        Ok(value::table(&rows, call.head))
    }
}

fn reason(row: &RestartRow) -> (String, String) {
    (row.name.clone(), row.health_reason.clone().unwrap_or_else(|| row.outcome.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeDaemon, Nu, at};
    use nu_protocol::Value;

    #[test]
    fn a_restart_says_what_it_did() {
        let daemon = FakeDaemon::start();
        let rows = Nu::at(&daemon).value("proc restart -c redis").unwrap();
        let row = rows.as_list().unwrap().first().unwrap();
        assert_eq!(at(row, &["outcome"]), Value::test_string("restarted"));
        assert_eq!(at(row, &["stopped_in"]), Value::test_duration(9_000_000));
        assert_eq!(at(row, &["killed"]), Value::test_list(vec![Value::test_int(4699)]));
        assert_eq!(
            at(row, &["cleaned"]),
            Value::test_list(vec![Value::test_string("/run/sockets/redis/rpc.sock")])
        );
        let sockets = at(row, &["sockets"]).into_list().unwrap();
        assert_eq!(at(sockets.first().unwrap(), &["verdict"]), Value::test_string("ok"));
        let params = json!({ "names": ["redis"], "clean": true, "gapless": false, "progress": true });
        assert_eq!(daemon.requests(), [json!({ "method": "service.restart", "params": params })]);
    }

    #[test]
    fn a_gapless_restart_is_asked_for_as_one() {
        let daemon = FakeDaemon::start();
        assert!(Nu::at(&daemon).value("proc restart --gapless redis").is_ok());
        let params = json!({ "names": ["redis"], "clean": false, "gapless": true, "progress": true });
        assert_eq!(daemon.requests(), [json!({ "method": "service.restart", "params": params })]);
    }

    #[test]
    fn a_failed_restart_is_a_row_and_with_fail_an_error() {
        let daemon = FakeDaemon::start();
        let mut nu = Nu::at(&daemon);
        assert!(nu.value("proc restart web --clean").is_ok());
        let error = nu.error("proc restart redis web --clean --fail");
        assert_eq!(nu.labelled_text(&error), "web");
        assert_eq!(error.labels.len(), 1, "redis is up");
        assert_eq!(error.code.as_deref(), Some("proc::failed"));
        assert_eq!(error.msg, "did not come up again: web: declared socket missing on disk: rpc.sock");
    }
}
