//! `service` by itself shows the verbs of `nu/lib.nu`, and stands in the way of no program of the system's of this name.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::{Need, Result, World, ensure, scenario};
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub fn trials() -> Vec<Trial> {
    vec![scenario("nu_overview", &[Need::Daemon, Need::Nushell], overview)]
}

fn overview(world: &World) -> Result {
    let using = format!("use {} *;", project("lib.nu"));
    for asking in ["service", "service --help", "help service"] {
        let shown = world.nu(&format!("{using} {asking}"))?.success()?.stdout;
        for verb in ["up", "down", "restart", "check", "logs", "status", "install", "new"] {
            let named = shown.lines().any(|line| line.trim().starts_with(&format!("service {verb} ")));
            ensure!(named, "`{asking}` does not name {verb}:\n{shown}");
        }
    }
    let alone = format!("{using} $env.PATH = []; service upp");
    let refused = world.nu_refuses(&alone, "service::bad_input")?;
    ensure!(refused.mentions("upp") && refused.help.contains("shows the verbs"), "{refused}");
    let program = world.file("bin/service");
    fs::create_dir(world.file("bin"))?;
    fs::write(&program, "#!/bin/sh\nprintf '%s,' \"$@\"\n")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let given = world.nu(&format!(
        "{using} $env.PATH = ['{}']; service cron --full-restart",
        world.file("bin").display()
    ))?;
    ensure!(given.success()?.stdout.trim() == "cron,--full-restart,", "it gets its words");
    Ok(())
}
