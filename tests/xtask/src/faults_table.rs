//! `cargo xtask faults-table`: the fault matrix as a page of the docs, from the scenarios themselves.

use crate::build::{cargo, root};
use scenarios::fault::Context;
use scenarios::{Fault, Result};
use std::fs;
use std::process::{ExitCode, Stdio};

/// Writes docs/faults.md anew.
pub fn faults_table(arguments: &[String]) -> Result<ExitCode> {
    if let Some(argument) = arguments.first() {
        return Err(Fault(format!("faults-table takes no argument, and was given {argument:?}")));
    }
    let mut faults = cargo();
    faults.args([
        "test",
        "--quiet",
        "--locked",
        "--package",
        "scenarios",
        "--test",
        "faults",
        "--",
        "--table",
    ]);
    let output = faults.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(Fault::new("the faults could not be built"));
    }
    let page = root().join("docs/faults.md");
    fs::write(&page, &output.stdout).context(page.display())?;
    eprintln!("xtask: written: {}", page.display());
    Ok(ExitCode::SUCCESS)
}
