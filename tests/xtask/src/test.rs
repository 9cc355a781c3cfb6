//! `cargo xtask test`: unit, core and plugin tests, then the scenarios, whose closing lines come last.

use crate::build::{cargo, folder, programs, target};
use crate::{nushell, servers};
use scenarios::{Need, Record, Result};
use std::process::{Command, ExitCode};

/// Runs all, or the scenarios whose names hold one of `names`. The status is that of the tests.
pub fn test(names: &[String]) -> Result<ExitCode> {
    let nu = nushell::nushell()?;
    servers::install(&Record::all()?);
    programs()?;
    let prepared = |arguments: &[&str]| -> Result<Command> {
        let mut command = cargo();
        command.args(["test", "--workspace", "--locked"]).args(arguments);
        command.env("SCENARIOS_NU", &nu);
        command.env("SCENARIOS_BIN", folder()?);
        command.env("SCENARIOS_SERVERS", target()?.join("servers"));
        Ok(command)
    };
    let mut passed = true;
    if names.is_empty() {
        let status = prepared(&["--no-fail-fast", "--exclude", "scenarios"])?.status()?;
        passed = status.success();
        // Mounts and namespaces. Where they may not be made, the run above has named these tests as ignored.
        if Command::new("unshare").args(["--mount", "--net", "true"]).status().is_ok_and(|s| s.success()) {
            let mut audit = cargo();
            audit.args(["test", "--locked", "--package", "socket-audit", "--tests", "--", "--ignored"]);
            if Need::Program("mkfs.btrfs").lacking().is_some() {
                eprintln!("xtask: skipped, for want of mkfs.btrfs: sockets of btrfs subvolumes");
                audit.args(["--skip", "btrfs"]);
            }
            passed &= audit.status()?.success();
        }
        if !passed {
            eprintln!("xtask: tests have failed above; the scenarios follow");
        }
    }
    let mut scenarios = prepared(&["--test", "scenarios", "--"])?;
    // Several names: a scenario that holds any of them. The runner takes one, so each has a run.
    if names.is_empty() {
        passed &= scenarios.status()?.success();
    }
    for name in names {
        passed &= prepared(&["--test", "scenarios", "--", name])?.status()?.success();
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
