//! The plugin in a Nushell engine of the test's own process.

use std::path::Path;

use nu_plugin::PluginCommand;
use nu_plugin_test_support::PluginTest;
use nu_protocol::{LabeledError, ShellError, Span, Value};

use super::{FakeDaemon, Folder};
use crate::plugin::Proc;

/// The engine. It has Nushell's core language and this plugin, not `where`, `get` and the like.
pub struct Nu(PluginTest);

impl Nu {
    /// One whose `$env.SHIMD_HOME` is the daemon's, and its current folder too.
    pub fn at(daemon: &FakeDaemon) -> Nu {
        Self::in_home(daemon.home())
    }

    /// One whose `$env.SHIMD_HOME` is an empty folder.
    pub fn alone(folder: &Folder) -> Nu {
        Self::in_home(folder.path())
    }

    fn in_home(home: &Path) -> Nu {
        let mut test = PluginTest::new("proc", Proc::default().into()).unwrap();
        for name in ["SHIMD_HOME", "PWD", "HOME"] {
            let home = Value::test_string(home.to_str().unwrap());
            test.engine_state_mut().add_env_var(name.into(), home);
        }
        Nu(test)
    }

    /// Sets a variable of the engine.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.engine_state_mut().add_env_var(name.into(), Value::test_string(value));
    }

    /// What `source` gives.
    pub fn value(&mut self, source: &str) -> Result<Value, LabeledError> {
        let data = self.0.eval(source).map_err(plain)?;
        match data.into_value(Span::test_data()).map_err(plain)? {
            Value::Error { error, .. } => Err(plain(*error)),
            value => Ok(value),
        }
    }

    /// The rows of a stream, as they come.
    pub fn stream(&mut self, source: &str) -> impl Iterator<Item = Value> + use<> {
        self.0.eval(source).map_err(plain).unwrap().into_iter()
    }

    /// The error that `source` ends in.
    pub fn error(&mut self, source: &str) -> LabeledError {
        self.value(source).expect_err(source)
    }

    /// What of `source`, the last that was run, the error's first label marks.
    pub fn labelled_text(&self, error: &LabeledError) -> String {
        let span = error.labels.first().expect("a label").span;
        String::from_utf8(self.0.engine_state().get_span_contents(span).to_vec()).unwrap()
    }

    /// The command's examples give the results that they show.
    pub fn examples_hold(&mut self, command: &impl PluginCommand) {
        self.0.test_command_examples(command).unwrap();
    }
}

/// The labelled error that a plugin gave, not one about it.
fn plain(error: ShellError) -> LabeledError {
    match error {
        ShellError::LabeledError(error) => *error,
        other => other.into(),
    }
}
