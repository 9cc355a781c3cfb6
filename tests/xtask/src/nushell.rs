//! Nushell of the version that the plugin is built for: the one on PATH, else npm's binary, else built by cargo.

use crate::build::{cargo, target};
use crate::step::step;
use scenarios::fault::Context;
use scenarios::{Result, bins};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Finds it or gets it.
pub fn nushell() -> Result<PathBuf> {
    if let Some(nu) = bins::nu() {
        return Ok(nu.to_owned());
    }
    let folder = target()?.join("nu");
    let nu = bins::nu_in(&target()?);
    if cfg!(target_arch = "x86_64") && bins::on_path("npm").is_some() {
        match from_npm(bins::NU_VERSION, &folder) {
            Ok(()) if bins::is_nu(&nu) => return Ok(nu),
            Ok(()) => eprintln!("xtask: npm's Nushell does not run here"),
            Err(fault) => eprintln!("xtask: {fault}"),
        }
    }
    let mut install = cargo();
    install.args(["install", "nu", "--version", bins::NU_VERSION, "--locked", "--root"]).arg(&folder);
    step("building Nushell from source, some minutes", install)?;
    bins::is_nu(&nu).then_some(nu).context("the Nushell that was built does not run")
}

/// A Nushell that the plugin is not built for, for the scenario that looks what it says. npm's binary or none.
pub fn other() -> Result {
    let version = bins::OTHER_NU;
    let folder = target()?.join("nu-other");
    let to = bins::tools().context("cannot tell where the target folder is")?.join(format!("nu-{version}"));
    if to.is_file() || !cfg!(target_arch = "x86_64") || bins::on_path("npm").is_none() {
        return Ok(());
    }
    from_npm(version, &folder)?;
    fs::create_dir_all(to.parent().unwrap_or(&to))?;
    fs::rename(folder.join("bin/nu"), &to).context(to.display())
}

fn from_npm(version: &str, folder: &Path) -> Result {
    fs::create_dir_all(folder).context(folder.display())?;
    let mut pack = Command::new("npm");
    pack.args(["pack", &format!("@nushell/linux-x64@{version}")]).current_dir(folder);
    step(&format!("getting Nushell {version}"), pack)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(format!("nushell-linux-x64-{version}.tgz")).arg("--strip-components=1");
    step(&format!("unpacking Nushell {version}"), {
        unpack.current_dir(folder);
        unpack
    })
}
