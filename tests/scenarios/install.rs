//! `cargo xtask install` and `uninstall`, for a user with a Nushell of their own; and a Nushell of the wrong version.

use libtest_mimic::Trial;
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::{Need, Result, World, bins, ensure, scenario};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("install::and_uninstall", &needs, there_and_back),
        scenario("install::by_cargo", &[Need::Tool("shimd"), Need::Tool("nu_plugin_proc")], by_cargo),
        scenario("install::packages_are_complete", &[Need::Program("cargo")], packages),
        scenario("install::wrong_nushell", &needs, wrong),
        scenario("install::plugin_in_wrong_nushell", &[Need::Daemon, Need::Tool("nu-0.114.1")], refused),
    ]
}

/// A command whose PATH begins with this folder.
fn with_path(world: &World, program: &Path, first: &Path) -> Command {
    let mut command = world.command(program);
    command.env("PATH", format!("{}:{}", first.display(), bins::SYSTEM_PATH));
    command
}

fn xtask(world: &World, first: &Path, arguments: &[&str]) -> Result<Command> {
    let program = bins::built("xtask").context("xtask is not built")?;
    let mut command = with_path(world, &program, first);
    command.args(arguments).arg("--prefix").arg(world.file("prefix"));
    Ok(command)
}

fn there_and_back(world: &World) -> Result {
    let nu = bins::nu().context("no Nushell")?;
    let folder = world.file("bin");
    fs::create_dir(&folder)?;
    std::os::unix::fs::symlink(nu, folder.join("nu"))?;
    let built = bins::built("shimd").context("no shimd")?;
    let from = built.parent().context("no folder")?.display().to_string();
    let installed = run(xtask(world, &folder, &["install", "--from", &from])?, LONG)?.success()?;
    world.note(&installed);
    // As in a shell that starts now: nothing is named on the command line.
    let ask = |script: &str| -> Result<String> {
        let mut command = with_path(world, &folder.join("nu"), &folder);
        command.args(["-c", script]);
        Ok(run(command, LONG)?.success()?.stdout.trim().to_owned())
    };
    let page = world.file("prefix/share/man/man8/shimd.8");
    ensure!(page.is_file(), "its man page is there");
    let story = "use shim/lib.nu *; service up {name: nap, exec: [tail -f /dev/null]} | get 0.status";
    ensure!(ask(story)? == "running", "a service comes up");
    let daemon = world.file("prefix/bin/shimd");
    let exe = fs::read_link(format!("/proc/{}/exe", world.daemon_pid()?))?;
    ensure!(exe == daemon, "by the daemon beside the plugin, not {}", exe.display());
    // Once more, over a daemon that runs.
    run(xtask(world, &folder, &["install", "--from", &from])?, LONG)?.success()?;
    ensure!(ask("proc shim restart | get services")? == "1", "and by the new one");
    ensure!(ask("proc stop nap | get 0.status")? == "inactive", "it is stopped");
    let modules = world.folder().join("u/.config/nushell/scripts/shim");
    let written =
        ask(&format!("use shim/lib.nu *; service new mine --dir {}", modules.join("services").display()))?;
    let header = fs::read_to_string(&written)?;
    ensure!(header.contains("use shim/services/mine.nu\n"), "what its header says works:\n{header}");
    ensure!(ask("use shim/services/mine.nu; 'read'")? == "read", "where it lies");

    run(xtask(world, &folder, &["uninstall"])?, LONG)?.success()?;
    ensure!(ask("plugin list | length")? == "0", "no plugin is registered");
    ensure!(!daemon.exists() && !world.file("prefix/bin/nu_plugin_proc").exists(), "no program is left");
    ensure!(!page.exists(), "no man page is left");
    let mut left = Command::new("find");
    left.arg(&modules).args(["-type", "f"]);
    let left = run(left, LONG)?.success()?.stdout;
    ensure!(left.trim() == written, "the user's module is left, and no other: {left}");
    fs::remove_file(written)?;
    run(xtask(world, &folder, &["uninstall"])?, LONG)?.success()?;
    ensure!(!modules.exists(), "no module is left");
    run(xtask(world, &folder, &["uninstall"])?, LONG)?.success().map(drop)
}

/// What `cargo install --path shimd` and `--path plugin` gave, and the one thing that is left to do then.
fn by_cargo(world: &World) -> Result {
    let (nu, tools) = (bins::nu().context("no Nushell")?, bins::tools().context("no target folder")?);
    let ask = |script: &str| -> Result<String> {
        let mut command = with_path(world, nu, &tools);
        command.args(["-c", script]);
        Ok(run(command, LONG)?.success()?.stdout.trim().to_owned())
    };
    ask(&format!("plugin add '{}'", tools.join("nu_plugin_proc").display()))?;
    let story = "proc register {name: nap, exec: [tail -f /dev/null]}; proc start nap | get 0.status";
    ensure!(ask(story)? == "running", "a service comes up");
    let exe = fs::read_link(format!("/proc/{}/exe", world.daemon_pid()?))?;
    ensure!(exe == tools.join("shimd"), "by the daemon beside the plugin, not {}", exe.display());
    Ok(())
}

/// Each crate has what a package must have.
fn packages(world: &World) -> Result {
    for package in ["shimd", "nu_plugin_proc", "shimd-api", "socket-audit"] {
        // With the caller's environment: cargo has its own places.
        let mut list = Command::new(bins::on_path("cargo").context("no cargo")?);
        list.args(["package", "--list", "--offline", "--allow-dirty", "-p", package]);
        list.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let listed = run(list, LONG)?.success()?;
        world.note(&listed);
        ensure!(!listed.stderr.contains("warning: manifest has no description"), "{listed}");
        for file in ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            ensure!(listed.stdout.lines().any(|line| line == file), "{package} has no {file}:\n{listed}");
        }
    }
    Ok(())
}

fn wrong(world: &World) -> Result {
    let folder = world.file("bin");
    fs::create_dir(&folder)?;
    let nu = folder.join("nu");
    fs::write(&nu, "#!/bin/sh\necho 0.99.1\n")?;
    fs::set_permissions(&nu, fs::Permissions::from_mode(0o755))?;
    let refused = run(xtask(world, &folder, &["install", "--from", "/nonexistent"])?, LONG)?;
    let said = refused.stderr.clone();
    ensure!(said.contains("is Nushell 0.99.1, the plugin is for 0.115.1: npm install"), "{refused}");
    ensure!(said.trim().lines().count() == 1, "one line: {said}");
    ensure!(!world.file("prefix").exists(), "nothing was installed");
    Ok(())
}

/// `plugin add` by a real Nushell of another release: it refuses, and the plugin says what to do.
fn refused(world: &World) -> Result {
    let nu = bins::tools().context("no target folder")?.join(format!("nu-{}", bins::OTHER_NU));
    let mut add = world.command(nu);
    add.args(["-c", &format!("plugin add '{}'", world.bin("nu_plugin_proc").display())]);
    let ran = run(add, LONG)?;
    world.note(&ran);
    ensure!(ran.code == Some(1), "{ran}");
    let wanted = format!(
        "nu_plugin_proc: this is Nushell {}, the plugin is for {1}: npm install -g nushell@{1}, or cargo install nu --version {1} --locked",
        bins::OTHER_NU,
        bins::NU_VERSION
    );
    ensure!(ran.stderr.lines().filter(|line| *line == wanted).count() == 1, "said once, in a line: {ran}");
    Ok(())
}
