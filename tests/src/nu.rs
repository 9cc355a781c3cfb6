//! The real Nushell with the real plugin, one command at a time.

use crate::command::{Ran, run};
use crate::fault::Context;
use crate::{Fault, Json, Result, World, bins};
use serde_json::Value;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// No command of a scenario takes longer: the longest stop or start time-outs lie below it.
const LIMIT: Duration = Duration::from_secs(60);

/// A labelled Nushell error.
#[derive(Debug)]
pub struct NuFailure {
    /// Its message.
    pub msg: String,
    /// `proc::<what>`.
    pub code: String,
    /// What to do next.
    pub help: String,
    /// The page that tells more.
    pub url: String,
    /// The texts of its labels.
    pub labels: Vec<String>,
}

impl fmt::Display for NuFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}] help: {}", self.code, self.msg, self.labels.join("; "), self.help)
    }
}

impl NuFailure {
    /// Whether the error's words, label or help hold `part`.
    pub fn mentions(&self, part: &str) -> bool {
        self.to_string().contains(part)
    }
}

impl World {
    /// A Nushell that has the plugin, told to run `script`.
    pub fn nu_command(&self, script: &str) -> Result<Command> {
        let mut command = self.command(self.nu_program()?);
        let plugin = format!("[{}]", self.bin("nu_plugin_proc").display());
        command.args(["-n", "--no-std-lib", "--plugins", &plugin, "-c", script]);
        Ok(command)
    }

    /// A Nushell at its prompt, with the plugin: for a terminal.
    pub fn nu_prompt(&self) -> Result<Command> {
        let mut command = self.command(self.nu_program()?);
        let plugin = format!("[{}]", self.bin("nu_plugin_proc").display());
        command.args(["-n", "--no-std-lib", "--no-history", "--plugins", &plugin]);
        Ok(command)
    }

    /// Runs a script; its exit status is the caller's to judge.
    pub fn nu(&self, script: &str) -> Result<Ran> {
        let ran = run(self.nu_command(script)?, LIMIT)?;
        self.note(format!("> {script}\n{}{}", ran.stdout, ran.stderr));
        Ok(ran)
    }

    /// Runs a pipeline that must work, and gives its value.
    pub fn nu_json(&self, pipeline: &str) -> Result<Value> {
        let ran = self.nu(&format!("{pipeline} | to json -r"))?.success()?;
        serde_json::from_str(&ran.stdout).context(format!("no JSON: {ran}"))
    }

    /// Runs a pipeline that must fail with a labelled error, and gives the error.
    pub fn nu_error(&self, pipeline: &str) -> Result<NuFailure> {
        let script = format!(
            "try {{ {pipeline} | {{done: $in}} }} catch {{|e| {{msg: $e.msg, details: $e.details?}} }} | to json -r"
        );
        let ran = self.nu(&script)?.success()?;
        let value: Value = serde_json::from_str(&ran.stdout).context(format!("no JSON: {ran}"))?;
        if let Some(done) = value.get("done") {
            return Err(Fault(format!("`{pipeline}` was to fail, and gave {done}")));
        }
        let details = value.field("details");
        let text = |of: &Value, name| of.text(name).unwrap_or_default().to_owned();
        let labels = details.field("labels").as_array().cloned().unwrap_or_default();
        Ok(NuFailure {
            msg: text(&value, "msg"),
            code: text(details, "code"),
            help: text(details, "help"),
            url: text(details, "url"),
            labels: labels.iter().map(|label| text(label, "text")).collect(),
        })
    }

    /// The same, and the error's code must be `code`.
    pub fn nu_refuses(&self, pipeline: &str, code: &str) -> Result<NuFailure> {
        let failure = self.nu_error(pipeline)?;
        crate::ensure!(failure.code == code, "`{pipeline}`: not {code}: {failure}");
        crate::ensure!(!failure.help.is_empty(), "`{pipeline}`: no help: {failure}");
        Ok(failure)
    }

    fn nu_program(&self) -> Result<PathBuf> {
        let placed = self.bin("nu");
        if self.user().is_some() && placed.is_file() {
            return Ok(placed);
        }
        bins::nu().map(Into::into).context("no Nushell")
    }
}
