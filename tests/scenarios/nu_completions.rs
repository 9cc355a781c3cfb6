//! Tab at the prompt, after the verbs of `nu/lib.nu`: services with how each is, groups, and the words that a flag may have.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::terminal::Terminal;
use scenarios::{Need, Result, World, ensure, scenario, specs};

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid")];
    vec![scenario("nu_completions", &needs, completions)]
}

fn completions(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::with(
        specs::unixd(world, "web-one", &[]),
        serde_json::json!({"part_of": ["shop", "front"]}),
    ))?;
    world.register(&specs::unixd(world, "web-two", &[]))?;
    let mut terminal = Terminal::run(world, &world.nu_prompt()?, 24, 80)?;
    terminal.wait("a prompt", |screen| screen.contains('>'))?;
    terminal.press(&format!(
        "use {} *; use {}; 'rea' + 'dy'\r",
        project("lib.nu"),
        project("services/redis.nu")
    ))?;
    terminal.wait("an answer", |screen| screen.lines().any(|line| line.trim() == "ready"))?;
    for (line, offered) in [
        ("service down web-", &["web-one", "web-two", "running", "inactive"][..]),
        ("service logs web-", &["web-one", "web-two", "running", "inactive"]),
        ("service members ", &["shop", "front"]),
        ("service spec {name: a, exec: [b]} --on-missing re", &["relink", "restart", "report"]),
        ("service spec {name: a, exec: [b]} --stop-", &["--stop-signal", "--stop-timeout"]),
        ("service socket-spec a --mode ", &["bind", "publish", "activate"]),
        ("service restart --", &["--clean", "--gapless"]),
        ("redis logs --", &["--follow", "--since", "--lines", "--raw"]),
    ] {
        terminal.press(&format!("{line}\t"))?;
        let all = |screen: &str| {
            let below = screen.rsplit_once(line.trim_end()).map(|(_, below)| below).unwrap_or_default();
            offered.iter().all(|word| below.contains(word))
        };
        let screen = terminal.wait(line, all)?;
        world.note(&screen);
        ensure!(!screen.contains("Error"), "{screen}");
        // The menu and the line are left.
        terminal.press("\u{3}")?;
        let last = |screen: &str| screen.trim_end().lines().last().map(str::to_owned).unwrap_or_default();
        terminal.wait("an empty line", |screen| {
            last(screen).contains('>') && !last(screen).contains("service")
        })?;
    }
    Ok(())
}
