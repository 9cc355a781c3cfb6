//! Every error code of `nu/` has its row in `docs/errors.md`, and every row its code; and the errors that no other scenario
//! of `nu/` meets.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::{Need, Result, World, bins, ensure, scenario};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("nu_errors::all_in_the_docs", &[], catalogue),
        scenario("nu_errors::without_the_plugin", &needs, no_plugin),
        scenario("nu_errors::of_arguments", &needs, arguments),
        scenario(
            "nu_errors::a_folder_that_the_user_cannot_enter",
            &[Need::Daemon, Need::Nushell, Need::Root, Need::User("nobody"), Need::Program("runuser")],
            denied,
        ),
    ]
}

/// What follows `service::` in this text.
fn codes(text: &str) -> BTreeSet<String> {
    let after = text.split("service::").skip(1);
    after.map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()).collect()
}

fn catalogue(_: &World) -> Result {
    let mut used = BTreeSet::new();
    for entry in fs::read_dir(project("lib"))? {
        used.extend(codes(&fs::read_to_string(entry?.path())?));
    }
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md"))?;
    let (_, section) = page.split_once("## Errors of nu/lib.nu").context("the section")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let told: BTreeSet<String> = rows.flat_map(|(code, _)| codes(code)).collect();
    ensure!(used == told, "used in nu/lib: {used:?}\ntold in docs/errors.md: {told:?}");
    ensure!(used.len() > 5, "only {used:?} are found");
    Ok(())
}

fn no_plugin(world: &World) -> Result {
    let mut command = world.command(bins::nu().context("no Nushell")?);
    let script = format!(
        "use {} *; try {{ service up {{name: nap, exec: [tail -f /dev/null]}} }} catch {{|e| print $e.details.code $e.details.help }}",
        project("lib.nu")
    );
    command.args(["-n", "--no-std-lib", "-c", &script]);
    let ran = run(command, Duration::from_secs(20))?.success()?;
    ensure!(ran.stdout.starts_with("service::no_plugin\n") && ran.stdout.contains("plugin add"), "{ran}");
    Ok(())
}

fn arguments(world: &World) -> Result {
    world.start_daemon()?;
    world.nu("[{name: web, exec: [tail -f /dev/null], sockets: [rpc.sock]} {name: nap, exec: [tail -f /dev/null]}] | proc register")?.success()?;
    let using = format!("use {} *;", project("lib.nu"));
    for (line, code, words) in [
        ("service socket web ui.sock", "service::no_socket", "declared: rpc.sock"),
        ("service socket nap", "service::no_socket", "no socket is declared"),
        ("service program no-such-server --package such", "service::no_program", "apt install such"),
        ("service up", "service::bad_input", "no service named"),
        ("null | service remove", "service::bad_input", "no service named"),
        ("[3] | service restart", "service::bad_input", "neither a service nor a spec"),
        ("[{nom: web}] | service down", "service::bad_input", "`name` or `service` column"),
        ("service status nobody", "proc::unknown_service", "nobody"),
        ("service down web nobody", "proc::unknown_service", "nobody"),
        ("service remove nobody", "proc::unknown_service", "nobody"),
        ("service restart --gapless web", "proc::not_gapless", "web"),
        ("service check --fail web", "proc::failed", "absent"),
    ] {
        let failure = world.nu_refuses(&format!("{using} {line}"), code)?;
        ensure!(failure.mentions(words), "`{line}`: not `{words}`: {failure}");
        ensure!(!failure.labels.is_empty(), "`{line}`: no label: {failure}");
    }
    // Nobody is no error, and not everybody.
    for verb in ["up", "down", "restart --clean", "check", "status", "remove"] {
        let got = world.nu_json(&format!("{using} proc list | where name == nobody | service {verb}"))?;
        ensure!(got == json!([]), "{verb}: {got}");
    }
    let left = world.nu_json("proc list | get name")?;
    ensure!(left == json!(["nap", "web"]), "{left}");
    Ok(())
}

fn denied(world: &World) -> Result {
    // The world's root of sockets lies in a folder of root's alone.
    fs::create_dir_all(world.sockets())?;
    fs::set_permissions(world.sockets(), fs::Permissions::from_mode(0o700))?;
    let line = format!("use {} *; service socket-dir web --user nobody", project("lib.nu"));
    let failure = world.nu_refuses(&line, "service::denied")?;
    ensure!(failure.mentions("HERO_SOCKET_DIR") && failure.mentions("binds there"), "{failure}");
    Ok(())
}
