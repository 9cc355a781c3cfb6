//! What the documents show is what comes: the README's recording and its commands, and links between documents.

use libtest_mimic::Trial;
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::shown::{Block, blocks, difference, normal};
use scenarios::{Fault, Json, Need, Record, Result, World, bins, ensure, scenario};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

pub fn trials() -> Vec<Trial> {
    let mut needs = vec![Need::Daemon, Need::Nushell, Need::Root];
    needs.extend(Record::named("redis").ok().map(|record| Need::Server(Box::new(record))));
    let mut with_tools = needs.clone();
    with_tools.extend([Need::Program("socat"), Need::Program("curl")]);
    vec![
        scenario("documents::outputs_are_compared", &[], compared),
        scenario("documents::readme_recording", &needs, recording),
        scenario("documents::readme_commands", &with_tools, commands),
        scenario("documents::links_lead_somewhere", &[], links),
    ]
}

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")
}

fn compared(_: &World) -> Result {
    let narrow = "> proc list\n╭──────┬───────╮\n│ name │  took │\n├──────┼───────┤\n│ web  │  44ms │\n│      │ 483µs │\n╰──────┴───────╯\nSeen within 6 ms.";
    let wide = "> proc list\n╭──────┬───────────╮\n│ name │   took    │\n├──────┼───────────┤\n│ web  │ 1sec 19ms │\n╰──────┴───────────╯\nSeen within 12 ms.";
    ensure!(normal(narrow) == normal(wide), "{:?}\n{:?}", normal(narrow), normal(wide));
    ensure!(
        normal(narrow) == ["> proc list", "nameweb", "tookT", "Seen within N ms."],
        "{:?}",
        normal(narrow)
    );
    for (one, other) in [("ok", "dangling"), ("pid 12", "pid"), ("12 files", "twelve files"), ("3sec", "3")] {
        ensure!(normal(one) != normal(other), "{one} is not {other}");
    }
    ensure!(difference(&normal("a\nb"), &normal("a")).is_some(), "a line is missing");
    Ok(())
}

/// A fresh run of the demo, put into a copy of the README: nothing but numbers may change.
fn recording(world: &World) -> Result {
    let text = fs::read_to_string(readme())?;
    let copy = world.write("README.md", &text)?;
    let xtask = bins::built("xtask").context("xtask is not built")?;
    // With the caller's environment: it makes a world of its own.
    let mut demo = Command::new(xtask);
    demo.args(["demo", "--built", "--record"]).arg(&copy);
    world.note(run(demo, LONG)?.success()?);
    let of = |text: &str| -> Result<Vec<String>> {
        let (_, demo) = text.split_once("<!-- demo -->").context("no demo in the README")?;
        Ok(normal(&blocks(demo).first().context("no block in the demo")?.text))
    };
    let (shown, came) = (of(&text)?, of(&fs::read_to_string(copy)?)?);
    ensure!(shown.len() > 30, "the README shows a session: {shown:?}");
    match difference(&shown, &came) {
        None => Ok(()),
        Some(words) => Err(Fault(format!("record it anew (cargo xtask demo --record README.md):\n{words}"))),
    }
}

/// The blocks below a heading.
fn section(text: &str, heading: &str) -> Result<Vec<Block>> {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).context(format!("no section {heading}"))?;
    Ok(blocks(rest.split_once("\n## ").map_or(rest, |(section, _)| section)))
}

/// What the README tells a newcomer to type.
fn commands(world: &World) -> Result {
    let text = fs::read_to_string(readme())?;
    // Each command that is named for the shell is one that there is.
    let xtask = bins::built("xtask").context("xtask is not built")?;
    let usage = run(world.command(xtask), LONG)?.stderr;
    let mut named = 0;
    for block in ["Two commands", "Install"].map(|heading| section(&text, heading)) {
        for line in block?.iter().flat_map(|block| block.text.lines()) {
            let command = line.strip_prefix("$ ").context(line)?.split("  ").next().unwrap_or_default();
            ensure!(usage.contains(command), "{command:?} is none of\n{usage}");
            named += 1;
        }
    }
    ensure!(named == 4, "{named} commands of cargo xtask");

    let first = section(&text, "A first service")?;
    let [story] = first.as_slice() else { return Err(Fault(format!("one block: {first:?}"))) };
    ensure!(world.nu(&story.text)?.success()?.stdout.trim().ends_with("PONG"), "a client is answered");
    let row = world.service("cache")?;
    ensure!(row.text("status")? == "running", "{row}");

    let asked = section(&text, "JSON-RPC and HTTP")?;
    let lines: Vec<&str> = asked.iter().flat_map(|block| block.text.lines()).collect();
    ensure!(lines.len() == 3, "{lines:?}");
    for (line, answer) in lines.into_iter().zip(["\"cache\"", "\"services\":1", "ok"]) {
        let mut shell = world.command("/bin/bash");
        // Its nu is the one that the tests have.
        let folder = bins::nu().and_then(Path::parent).context("no Nushell")?;
        shell.env("PATH", format!("{}:{}", folder.display(), bins::SYSTEM_PATH));
        shell.args(["-c", line.strip_prefix("$ ").context(line.to_owned())?]);
        let ran = run(shell, LONG)?.success()?;
        world.note(&ran);
        ensure!(ran.stdout.contains(answer), "no {answer}: {ran}");
    }
    Ok(())
}

/// Links from one document to another.
fn links(_: &World) -> Result {
    let root = readme().parent().context("no folder")?.to_owned();
    let mut documents = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        documents.extend(Some(entry?.path()).filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    let (mut lost, mut count) = (Vec::new(), 0);
    for document in documents {
        let text = fs::read_to_string(&document)?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.contains(char::is_whitespace) {
                continue;
            }
            count += 1;
            if !document.with_file_name(file).exists() {
                lost.push(format!("{}: {link}", document.display()));
            }
        }
    }
    ensure!(count > 40, "only {count} links were found");
    ensure!(lost.is_empty(), "these lead nowhere:\n{}", lost.join("\n"));
    Ok(())
}
