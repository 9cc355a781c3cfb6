//! `proc shim start`, `stop`, `restart`, `status`: the daemon itself.

use std::time::{Duration, Instant};

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value, record};
use serde_json::json;
use shimd_api::ClientError;
use shimd_api::wire::ShimInfo;

use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::flags::Flags;
use crate::managed;
use crate::plugin::Proc;
use crate::progress::ProgressLine;
use crate::signature::ServiceSignature;
use crate::value::ToValue;

/// How long a daemon that was told to end may take until its process is gone.
const END: Duration = Duration::from_secs(10);

/// `proc shim start`.
pub struct ShimStart;

impl PluginCommand for ShimStart {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc shim start"
    }

    fn description(&self) -> &str {
        "Start the daemon, shimd, if it does not run."
    }

    fn extra_description(&self) -> &str {
        "Commands that act do this by themselves. The daemon is the shimd beside this plugin, else the one on $env.PATH; it
takes up the services that live on from before. $env.SHIMD_HOME and $env.HERO_SOCKET_DIR say where it keeps its
state, and where sockets declared by a basename live."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["shimd", "daemon", "supervisor"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc shim start")
            .services()
            .quiet_flag()
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            example: "proc shim start",
            description: "Make sure that the daemon runs",
            result: None,
        }]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let mut daemon = Daemon::started_if_need_be(engine, Blame::head(call.head), ProgressLine::of(call)?)?;
        let info: ShimInfo = daemon.ask("shim.info", json!({}))?;
        Ok(PipelineData::value(info.to_value(call.head), None))
    }
}

/// `proc shim stop`.
pub struct ShimStop;

impl PluginCommand for ShimStop {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc shim stop"
    }

    fn description(&self) -> &str {
        "End the daemon, shimd. The services live on."
    }

    fn extra_description(&self) -> &str {
        "The next daemon takes the services up again. Until then nobody restarts or heals them. To replace the daemon that runs
by another version: proc shim restart. One that systemd runs is left alone, since systemd would start it again: the error
says how to stop the unit."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["shimd", "daemon", "supervisor", "shutdown"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc shim stop")
            .services()
            .switch("services", "Stop the services too.", Some('s'))
            .quiet_flag()
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example {
                example: "proc shim stop",
                description: "End the daemon and leave the services alone",
                result: None,
            },
            Example {
                example: "proc shim stop --services",
                description: "Stop all services, and the daemon",
                result: None,
            },
        ]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let daemon = Daemon::of_any_version(engine, Blame::head(call.head))?;
        let mut daemon = daemon.with_line(ProgressLine::of(call)?);
        let services = call.switch("services")?;
        let info: ShimInfo = daemon.ask("shim.info", json!({}))?;
        if let Some(command) = managed::stopped_by(info.pid) {
            return Err(error::managed(info.pid, &command, services, call.head));
        }
        let params = if services { json!({ "stop_services": true }) } else { json!({}) };
        let info: ShimInfo = daemon.ask_long("shim.shutdown", params)?;
        let began = Instant::now();
        while lives(info.pid) {
            daemon.line().waits(began.elapsed(), "shimd ends");
            if engine.signals().interrupted() {
                return Err(error::request(ClientError::Cancelled, daemon.blame()));
            }
            if began.elapsed() >= END {
                return Err(error::still_ending(info.pid, END, call.head));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(PipelineData::value(info.to_value(call.head), None))
    }
}

/// `proc shim restart`.
pub struct ShimRestart;

impl PluginCommand for ShimRestart {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc shim restart"
    }

    fn description(&self) -> &str {
        "Put a new daemon, shimd, in the place of the one that runs. The services live on."
    }

    fn extra_description(&self) -> &str {
        "After an upgrade: the daemon that runs may be of another version, and may hang. The new one is the shimd beside this
plugin, else the one on $env.PATH. It looks first whether it can take over; where it cannot, the one that runs goes on,
and the error says why. Commands that are given meanwhile wait for the new daemon. If none runs, one is started."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["shimd", "daemon", "supervisor", "replace", "upgrade", "version"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc shim restart")
            .services()
            .quiet_flag()
            .input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            example: "proc shim restart",
            description: "Go over to the shimd that was just installed",
            result: None,
        }]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let mut daemon = Daemon::replaced(engine, Blame::head(call.head), ProgressLine::of(call)?)?;
        let info: ShimInfo = daemon.ask("shim.info", json!({}))?;
        Ok(PipelineData::value(info.to_value(call.head), None))
    }
}

/// Whether a process is there, and is no zombie. Only then has it let go of its lock.
fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc_pid_stat(5): the state follows the command name, which may itself hold parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// `proc shim status`.
pub struct ShimStatus;

impl PluginCommand for ShimStatus {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc shim status"
    }

    fn description(&self) -> &str {
        "Show the daemon: its process, version, and home."
    }

    fn extra_description(&self) -> &str {
        "troubles says what the daemon cannot do here; it is empty when all is well."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["shimd", "daemon", "supervisor", "version"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc shim status").services().input_output_type(Type::Nothing, Type::record())
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example {
            example: "proc shim status | select version services troubles",
            description: "See which daemon runs, and how it is",
            result: Some(Value::test_record(record! {
                "version" => Value::test_string(crate::plugin::VERSION),
                "services" => Value::test_int(2),
                "troubles" => Value::test_list(vec![]),
            })),
        }]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        let mut daemon = Daemon::of_any_version(engine, Blame::head(call.head))?;
        let info: ShimInfo = daemon.ask("shim.info", json!({}))?;
        Ok(PipelineData::value(info.to_value(call.head), None))
    }
}
