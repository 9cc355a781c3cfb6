//! `cargo xtask deb`: a Debian package by cargo-deb, which is installed into the target folder when it is missing.
//!
//! What goes where is in `shimd/Cargo.toml`, the unit in `packaging`. The package is made from a folder of its own, so that
//! the test makes it from what is built already.

use crate::build::{cargo, release, root, target};
use crate::step::step;
use crate::{install::PROGRAMS, man};
use scenarios::fault::Context;
use scenarios::{Fault, Result, bins};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The version of cargo-deb that the metadata was tried with.
const CARGO_DEB: &str = "3.8.0";

/// `[--from DIR] [--output FILE]`.
pub fn deb(arguments: &[String]) -> Result<ExitCode> {
    let (mut from, mut output) = (None, target()?.join("debian/shimd.deb"));
    for pair in arguments.chunks(2) {
        match pair {
            [option, value] if option == "--from" => from = Some(PathBuf::from(value)),
            [option, value] if option == "--output" => output = std::path::absolute(value)?,
            _ => return Err(Fault(format!("{}: there are --from DIR and --output FILE", pair.join(" ")))),
        }
    }
    if bins::on_path("dpkg-deb").is_none() {
        return Err(Fault::new("dpkg-deb is not installed: this takes Debian or a system made from it"));
    }
    let tool = tool()?;
    // A release is packed as it should be, whatever was built already as fast as may be.
    let fast = from.is_some();
    let from = from.map_or_else(release, Ok)?;
    let stage = target()?.join("deb");
    fill(&from, &stage.join("release"))?;
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).context(folder.display())?;
    }
    let mut pack = cargo();
    pack.env("CARGO_TARGET_DIR", &stage);
    pack.env("PATH", path_with(&tool)?);
    pack.args(["deb", "--package", "shimd", "--no-build", "--output"]).arg(&output);
    if fast {
        pack.arg("--fast");
    }
    step("making the Debian package", pack)?;
    println!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}

/// The folder that holds cargo-deb.
pub fn tool() -> Result<PathBuf> {
    let folder = bins::tools().context("cannot tell where the target folder is")?;
    if !folder.join("cargo-deb").is_file() {
        let mut install = cargo();
        install.args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--root"]);
        install.arg(target()?.join("tools"));
        step("building cargo-deb, some minutes", install)?;
    }
    Ok(folder)
}

/// Puts programs and man pages where cargo-deb looks for built files.
fn fill(from: &Path, stage: &Path) -> Result {
    fs::create_dir_all(stage).context(stage.display())?;
    for name in PROGRAMS {
        let (built, to) = (from.join(name), stage.join(name));
        if to.exists() {
            fs::remove_file(&to).context(to.display())?;
        }
        fs::hard_link(&built, &to).or_else(|_| fs::copy(&built, &to).map(drop)).context(built.display())?;
    }
    // Debian has its pages compressed; cargo-deb does so only to those that lie in the source.
    let mut gzip = Command::new("gzip");
    gzip.args(["--best", "--no-name", "--force"]).args(man::pages(&stage.join("man"))?);
    step("compressing the man pages", gzip)
}

fn path_with(folder: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context(root().display())
}
