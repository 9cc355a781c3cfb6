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
        match from_npm(&folder) {
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

fn from_npm(folder: &Path) -> Result {
    fs::create_dir_all(folder).context(folder.display())?;
    let mut pack = Command::new("npm");
    pack.args(["pack", &format!("@nushell/linux-x64@{}", bins::NU_VERSION)]).current_dir(folder);
    step("getting Nushell", pack)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(format!("nushell-linux-x64-{}.tgz", bins::NU_VERSION)).arg("--strip-components=1");
    step("unpacking Nushell", {
        unpack.current_dir(folder);
        unpack
    })
}
