//! Programs that cannot be run: refused when registered, or `failed` when started; either way the program, and what to do,
//! is named, and nothing is left behind.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("bad_input_exec::no_such_program", &[Need::Daemon, Need::Nushell], no_such),
        scenario("bad_input_exec::not_executable", &[Need::Daemon, Need::Nushell], not_executable),
        scenario("bad_input_exec::a_folder", &[Need::Daemon, Need::Nushell], folder),
        scenario("bad_input_exec::no_such_cwd", &[Need::Daemon, Need::Nushell], no_cwd),
        scenario("bad_input_exec::unknown_user", &[Need::Daemon, Need::Nushell], unknown_user),
        scenario("bad_input_exec::unknown_group", &[Need::Daemon, Need::Nushell], unknown_group),
        scenario("bad_input_exec::unknown_service", &[Need::Daemon, Need::Nushell], unknown_service),
    ]
}

fn refused(world: &World, spec: &Value, named: &[&str]) -> Result {
    let daemon = world.start_daemon()?;
    let file = world.write("spec.json", &spec.to_string())?;
    let register = format!("proc register {}", file.display());
    let words = match world.nu(&format!("{register} | ignore"))?.code {
        Some(0) => {
            let started = world.nu_json("proc start bad")?;
            let row = started.only()?;
            ensure!(row.text("status")? == "failed", "{row}");
            let failed = world.nu_refuses("proc start bad --fail", "proc::failed")?;
            format!("{} {failed}", row.text("health_reason")?)
        }
        _ => world.nu_refuses(&register, "proc::bad_spec")?.to_string(),
    };
    for part in named {
        ensure!(words.contains(part), "no word of {part}: {words}");
    }
    let left: Vec<_> = world.processes().into_iter().filter(|process| process.pid != daemon).collect();
    ensure!(left.is_empty(), "something is left: {left:?}");
    Ok(())
}

fn spec(exec: &str) -> Value {
    json!({"name": "bad", "exec": [exec], "sockets": ["rpc.sock"], "restart": {"policy": "never"}})
}

fn no_such(world: &World) -> Result {
    refused(world, &spec("/no/such/program"), &["/no/such/program"])
}

fn not_executable(world: &World) -> Result {
    let file = world.write("plain.txt", "#!/bin/sh\n")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    let file = file.display().to_string();
    refused(world, &spec(&file), &[&file])
}

fn folder(world: &World) -> Result {
    let folder = world.folder().display().to_string();
    refused(world, &spec(&folder), &[&folder])
}

fn no_cwd(world: &World) -> Result {
    let spec = specs::with(specs::unixd(world, "bad", &[]), json!({"cwd": "/no/such/folder"}));
    refused(world, &spec, &["/no/such/folder"])
}

fn unknown_user(world: &World) -> Result {
    let spec = specs::with(specs::unixd(world, "bad", &[]), json!({"user": "no-such-user-here"}));
    refused(world, &spec, &["no-such-user-here", "user"])
}

fn unknown_group(world: &World) -> Result {
    let spec = specs::with(specs::unixd(world, "bad", &[]), json!({"group": "no-such-group-here"}));
    refused(world, &spec, &["no-such-group-here", "group"])
}

fn unknown_service(world: &World) -> Result {
    world.start_daemon()?;
    for command in [
        "start",
        "stop",
        "restart",
        "restart --clean",
        "status",
        "socket-check",
        "reset-failed",
        "unregister",
    ] {
        let refused = world.nu_refuses(&format!("proc {command} ghost"), "proc::unknown_service")?;
        ensure!(refused.mentions("ghost"), "{command}: {refused}");
    }
    let error = world.rpc_error("service.start", json!({"name": "ghost"}))?;
    ensure!(error.kind == "unknown_service", "{error}");
    Ok(())
}
