//! The real servers of the records, from Debian, PyPI and npm. What cannot be installed is said by name, and its scenario
//! is then reported as ignored: nothing here is an error.

use crate::build::target;
use crate::step::step;
use nix::unistd::geteuid;
use scenarios::fault::Context;
use scenarios::{Need, Record, Result, bins};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Installs what the records name and the machine lacks.
pub fn install(records: &[Record]) {
    let records: Vec<&Record> = records.iter().filter(|record| record.lacking().is_some()).collect();
    if records.is_empty() {
        return;
    }
    let packages = |of: fn(&Record) -> &Vec<String>| -> BTreeSet<&str> {
        records.iter().flat_map(|record| of(record)).map(String::as_str).collect()
    };
    debian(&packages(|record| &record.packages.debian));
    for done in [pip(&packages(|record| &record.packages.pip)), npm(&packages(|record| &record.packages.npm))]
    {
        if let Err(fault) = done {
            eprintln!("xtask: {fault}");
        }
    }
    for record in records {
        if let Some(reason) = record.lacking() {
            eprintln!("xtask: {} will be skipped: {reason}", record.name);
        }
    }
}

/// Programs that scenarios use by themselves, and the Debian packages that bring them.
const TOOLS: [(&str, &str); 8] = [
    ("curl", "curl"),
    ("groff", "groff-base"),
    ("socat", "socat"),
    ("python3", "python3"),
    ("runsv", "runit"),
    ("s6-supervise", "s6"),
    ("systemctl", "systemd"),
    ("systemd-tmpfiles", "systemd"),
];

/// Installs the programs that scenarios use by themselves and the machine lacks.
pub fn tools() {
    let lacking = |program| Need::Program(program).lacking();
    let packages: BTreeSet<&str> = TOOLS
        .into_iter()
        .filter(|(program, _)| lacking(program).is_some())
        .map(|(_, package)| package)
        .collect();
    debian(&packages);
    for reason in TOOLS.into_iter().filter_map(|(program, _)| lacking(program)) {
        eprintln!("xtask: scenarios that use it will be skipped: {reason}");
    }
}

fn debian(packages: &BTreeSet<&str>) {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return;
    }
    if !geteuid().is_root() || bins::on_path("apt-get").is_none() {
        eprintln!("xtask: not installed, since that takes root and apt: {}", missing.join(" "));
        return;
    }
    let _quiet = NoServiceStarts::begin();
    // An old list of packages may do: whether it does, the installation shows.
    if let Err(fault) = step("fetching Debian's list of packages", apt(&["update"])) {
        eprintln!("xtask: {fault}");
    }
    let install = |packages: &[&str]| {
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(packages);
        step(&format!("installing {}", packages.join(" ")), apt(&arguments))
    };
    if install(&missing).is_ok() {
        return;
    }
    // One that cannot be had must not cost the others.
    for package in missing {
        if let Err(fault) = install(&[package]) {
            eprintln!("xtask: {fault}");
        }
    }
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}

fn apt(arguments: &[&str]) -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
    apt
}

/// Keeps Debian's packages from starting their services while it lives (`invoke-rc.d(8)`: a policy that exits with 101).
/// The script looks for this process, so that one which is left behind forbids nothing.
struct NoServiceStarts {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServiceStarts {
    fn begin() -> NoServiceStarts {
        let script = format!("#!/bin/sh\n[ -d /proc/{} ] && exit 101\nexit 0\n", std::process::id());
        let write = || {
            fs::write(POLICY, script)?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
        };
        // A policy that is there already is the machine's own.
        NoServiceStarts { ours: !Path::new(POLICY).exists() && write().is_ok() }
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(POLICY).is_err() {
            eprintln!("xtask: {POLICY} could not be removed");
        }
    }
}

fn pip(packages: &BTreeSet<&str>) -> Result {
    if packages.is_empty() {
        return Ok(());
    }
    let venv = target()?.join("servers/venv");
    let pip = venv.join("bin/pip");
    if !pip.is_file() {
        let python = bins::on_path("python3").context("no python3: its servers are skipped")?;
        let make = || {
            let mut make = Command::new(&python);
            make.args(["-m", "venv"]).arg(&venv);
            step("making a Python environment", make)
        };
        if make().is_err() {
            // Debian's python3 comes without it.
            debian(&BTreeSet::from(["python3-venv"]));
            make()?;
        }
    }
    let mut install = Command::new(pip);
    install.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages);
    step("installing servers from PyPI", install)
}

fn npm(packages: &BTreeSet<&str>) -> Result {
    if packages.is_empty() {
        return Ok(());
    }
    let npm = bins::on_path("npm").context("no npm: its servers are skipped")?;
    let folder = target()?.join("servers/npm");
    fs::create_dir_all(&folder).context(folder.display())?;
    let mut install = Command::new(npm);
    install.args(["install", "--no-audit", "--no-fund", "--prefix", "."]).args(packages).current_dir(&folder);
    step("installing servers from npm", install)
}
