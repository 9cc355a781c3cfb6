//! The man pages: groff has nothing to complain of, and what a reader looks for is there.

use libtest_mimic::Trial;
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::{Need, Result, World, bins, ensure, scenario};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

pub fn trials() -> Vec<Trial> {
    vec![scenario("man_pages", &[Need::Daemon, Need::Program("groff")], pages)]
}

fn pages(world: &World) -> Result {
    let folder = world.file("man");
    let mut make = world.command(bins::built("xtask").context("xtask is not built")?);
    make.arg("man").arg(&folder);
    let made = run(make, SOON)?.success()?;
    let mut names: Vec<&str> = made.stdout.lines().filter_map(|path| path.rsplit('/').next()).collect();
    names.sort_unstable();
    let all = ["nu_plugin_proc.1", "shimd-check.8", "shimd-run.8", "shimd-wrap.8", "shimd.8"];
    ensure!(names == all, "the pages are {names:?}");
    for name in all {
        let page = folder.join(name);
        let mut groff = world.command("groff");
        // All warnings, at 80 columns, without the marks of a terminal.
        groff.args(["-man", "-ww", "-Tutf8", "-rLL=80n", "-P-cbou"]).arg(&page);
        let text = run(groff, SOON)?.success()?;
        ensure!(text.stderr.is_empty(), "groff complains of {name}:\n{text}");
        let mut wanted = vec!["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"];
        if name.ends_with('8') {
            wanted.extend(["OPTIONS", "EXIT STATUS"]);
        }
        if name == "shimd.8" {
            wanted.extend(["ENVIRONMENT", "FILES", "SIGNALS", "shimd-run(8)", "SHIMD_HOME", "SHIMD_LOG"]);
        }
        for words in wanted {
            ensure!(text.stdout.contains(words), "{name} has no {words}:\n{}", text.stdout);
        }
        // NAME is one line: that is what apropos(1) shows.
        let source = fs::read_to_string(&page)?;
        ensure!(!source.contains("@VERSION@") && !source.contains("@NU@"), "a placeholder is left in {name}");
        let described = source.lines().find(|line| line.contains(" \\- ")).context("no line of NAME")?;
        ensure!(described.len() < 100, "{described}");
    }
    // An option that is new is in its page, since both come from the same place.
    let mut help = world.command(world.bin("shimd"));
    help.args(["wrap", "--help"]);
    let help = run(help, SOON)?.success()?.stdout;
    let wrap = fs::read_to_string(folder.join("shimd-wrap.8"))?.replace("\\-", "-");
    let options = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    let mut count = 0;
    for option in options {
        count += 1;
        ensure!(wrap.contains(option.trim_end_matches(',')), "shimd-wrap.8 does not have {option}");
    }
    ensure!(count > 6, "the help has options: {help}");
    Ok(())
}
