//! `service install` of `nu/lib.nu`: a program comes into place whole, over one that runs; a service is restarted only for a
//! new one; one that does not work is taken back, with the spec; what was cut short is carried on.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("nu_install::again_and_as_an_update", &needs, update),
        scenario("nu_install::taken_back", &needs, taken_back),
        scenario("nu_install::the_first_does_not_work", &needs, first),
        scenario("nu_install::cut_short", &needs, cut_short),
        scenario("nu_install::refused", &needs, refused),
    ]
}

/// The service's program in place.
fn placed(world: &World) -> PathBuf {
    world.file("bin/web")
}

/// A build of the fixture server, told from others by what follows it.
fn built(world: &World, version: &str) -> Result<PathBuf> {
    let mut bytes = fs::read(world.unixd())?;
    bytes.extend(version.as_bytes());
    let path = world.file(&format!("built-{version}"));
    fs::write(&path, bytes)?; // not executable, as a download
    Ok(path)
}

/// A program that ends at once.
fn broken(world: &World) -> Result<PathBuf> {
    world.write("broken", "#!/bin/sh\necho no such thing >&2\nexit 7\n")
}

fn install(world: &World, from: &std::path::Path, more: &str) -> String {
    let spec = format!(
        "{{name: web, exec: [{} '{{socket:rpc.sock}}'], sockets: [rpc.sock], restart: {{policy: never}} {more}}}",
        placed(world).display()
    );
    format!("use {} *; service install {spec} {}", project("lib.nu"), from.display())
}

/// What `/proc` says that the instance executes, and that it answers.
fn runs(world: &World, row: &Value, program: &std::path::Path) -> Result {
    let exe = format!("/proc/{}/exe", row.pid("pid")?);
    ensure!(fs::read(&exe)? == fs::read(program)?, "{exe} is not {}", program.display());
    ensure!(fs::read(placed(world))? == fs::read(program)?, "in place is not {}", program.display());
    let checked = world.nu_json("proc socket-check web | get verdict")?;
    ensure!(checked == json!(["ok"]), "{checked}");
    Ok(())
}

fn update(world: &World) -> Result {
    let (one, two) = (built(world, "one")?, built(world, "two")?);
    let first = world.nu_json(&install(world, &one, ""))?;
    ensure!(first.text("change")? == "installed" && first.field("previous").is_null(), "{first}");
    runs(world, &first, &one)?;
    ensure!(fs::metadata(placed(world))?.permissions().mode() & 0o777 == 0o755, "it can be executed");

    let again = world.nu_json(&install(world, &one, ""))?;
    ensure!(again.text("change")? == "unchanged", "{again}");
    ensure!(again.pid("pid")? == first.pid("pid")?, "nothing was restarted: {again}");

    // It is being executed: written to in place it would be busy.
    let build = format!(" --build {{ ^cp {} {} }}", two.display(), world.file("target").display());
    let updated = world.nu_json(&format!("{}{build}", install(world, &world.file("target"), "")))?;
    ensure!(updated.text("change")? == "updated", "{updated}");
    ensure!(updated.pid("pid")? != first.pid("pid")?, "{updated}");
    runs(world, &updated, &two)?;
    ensure!(fs::read(updated.text("previous")?)? == fs::read(&one)?, "the one before is kept");

    // A stopped service is brought up, and not restarted.
    world.nu("proc stop web")?.success()?;
    let up = world.nu_json(&install(world, &two, ""))?;
    ensure!(up.text("change")? == "unchanged", "{up}");
    runs(world, &up, &two)
}

fn taken_back(world: &World) -> Result {
    let one = built(world, "one")?;
    world.nu_json(&install(world, &one, ", owner: before"))?;
    let bad = broken(world)?;
    // The service lives on without the daemon; what it was is known to the next one.
    world.nu("proc shim stop")?.success()?;
    let failure = world.nu_refuses(&install(world, &bad, ", owner: after"), "service::rolled_back")?;
    for words in ["the previous one runs again", "exited with status 7", "service logs web", "this program"] {
        ensure!(failure.mentions(words), "not `{words}`: {failure}");
    }
    let status = world.nu_json("proc status web")?;
    ensure!(status.text("status")? == "running", "{status}");
    ensure!(status.field("spec").text("owner")? == "before", "its spec is the one before: {status}");
    runs(world, &status, &one)
}

fn first(world: &World) -> Result {
    let bad = broken(world)?;
    let failure = world.nu_refuses(&install(world, &bad, ""), "proc::failed")?;
    ensure!(failure.mentions("does not come up"), "{failure}");
    let one = built(world, "one")?;
    let mended = world.nu_json(&install(world, &one, ""))?;
    ensure!(mended.field("previous").is_null(), "what never worked is not kept to go back to: {mended}");
    runs(world, &mended, &one)
}

fn cut_short(world: &World) -> Result {
    let (one, two) = (built(world, "one")?, built(world, "two")?);
    let first = world.nu_json(&install(world, &one, ""))?;
    // As an install leaves it that ends after the rename: the new program in place, the old one running.
    let copy = placed(world).with_extension("copy");
    fs::copy(&two, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    fs::rename(&copy, placed(world))?;
    let carried_on = world.nu_json(&install(world, &two, ""))?;
    ensure!(carried_on.text("change")? == "unchanged", "{carried_on}");
    ensure!(carried_on.pid("pid")? != first.pid("pid")?, "it was restarted: {carried_on}");
    runs(world, &carried_on, &two)
}

fn refused(world: &World) -> Result {
    let one = built(world, "one")?;
    let running = world.nu_json(&install(world, &one, ""))?;
    let nowhere = world.file("nowhere");
    let using = format!("use {} *;", project("lib.nu"));
    for (pipeline, code, words) in [
        (install(world, &nowhere, ""), "service::bad_input", "no such file"),
        (
            format!("{} --build {{ ^sh -c 'exit 3' }}", install(world, &nowhere, "")),
            "service::build_failed",
            "exited with code 3",
        ),
        (
            format!("{} --build [no-such-builder]", install(world, &nowhere, "")),
            "service::build_failed",
            "no-such-builder",
        ),
        (
            format!("{} --build {{ error make {{msg: 'no tree here'}} }}", install(world, &nowhere, "")),
            "service::build_failed",
            "no tree here",
        ),
        (
            format!("{using} service install {{name: web, exec: [web]}} {}", one.display()),
            "service::bad_input",
            "--to",
        ),
        (
            format!("{using} service install {{name: web, exec: [/proc/nowhere/web]}} {}", one.display()),
            "service::not_installed",
            "/proc/nowhere",
        ),
    ] {
        let failure = world.nu_refuses(&pipeline, code)?;
        ensure!(
            failure.mentions(words) && !failure.labels.is_empty(),
            "`{pipeline}`: not `{words}`: {failure}"
        );
    }
    // One error is shown, not the one beneath it too, whose place is in lib.nu.
    let shown = world.nu(&format!("{} --build {{ ^sh -c 'exit 3' }}", install(world, &nowhere, "")))?;
    ensure!(shown.stderr.matches("Error:").count() == 1, "{shown}");
    runs(world, &running, &one)
}
