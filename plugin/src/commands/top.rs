//! `proc top`: a live view in the terminal.

use std::io::IsTerminal;

use nu_plugin::{EngineInterface, EvaluatedCall, PluginCommand};
use nu_protocol::{Example, LabeledError, PipelineData, Signature, Type};

use crate::colours::Palette;
use crate::daemon::Daemon;
use crate::error::{self, Blame};
use crate::plugin::Proc;
use crate::signature::ServiceSignature;
use crate::top;

/// `proc top`.
pub struct Top;

impl PluginCommand for Top {
    type Plugin = Proc;

    fn name(&self) -> &str {
        "proc top"
    }

    fn description(&self) -> &str {
        "Watch all services and their sockets in the terminal."
    }

    fn extra_description(&self) -> &str {
        "A row a service, with how its sockets were in the last ten minutes: ▄ all ok, █ one was not, · nobody listened. Below, the
selected service's sockets, their verdicts and reasons.

Arrows (or j, k) select; r restarts --clean, s starts, x stops, each after a y; c checks at once; q, Esc or Ctrl-C leaves.
$env.config.plugins.proc.colours sets the colours. In a script: proc list, or proc socket-check --watch."
    }

    fn search_terms(&self) -> Vec<&str> {
        vec!["watch", "monitor", "htop", "live", "dashboard", "service"]
    }

    fn signature(&self) -> Signature {
        Signature::build("proc top").services().input_output_type(Type::Nothing, Type::Nothing)
    }

    fn examples(&self) -> Vec<Example<'_>> {
        vec![Example { example: "proc top", description: "Watch all services", result: None }]
    }

    fn run(
        &self,
        _: &Proc,
        engine: &EngineInterface,
        call: &EvaluatedCall,
        _: PipelineData,
    ) -> Result<PipelineData, LabeledError> {
        if !std::io::stdout().is_terminal() {
            return Err(error::no_terminal("its output is no terminal", call.head));
        }
        let palette = Palette::of(engine, call.head)?;
        let daemon = Daemon::running(engine, Blame::head(call.head))?;
        top::show(engine, daemon.reach(), &palette, call.head)?;
        Ok(PipelineData::empty())
    }
}
