//! A group of `nu/lib.nu`: its services come up, go down and restart in the order of their dependencies, whatever the order
//! they are written in; a group that cannot work is refused by name, before anything is registered.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario};
use serde_json::json;
use std::fs;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("nu_groups::in_order", &needs, in_order),
        scenario("nu_groups::that_cannot_work", &needs, that_cannot_work),
        scenario("nu_groups::depends_on_a_service_outside", &needs, outside),
    ]
}

/// A group `shop` in a module of its own: web needs api, which needs db; written in the wrong order.
fn module(world: &World) -> Result<String> {
    let (unixd, journal) = (world.unixd(), world.file("journal"));
    let text = format!(
        "use {} *\n\
         def member [name: string, ...on: string] {{\n\
             service spec {{name: $name, exec: [{unixd} --journal {} --tag $name stream:{{socket:rpc.sock}}], sockets: [rpc.sock]}} --depends-on $on --restart never\n\
         }}\n\
         export def specs [] {{ service group shop (member web api) (member api db) (member db) }}\n",
        project("lib.nu"),
        journal.display(),
    );
    let text = text.replace("stream:{socket:rpc.sock}", "'stream:{socket:rpc.sock}'");
    let path = world.write("shop.nu", &text)?;
    Ok(format!("use {} *; use {};", project("lib.nu"), path.display()))
}

/// What the journal has since the last look, without pids.
fn journal(world: &World) -> Result<Vec<String>> {
    let path = world.file("journal");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, "")?;
    Ok(text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect())
}

fn in_order(world: &World) -> Result {
    let using = module(world)?;
    let ordered = |what: &str, got: Vec<String>, wanted: &[&str]| -> Result {
        ensure!(got == wanted, "{what}: {got:?}, not {wanted:?}");
        Ok(())
    };
    let up = ["start db", "ready db", "start api", "ready api", "start web", "ready web"];
    let down = ["stop web", "stop api", "stop db"];
    let started = world.nu_json(&format!("{using} service up (shop specs)"))?;
    for name in ["db", "api", "web"] {
        ensure!(started.row("name", name)?.text("status")? == "running", "{started}");
    }
    ordered("up", journal(world)?, &up)?;
    let restarted = world.nu_json(&format!("{using} service members shop | service restart --clean"))?;
    ensure!(restarted.rows()?.len() == 3, "{restarted}");
    ordered("restart", journal(world)?, &[&down[..], &up[..]].concat())?;
    let checked = world.nu_json(&format!("{using} service check --fail (shop specs) | get verdict"))?;
    ensure!(checked == json!(["ok", "ok", "ok"]), "{checked}");
    let status = world.nu_json(&format!("{using} shop specs | service status | get spec.part_of"))?;
    ensure!(status == json!([["shop"], ["shop"], ["shop"]]), "{status}");
    let stopped = world.nu_json(&format!("{using} service members shop | service down"))?;
    ensure!(
        stopped.rows()?.iter().all(|row| row.text("status").is_ok_and(|it| it == "inactive")),
        "{stopped}"
    );
    ordered("down", journal(world)?, &down)?;
    // Without a daemon there is nobody to ask for the order; one is started for the stop.
    world.nu("proc shim stop")?.success()?;
    let stopped = world.nu_json(&format!("{using} service down web db | get status"))?;
    ensure!(stopped == json!(["inactive", "inactive"]), "{stopped}");
    Ok(())
}

fn that_cannot_work(world: &World) -> Result {
    world.start_daemon()?;
    let using = format!("use {} *;", project("lib.nu"));
    for (specs, words) in [
        (
            "{name: a, exec: [sh], depends_on: [b]} {name: c, exec: [sh]} {name: b, exec: [sh], depends_on: [a c]}",
            "a -> b -> a",
        ),
        ("{name: a, exec: [sh], depends_on: [a]}", "a -> a"),
        ("{name: a, exec: [sh], depends_on: [nobody]}", "a depends on nobody"),
        ("[a b]", "takes specs"),
        ("[]", "takes specs"),
    ] {
        let failure = world.nu_refuses(&format!("{using} service group g {specs}"), "service::bad_group")?;
        ensure!(failure.mentions(words) && failure.mentions("of these specs"), "{specs}: {failure}");
    }
    let twice = "service group g {name: a, exec: [sh]} {name: a, exec: [ls]}";
    world.nu_refuses(&format!("{using} {twice}"), "service::bad_input")?;
    world.nu_refuses(&format!("{using} service members g"), "service::no_group")?;
    let listed = world.nu_json("proc list")?;
    ensure!(listed.rows()?.is_empty(), "nothing is registered: {listed}");
    Ok(())
}

fn outside(world: &World) -> Result {
    world.start_daemon()?;
    world.nu("proc register {name: base, exec: [tail -f /dev/null]}")?.success()?;
    let using = format!("use {} *;", project("lib.nu"));
    let spec = "{name: top, exec: [tail -f /dev/null], depends_on: [base]}";
    let up = world.nu_json(&format!("{using} service up (service group g {spec}) | get status"))?;
    ensure!(up == json!(["running"]), "{up}");
    let base = world.nu_json("proc status base")?;
    ensure!(base.text("status")? == "running", "what it depends on came up too: {base}");
    Ok(())
}
