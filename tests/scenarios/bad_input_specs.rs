//! Specs that are wrong in themselves: refused with the name of the field, and nothing is changed.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::{Value, json};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("bad_input_specs::fields", &[Need::Daemon], fields),
        scenario("bad_input_specs::plugin_labels_the_argument", &[Need::Daemon, Need::Nushell], labelled),
        scenario("bad_input_specs::dependency_circle", &[Need::Daemon, Need::Nushell], circle),
        scenario("bad_input_specs::socket_of_two_services", &[Need::Daemon, Need::Nushell], two_services),
        scenario("bad_input_specs::two_of_one_name", &[Need::Daemon], two_of_one_name),
        scenario("bad_input_specs::later_issue_modes_are_refused", &[Need::Daemon], modes),
        scenario("bad_input_specs::bad_update_keeps_the_old", &[Need::Daemon], update),
    ]
}

/// What is wrong, the field that the error must name, words that it must hold.
fn wrong() -> Vec<(Value, &'static str, &'static str)> {
    let long = format!("/tmp/{}", "x".repeat(120));
    let exec = json!(["/bin/true"]);
    vec![
        (json!({"exec": exec}), "name", ""),
        (json!({"name": "", "exec": exec}), "name", ""),
        (json!({"name": "a/b", "exec": exec}), "name", "a/b"),
        (json!({"name": "../up", "exec": exec}), "name", ""),
        (json!({"name": ".hidden", "exec": exec}), "name", ""),
        (json!({"name": "n".repeat(65), "exec": exec}), "name", "64"),
        (json!({"name": 7, "exec": exec}), "name", ""),
        (json!({"name": "web"}), "exec", ""),
        (json!({"name": "web", "exec": []}), "exec", ""),
        (json!({"name": "web", "exec": "sleep 1"}), "exec", ""),
        (json!({"name": "web", "exec": [""]}), "exec", ""),
        (
            json!({"name": "web", "exec": ["/bin/true", "{socket:none}"], "sockets": ["a.sock"]}),
            "exec",
            "none",
        ),
        (json!({"name": "web", "exec": exec, "cwd": "relative/folder"}), "cwd", ""),
        (json!({"name": "web", "exec": exec, "env": ["A=1"]}), "env", ""),
        (json!({"name": "web", "exec": exec, "umask": "999"}), "umask", ""),
        (json!({"name": "web", "exec": exec, "sockets": [long]}), "sockets", "125"),
        (json!({"name": "web", "exec": exec, "sockets": ["a/b.sock"]}), "sockets", "a/b.sock"),
        (json!({"name": "web", "exec": exec, "sockets": [".."]}), "sockets", ""),
        (json!({"name": "web", "exec": exec, "sockets": ["a.sock", "a.sock"]}), "sockets", "a.sock"),
        (json!({"name": "web", "exec": exec, "sockets": [{"type": "stream"}]}), "sockets", "path"),
        (
            json!({"name": "web", "exec": exec, "sockets": [{"path": "a.sock", "type": "raw"}]}),
            "sockets",
            "raw",
        ),
        (json!({"name": "web", "exec": exec, "stop": {"signal": "SIGNOPE"}}), "stop.signal", "SIGNOPE"),
        (json!({"name": "web", "exec": exec, "stop": {"timeout": "soon"}}), "stop.timeout", "soon"),
        (json!({"name": "web", "exec": exec, "ready": {"timeout": -1}}), "ready.timeout", ""),
        (json!({"name": "web", "exec": exec, "ready": {"marker": "../x"}}), "ready.marker", ""),
        (
            json!({"name": "web", "exec": exec, "restart": {"policy": "sometimes"}}),
            "restart.policy",
            "sometimes",
        ),
        (json!({"name": "web", "exec": exec, "on_missing": "cry"}), "on_missing", "cry"),
        (json!({"name": "web", "exec": exec, "depends_on": "db"}), "depends_on", ""),
        (json!({"name": "web", "exec": exec, "depends_on": ["web"]}), "depends_on", ""),
        (json!({"name": "web", "exec": exec, "log": {"max_size": "many"}}), "log.max_size", "many"),
        (json!([1, 2]), "", ""),
        (json!("web"), "", ""),
    ]
}

fn fields(world: &World) -> Result {
    world.start_daemon()?;
    let mut faults = Vec::new();
    for (spec, field, words) in wrong() {
        if let Err(fault) = refused(world, &spec, field, words) {
            faults.push(fault.to_string());
        }
    }
    ensure!(faults.is_empty(), "{} of the wrong specs:\n{}", faults.len(), faults.join("\n"));
    let listed = world.rpc("service.list", json!({}))?;
    ensure!(listed.rows()?.is_empty(), "nothing is registered: {listed}");
    Ok(())
}

fn refused(world: &World, spec: &Value, field: &str, words: &str) -> Result {
    let error = world.rpc_error("service.set", json!({"spec": spec}))?;
    ensure!(error.kind == "bad_spec" || field.is_empty(), "{spec}: {error}");
    let named = error.whole.field("data").field("field").as_str().unwrap_or_default();
    ensure!(named.starts_with(field), "{spec}: the field is {field}, not {named}: {error}");
    ensure!(error.whole.to_string().contains(words), "{spec}: no word of {words}: {error}");
    Ok(())
}

