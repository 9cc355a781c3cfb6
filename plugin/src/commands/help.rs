//! `proc`: what there is.

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type, Value};

use crate::plugin::Proc;
use crate::signature::ServiceSignature;

/// `proc`.
pub struct Overview;

impl PluginCommand for Overview {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc"
    }

    fn description(&self) -> &str {
        "Run services, and keep their Unix sockets reachable."
    }

    fn extra_description(&self) -> &str {
        "A service is registered once by its spec (proc register) and then started, stopped and restarted by name. It
counts as running only while clients can reach each socket that it declares: proc list shows what is, and
proc socket-check says what is wrong with a socket, and proc heal puts a lost one back. proc logs shows what
a service writes, proc events tells what happened, proc history what each socket was and when, and
proc doctor what this machine lets be done.

A daemon, shimd, looks after the services of one home ($env.SHIMD_HOME, else the user's own). A command that
acts starts it when none runs. $env.config.plugins.proc, a record, may set home, deadline, autostart and colours.

Names go as arguments or come through the pipeline, as strings or as rows with a column name or service. Inside each
the row is the input, and an argument wins over it."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["service", "daemon", "supervisor", "socket", "systemctl"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc").services().input_output_type(Type::Nothing, Type::String)
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![
            Example { example: "proc", description: "See what there is", result: None },
            Example {
                example: "$env.config.plugins.proc = {deadline: 5sec, colours: {failed: red_bold}}; proc list",
                description: "Set how long an answer may take, and a colour for a state",
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
        Ok(PipelineData::value(Value::string(engine.get_help()?, call.head), None))
    }
}
