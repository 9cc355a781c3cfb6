//! The module of `docs/moving.md`, before and after, as they stand there. The one before takes a file for a listener, and
//! loses its own; the one after takes over what the one before left, and does all that it did.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::fault::Context;
use scenarios::wait::wait_for;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell, Need::Program("setsid"), Need::Program("pkill")];
    vec![
        scenario("nu_moving::before", &needs, before),
        scenario("nu_moving::after_takes_over", &needs, after),
    ]
}

/// The block of the page that begins with this line, as a module of the world's.
fn module(world: &World, heading: &str) -> Result<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/moving.md"))?;
    let (_, block) = page.split_once(&format!("```nu\n{heading}\n")).context(heading)?;
    let (block, _) = block.split_once("```").context("an open block")?;
    fs::create_dir_all(world.file(heading.rsplit(' ').next().context(heading)?))?;
    let path = world.write(
        &format!("{}/agent.nu", heading.rsplit(' ').next().context(heading)?),
        &block.replace("use shim/lib.nu", &format!("use {}", project("lib.nu"))),
    )?;
    // Its sockets lie where they always did; the tools that it calls are the world's.
    Ok(format!(
        "$env.HERO_SOCKET_DIR = [$env.HOME hero var sockets] | path join; $env.PATH = $env.PATH | prepend '{}'; use {};",
        world.file("tools").display(),
        path.display(),
    ))
}

fn program(path: &Path, script: &str) -> Result {
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn home(world: &World, path: &str) -> PathBuf {
    world.folder().join("u").join(path)
}

/// The server, and a stand-in for the supervisor that runs it and knows no more than its pid.
fn tools(world: &World) -> Result {
    let server = home(world, ".cargo/bin/agent-server");
    program(&server, &format!("exec {} \"$2\" \"$4\"", world.unixd()))?;
    let (pid, folder) = (world.file("pid"), home(world, "hero/var/sockets/agent"));
    let start = format!(
        "setsid {} --rpc {folder}/rpc.sock --ui {folder}/ui.sock </dev/null >/dev/null 2>&1 & echo $! >{pid}",
        server.display(),
        folder = folder.display(),
        pid = pid.display(),
    );
    let script = format!(
        "case $2 in\nset) cat >/dev/null ;;\nstart) [ -e /proc/$(cat {pid} 2>/dev/null || echo none)/exe ] || {{ {start}; }} ;;\n\
         stop) kill \"$(cat {pid})\" ;;\nesac",
        pid = pid.display(),
    );
    program(&world.file("tools/hero_proc"), &script)
}

fn old_pid(world: &World) -> Result<i32> {
    Ok(fs::read_to_string(world.file("pid"))?.trim().parse()?)
}

fn before(world: &World) -> Result {
    tools(world)?;
    let using = module(world, "# agent.nu, before")?;
    let rpc = home(world, "hero/var/sockets/agent/rpc.sock");
    let running = |what: &str, wanted: bool| -> Result {
        let said = world.nu_json(&format!("{using} agent running"))?;
        ensure!(said == wanted, "{what}: it says {said}");
        Ok(())
    };
    world.nu(&format!("{using} agent start"))?.success()?;
    running("it runs", true)?;
    let pid = old_pid(world)?;
    ensure!(ping(&rpc)? == pid, "it answers");

    // A start of what runs: its files go, and it does not.
    let mut second = world.nu_command(&format!("{using} agent start"))?.stderr(Stdio::null()).spawn()?;
    let verdict = || world.nu_json(&format!("proc socket-check {} | get 0.verdict", rpc.display()));
    let lost = wait_for(SOON, "the file is removed", || Ok(verdict()? == "dangling"));
    second.kill()?;
    second.wait()?;
    lost?;
    ensure!(processes::alive(pid), "it lives");

    // A file that nobody listens on is enough for it.
    world.nu(&format!("{using} ^kill -9 {pid}"))?.success()?;
    wait_until(SOON, "its end", || !processes::alive(pid))?;
    world.nu(&format!("{using} agent start"))?.success()?;
    let pid = old_pid(world)?;
    world.nu(&format!("^kill -9 {pid}"))?.success()?;
    wait_until(SOON, "its end", || !processes::alive(pid))?;
    running("nobody listens", true)?;
    ensure!(verdict()? == "stale", "the verdict is {}", verdict()?);
    Ok(())
}

fn after(world: &World) -> Result {
    tools(world)?;
    let rpc = home(world, "hero/var/sockets/agent/rpc.sock");
    world.nu(&format!("{} agent start", module(world, "# agent.nu, before")?))?.success()?;
    let old = old_pid(world)?;

    let using = module(world, "# agent.nu, after")?;
    let failure = world.nu_refuses(&format!("{using} agent up"), "proc::failed")?;
    ensure!(failure.mentions("foreign") && failure.mentions(&old.to_string()), "who is there: {failure}");
    ensure!(ping(&rpc)? == old, "it is left alone");
    let moved = world.nu_json(&format!("{using} agent restart --clean"))?;
    let row = moved.only()?;
    ensure!(row.text("outcome")? == "restarted", "{row}");
    ensure!(row.field("killed").rows()?.iter().any(|pid| *pid == old), "{row}");
    ensure!(ping(&rpc)? == row.pid("new_pid")?, "the new one answers at the old path");

    let checked = world.nu_json(&format!("{using} agent check --fail | get verdict"))?;
    ensure!(checked == serde_json::json!(["ok", "ok"]), "{checked}");
    fs::remove_file(&rpc)?;
    wait_until(SOON, "the file is back", || rpc.exists())?;
    ensure!(ping(&rpc)? == row.pid("new_pid")?, "without a restart");

    // A build, in a folder that has one.
    let build = world.file("target/release/agent-server");
    let server = home(world, ".cargo/bin/agent-server");
    let cargo = format!(
        "mkdir -p target/release && cp {} {build} && echo '# anew' >>{build}",
        server.display(),
        build = build.display()
    );
    program(&world.file("tools/cargo"), &cargo)?;
    let updated = world.nu_json(&format!("{using} agent install"))?;
    ensure!(updated.text("change")? == "updated", "{updated}");
    ensure!(ping(&rpc)? == updated.pid("pid")?, "{updated}");
    let socket = world.nu_json(&format!("{using} use {} *; service socket agent", project("lib.nu")))?;
    ensure!(socket == rpc.display().to_string(), "{socket}");
    let stopped = world.nu_json(&format!("{using} agent down"))?;
    ensure!(stopped.only()?.text("status")? == "inactive", "{stopped}");
    Ok(())
}