fn labelled(world: &World) -> Result {
    world.start_daemon()?;
    let refused = world.nu_refuses("proc register {name: 'a/b', exec: [/bin/true]}", "proc::bad_spec")?;
    ensure!(refused.mentions("name") && !refused.labels.is_empty(), "{refused}");
    let file = world.write("bad.json", r#"{"name": "web", "exec": []}"#)?;
    let refused = world.nu_refuses(&format!("proc register {}", file.display()), "proc::bad_spec")?;
    ensure!(refused.mentions("exec") && !refused.labels.is_empty(), "{refused}");
    let refused = world.nu_refuses(
        "[{name: ok, exec: [/bin/true]} {name: bad, exec: []}] | proc register",
        "proc::bad_spec",
    )?;
    ensure!(refused.mentions("exec"), "{refused}");
    let listed = world.rpc("service.list", json!({}))?;
    ensure!(listed.rows()?.is_empty(), "of a table with one wrong spec nothing is registered: {listed}");
    Ok(())
}

fn circle(world: &World) -> Result {
    world.start_daemon()?;
    let spec = |name, on: &str| specs::with(specs::unixd(world, name, &[]), json!({"depends_on": [on]}));
    world.register(&spec("one", "two"))?;
    world.register(&spec("two", "three"))?;
    let error = world.rpc_error("service.set", json!({"spec": spec("three", "one")}))?;
    ensure!(error.kind == "bad_spec", "{error}");
    let whole = error.whole.to_string();
    ensure!(
        ["one", "two", "three", "depends_on"].iter().all(|part| whole.contains(part)),
        "the circle is shown: {error}"
    );
    let all = json!([spec("a", "b"), spec("b", "a")]);
    let file = world.write("circle.json", &all.to_string())?;
    world.nu_refuses(&format!("open {} | proc register", file.display()), "proc::bad_spec")?;
    let listed = world.rpc("service.list", json!({}))?;
    ensure!(listed.rows()?.len() == 2, "nothing of a circle is registered: {listed}");
    Ok(())
}

fn two_services(world: &World) -> Result {
    world.start_daemon()?;
    let shared = world.file("shared.sock");
    let spec = |name| json!({"name": name, "exec": [world.unixd(), shared], "sockets": [shared]});
    world.register(&spec("first"))?;
    let error = world.rpc_error("service.set", json!({"spec": spec("second")}))?;
    ensure!(
        error.kind == "bad_spec" && error.whole.to_string().contains("first"),
        "it names the other service: {error}"
    );
    let file = world.write("second.json", &spec("second").to_string())?;
    let refused = world.nu_refuses(&format!("proc register {}", file.display()), "proc::bad_spec")?;
    ensure!(refused.mentions("sockets"), "{refused}");
    ensure!(world.rpc("service.list", json!({}))?.rows()?.len() == 1, "only the first is registered");
    Ok(())
}

fn modes(world: &World) -> Result {
    world.start_daemon()?;
    let rpc = |mode: &str| json!({"sockets": [{"path": "rpc.sock", "mode": mode}]});
    let unixd = || specs::unixd(world, "web", &[]);
    for (mode, spec) in [
        ("other", specs::with(unixd(), rpc("other"))),
        // Nothing tells the program where to bind.
        ("publish", specs::with(specs::with(unixd(), rpc("publish")), json!({"exec": [world.unixd()]}))),
    ] {
        let error = world.rpc_error("service.set", json!({"spec": spec}))?;
        ensure!(
            error.kind == "bad_spec" && error.whole.to_string().contains("sockets[0].mode"),
            "{mode}: {error}"
        );
    }
    Ok(())
}

fn update(world: &World) -> Result {
    world.start_daemon()?;
    let good = specs::unixd(world, "web", &[]);
    let pid = world.up(&good)?;
    world.rpc_error("service.set", json!({"spec": specs::with(good.clone(), json!({"exec": []}))}))?;
    let kept = world.rpc("service.get", json!({"name": "web"}))?;
    let spec: Value = serde_json::from_str(kept.text("spec_json")?)?;
    ensure!(spec == good, "the old spec is kept: {spec}");
    let row = world.service("web")?;
    ensure!(row.pid("pid")? == pid && row.text("status")? == "running", "{row}");
    Ok(())
}

fn two_of_one_name(world: &World) -> Result {
    world.start_daemon()?;
    let specs = json!([{"name": "web", "exec": ["/bin/true"]}, {"name": "web", "exec": ["/bin/false"]}]);
    let error = world.rpc_error("service.set", json!({"specs": specs}))?;
    ensure!(error.kind == "bad_spec" && error.message.contains("two of the specs are called web"), "{error}");
    ensure!(world.rpc("service.list", json!({}))?.rows()?.is_empty(), "neither is registered");
    Ok(())
}
