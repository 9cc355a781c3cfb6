//! `docs/guide.md`: each block of Nushell is run, from top to bottom, and what the guide shows is what comes.
//!
//! A block is run by a Nushell of its own. ```` ```nu NAME ```` (or another language) is a file, which is written into the working folder. A
//! ```` ```text ```` after a block is what it gives.

use libtest_mimic::Trial;
use scenarios::command::run;
use scenarios::shown::{Block, blocks, difference, normal};
use scenarios::{Fault, Need, Record, Result, World, bins, ensure, scenario, scenario_as};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    let mut needs = vec![Need::Daemon, Need::Nushell, Need::Program("socat"), Need::Program("python3")];
    needs.extend(Record::named("redis").ok().map(|record| Need::Server(Box::new(record))));
    vec![
        scenario("guide::every_block", &needs, guide),
        scenario_as("nobody", "guide::ordinary_user", &needs, guide),
    ]
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn guide(world: &World) -> Result {
    // As cargo xtask install puts them.
    let library = world.file("scripts");
    fs::create_dir(&library)?;
    // Copied: another user may not reach this project's folder.
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(project("nu")).arg(library.join("shim"));
    run(copy, LONG)?.success()?;
    let all = blocks(&fs::read_to_string(project("docs/guide.md"))?);
    let (mut ran, mut compared) = (0, 0);
    for (index, block) in all.iter().enumerate() {
        match block.language.split_once(' ') {
            Some((_, file)) => {
                world.write(file, &block.text)?;
            }
            None if block.language == "nu" => {
                ran += 1;
                let came = play(world, &library, block)?;
                if let Some(shown) = all.get(index + 1).filter(|next| next.language == "text") {
                    compared += 1;
                    same(block, shown, &came)?;
                }
            }
            _ => {}
        }
    }
    ensure!(ran > 20 && compared > 15, "{ran} blocks were run, {compared} compared");
    Ok(())
}

fn play(world: &World, library: &Path, block: &Block) -> Result<String> {
    let mut nu = world.command(if world.user().is_some() { world.bin("nu") } else { program()? });
    let plugin = format!("[{}]", world.bin("nu_plugin_proc").display());
    nu.args(["-n", "--no-std-lib", "--plugins", &plugin, "-I"]).arg(library).args(["-c", &block.text]);
    let ran = run(nu, LONG)?;
    world.note(&ran);
    Ok(ran.success().map_err(|fault| Fault(format!("the block in line {}: {fault}", block.line)))?.stdout)
}

fn program() -> Result<PathBuf> {
    bins::nu().map(Into::into).ok_or_else(|| Fault::new("no Nushell"))
}

fn same(block: &Block, shown: &Block, came: &str) -> Result {
    match difference(&normal(&shown.text), &normal(came)) {
        None => Ok(()),
        Some(words) => {
            Err(Fault(format!("the block in line {} gives something else:\n{words}\n{came}", block.line)))
        }
    }
}
