//! `cargo xtask test`: unit, core and plugin tests, then the scenarios and the faults, whose closing line comes last.

use crate::build::{cargo, folder, programs, target};
use crate::tally::Tally;
use crate::{deb, install, nushell, servers};
use scenarios::{Need, Record, Result};
use std::process::{Command, ExitCode};

/// Runs all, or the scenarios and faults whose names hold one of `names`. The status is that of the tests.
pub fn test(names: &[String]) -> Result<ExitCode> {
    let nu = nushell::nushell()?;
    servers::install(&Record::all()?);
    servers::tools();
    if let Err(fault) = nushell::other() {
        eprintln!("xtask: {fault}");
    }
    // It takes minutes to build, and one scenario to use it.
    if (names.is_empty() || names.iter().any(|name| name.contains("package")))
        && let Err(fault) = deb::tool()
    {
        eprintln!("xtask: {fault}");
    }
    // What cargo install gives, of each package alone: features that only a neighbour asks for are missing there. Minutes, too.
    let mut passed = true;
    if (names.is_empty() || names.iter().any(|name| name.contains("by_cargo")))
        && let Err(fault) = install::by_cargo()
    {
        eprintln!("xtask: {fault}");
        passed = false;
    }
    programs()?;
    let prepared = |arguments: &[&str]| -> Result<Command> {
        let mut command = cargo();
        command.args(["test", "--workspace", "--locked"]).args(arguments);
        command.env("SCENARIOS_NU", &nu);
        command.env("SCENARIOS_BIN", folder()?);
        command.env("SCENARIOS_SERVERS", target()?.join("servers"));
        Ok(command)
    };
    if names.is_empty() {
        let status = prepared(&["--no-fail-fast", "--exclude", "scenarios"])?.status()?;
        passed &= status.success();
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
            eprintln!("xtask: tests have failed above; the scenarios and faults follow");
        }
    }
    let mut tally = Tally::default();
    for runner in ["scenarios", "faults"] {
        if names.is_empty() {
            tally.run(runner, prepared(&["--test", runner])?)?;
        }
        // Several names: what holds any of them. The runner takes one, so each has a run.
        for name in names {
            tally.run(&format!("{runner} {name}"), prepared(&["--test", runner, "--", name])?)?;
        }
    }
    passed &= tally.close();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
