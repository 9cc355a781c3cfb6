//! `cargo xtask bench`: the programs in release, then the bench of package `scenarios`, which prints its table.

use crate::build::{cargo, target};
use crate::nushell;
use scenarios::{Fault, Result};
use std::process::{Command, ExitCode};

/// Measures all figures, or those named.
pub fn bench(names: &[String]) -> Result<ExitCode> {
    let nu = nushell::nushell()?;
    let built = cargo().args(["build", "--release", "--workspace", "--bins", "--locked"]).status()?;
    if !built.success() {
        return Err(Fault::new("the release build failed"));
    }
    let folder = target()?.join("release");
    let mut bench = Command::new(folder.join("bench"));
    let status = bench.args(names).env("SCENARIOS_NU", nu).env("SCENARIOS_BIN", folder).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
