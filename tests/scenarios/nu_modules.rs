//! `nu/`: the service modules do what their headers promise, and the examples of `nu/lib.nu` give what they say.

use libtest_mimic::Trial;
use scenarios::command::run as run_command;
use scenarios::fault::Context;
use scenarios::{Fault, Json, Need, Record, Result, World, ensure, scenario, scenario_as};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![scenario("nu_modules::examples", &[Need::Daemon, Need::Nushell], examples)];
    for (name, ask, answer) in [
        ("redis", "redis cli ping", "PONG"),
        ("nginx", "nginx fetch /", "ok"),
        ("postgresql", "postgresql psql -Atc 'select 41 + 1'", "42"),
        ("memcached", "memcached ask version", "VERSION"),
        ("haproxy", "haproxy ask 'show info'", "Name: HAProxy"),
        ("varnish", "varnish adm ping", "PONG"),
        ("unbound", "unbound control status", "is running"),
        ("knot", "knot ctl status", "Running"),
        // It writes when it has read: no answer tells when that is.
        (
            "rsyslog",
            "let mark = random uuid; rsyslog log $mark; while not (rsyslog messages | any { $in =~ $mark }) { sleep 20ms }; 'written'",
            "written",
        ),
        ("ssh-agent", "ssh-agent add -l | complete | get stdout", "no identities"),
    ] {
        let mut needs = vec![Need::Daemon, Need::Nushell];
        // The record tells whether the server is installed.
        needs.extend(Record::named(name).ok().map(|record| Need::Server(Box::new(record))));
        let run = move |world: &World| module(world, name, ask, answer);
        trials.push(scenario(&format!("nu_modules::{name}"), &needs, run));
        // ssh-agent lets nobody but root see its open files: whose the socket is may be `unknown` then.
        if name != "ssh-agent" {
            trials.push(scenario_as(
                "nobody",
                &format!("nu_modules::{name}_of_an_ordinary_user"),
                &needs,
                run,
            ));
        }
    }
    trials
}

/// The path of a file below `nu/`.
pub fn project(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nu").join(file).display().to_string()
}

/// The folder of modules; another user may not be able to read the source.
fn services(world: &World) -> Result<String> {
    if world.user().is_none() {
        return Ok(project("services"));
    }
    let mut copy = Command::new("cp");
    copy.args(["-r", &project("")]).arg(world.file("nu"));
    run_command(copy, Duration::from_secs(10))?.success()?;
    Ok(world.file("nu/services").display().to_string())
}

/// Those that listen on a TCP port too get one of their own, as a user would write it: others may run beside.
fn settings(world: &World, name: &str) -> Result {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let text = match name {
        "unbound" => format!("interface: 127.0.0.1\nport: {port}\naccess-control: 127.0.0.0/8 allow\n"),
        "knot" => format!("server:\n  listen: 127.0.0.1@{port}\n"),
        _ => return Ok(()),
    };
    let folder = world.folder().join("d").join(name);
    fs::create_dir_all(&folder)?;
    world.give(&folder)?;
    fs::write(folder.join("server.conf"), text)?;
    world.give(&folder.join("server.conf"))
}

fn module(world: &World, name: &str, ask: &str, answer: &str) -> Result {
    settings(world, name)?;
    let using = format!("use {}/{name}.nu;", services(world)?);
    let answered = || -> Result {
        let ran = world.nu(&format!("{using} {ask}"))?.success()?;
        ensure!(ran.stdout.contains(answer), "`{ask}`:\n{ran}");
        Ok(())
    };
    let started = world.nu_json(&format!("{using} {name} up"))?;
    ensure!(started.only()?.text("status")? == "running", "{started}");
    answered()?;
    let checked = world.nu_json(&format!("{using} {name} check"))?;
    for row in checked.rows()? {
        ensure!(row.text("verdict")? == "ok", "{row}");
        fs::remove_file(row.text("path")?)?;
    }
    ensure!(!checked.rows()?.is_empty(), "it declares a socket");
    let restarted = world.nu_json(&format!("{using} {name} restart --clean"))?;
    ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
    answered()?;
    let checked = world.nu_json(&format!("{using} {name} check --fail"))?;
    ensure!(!checked.rows()?.is_empty(), "all are ok again");
    let status = world.nu_json(&format!("{using} {name} status"))?;
    ensure!(status.text("status")? == "running", "{status}");
    // Of which there may be none: not every server writes something.
    let logged = world.nu_json(&format!("{using} {name} logs --lines 1"))?;
    ensure!(logged.rows()?.len() <= 1, "{logged}");
    let stopped = world.nu_json(&format!("{using} {name} down"))?;
    ensure!(stopped.only()?.text("status")? == "inactive", "{stopped}");
    Ok(())
}

fn examples(world: &World) -> Result {
    let using = format!("use {} *;", project("lib.nu"));
    let commands = world.nu_json(&format!(
        "{using} scope commands | where name starts-with service | select name examples"
    ))?;
    world.start_daemon()?;
    let mut faults = Vec::new();
    let mut count = 0;
    for command in commands.rows()? {
        for example in command.field("examples").rows()? {
            count += 1;
            if let Err(fault) = run(world, &using, example) {
                faults.push(format!("{}: {fault}", command.text("name")?));
            }
        }
    }
    ensure!(count > 10, "only {count} examples are found: {commands}");
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Runs one example, compares, and removes the services that it left.
fn run(world: &World, using: &str, example: &Value) -> Result {
    let text = example.text("example")?;
    let got = world.nu_json(&format!("{using} do {{ {text} }}"));
    for row in world.rpc("service.list", json!({}))?.rows()? {
        world.rpc("service.delete", json!({"name": row.text("name")?}))?;
    }
    let got = got.context(text)?;
    // A command gets the row as input within `each`, whether it takes any or not.
    let within = world.nu(&format!("{using} 1..1 | each {{|row| {text} }} | ignore"))?.success();
    for row in world.rpc("service.list", json!({}))?.rows()? {
        world.rpc("service.delete", json!({"name": row.text("name")?}))?;
    }
    within.context(format!("within `each`: {text}"))?;
    let wanted = example.field("result");
    if &got == wanted { Ok(()) } else { Err(Fault(format!("{text}\ngives {got} in place of {wanted}"))) }
}
