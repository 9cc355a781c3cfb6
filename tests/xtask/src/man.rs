//! `cargo xtask man`: the man pages, from what clap knows of the command line and the sections in `docs/man`.
//!
//! | page | from |
//! | --- | --- |
//! | `shimd.8`, `shimd-run.8`, `shimd-check.8`, `shimd-wrap.8` | `shimd::cli`, then the sections in `docs/man/<page>` |
//! | `nu_plugin_proc.1` | `docs/man`, whole |

use crate::build::{root, target};
use clap_mangen::Man;
use scenarios::fault::Context;
use scenarios::{Fault, Result, bins};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// All pages.
pub const NAMES: [&str; 5] = ["shimd.8", "shimd-run.8", "shimd-check.8", "shimd-wrap.8", "nu_plugin_proc.1"];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `[DIR]`: where to write them; else `target/man`.
pub fn man(arguments: &[String]) -> Result<ExitCode> {
    let folder = match arguments {
        [] => folder()?,
        [folder] => PathBuf::from(folder),
        _ => return Err(Fault::new("usage: cargo xtask man [DIR]")),
    };
    for page in pages(&folder)? {
        println!("{}", page.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Where they are written for the packages.
pub fn folder() -> Result<PathBuf> {
    Ok(target()?.join("man"))
}

/// Writes all pages, and gives their paths.
pub fn pages(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).context(folder.display())?;
    let mut written = Vec::new();
    let mut write = |name: &str, text: Vec<u8>| -> Result {
        let path = folder.join(name);
        fs::write(&path, text).context(path.display())?;
        written.push(path);
        Ok(())
    };
    // What says only the version has no page.
    let mut whole =
        shimd::cli::command().disable_help_subcommand(true).mut_subcommand("version", |it| it.hide(true));
    // Each subcommand learns its whole name.
    whole.build();
    for command in whole.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("shimd-{}.8", command.get_name());
        write(&name, page(command.clone(), &name, &["shimd"])?)?;
    }
    let also = ["shimd-run", "shimd-check", "shimd-wrap"];
    write("shimd.8", page(whole, "shimd.8", &also)?)?;
    let plugin = own("nu_plugin_proc.1")?.replace("@VERSION@", VERSION).replace("@NU@", bins::NU_VERSION);
    write("nu_plugin_proc.1", plugin.into_bytes())?;
    Ok(written)
}

/// The part that clap knows, the part that it does not, and where to read on.
fn page(mut command: clap::Command, name: &str, also: &[&str]) -> Result<Vec<u8>> {
    let subcommands = command.has_subcommands();
    let usage = command.render_usage().to_string();
    let man = Man::new(command)
        .section("8")
        .date("")
        .source(format!("shimd {VERSION}"))
        .manual("System Manager's Manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    let usage = usage.trim_start_matches("Usage: ").replace('-', "\\-");
    text.extend(format!(".SH SYNOPSIS\n{usage}\n").into_bytes());
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if subcommands {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(own(name)?.into_bytes());
    let also: Vec<String> = also.iter().map(|page| format!(".BR {page} (8)")).collect();
    text.extend(format!(".SH \"SEE ALSO\"\n{}\n", also.join(",\n")).into_bytes());
    Ok(text)
}

fn own(file: &str) -> Result<String> {
    let path = root().join("docs/man").join(file);
    fs::read_to_string(&path).context(path.display())
}
