//! Building the workspace's programs with the cargo that runs this.

use scenarios::fault::Context;
use scenarios::{Fault, Result, bins};
use std::path::PathBuf;
use std::process::Command;

/// Cargo, in the project's root.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The project's root.
pub fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map(Into::into).unwrap_or(own)
}

/// Cargo's target folder.
pub fn target() -> Result<PathBuf> {
    bins::target().context("cannot tell where the target folder is")
}

/// The folder of the built programs.
pub fn folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("this program has no folder")?.to_owned())
}

/// Builds all programs. Cargo shows its own progress.
pub fn programs() -> Result {
    let status = cargo().args(["build", "--workspace", "--bins", "--locked"]).status()?;
    if status.success() { Ok(()) } else { Err(Fault::new("the build failed")) }
}

/// Builds what users get, in release; gives its folder.
pub fn release() -> Result<PathBuf> {
    let packages = ["--package", "shimd", "--package", "nu_plugin_proc"];
    let status = cargo().args(["build", "--release", "--bins", "--locked"]).args(packages).status()?;
    if status.success() { Ok(target()?.join("release")) } else { Err(Fault::new("the release build failed")) }
}
