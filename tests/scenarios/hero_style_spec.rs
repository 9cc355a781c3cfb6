//! A spec as Hero services write it works unchanged: basenames below the socket root, `kill_other.socket`, and fields
//! that are not ours, which come back as they went in.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario};
use serde_json::{Value, json};

pub fn trials() -> Vec<Trial> {
    vec![scenario("hero_style_spec", &[Need::Daemon, Need::Nushell], works_unchanged)]
}

fn works_unchanged(world: &World) -> Result {
    world.start_daemon()?;
    let nuon = format!(
        "{{name: hero_demo, exec: ['{}' '{{socket:rpc.sock}}' '{{socket:ui.sock}}'], sockets: [rpc.sock ui.sock], \
         kill_other: {{socket: [rpc.sock ui.sock]}}, description: 'a demo', hero: {{icon: gear, tags: [a b]}}}}",
        world.unixd()
    );
    let change = |row: &Value| -> Result<String> { Ok(row.only()?.text("change")?.to_owned()) };
    let registered = world.nu_json(&format!("proc register {nuon}"))?;
    ensure!(change(&registered)? == "created", "{registered}");
    let again = world.nu_json(&format!("{nuon} | proc register"))?;
    ensure!(change(&again)? == "unchanged", "the same spec again: {again}");

    let started = world.nu_json("proc start hero_demo")?;
    let pid = started.only()?.pid("pid")?;
    for name in ["rpc.sock", "ui.sock"] {
        let path = world.socket("hero_demo", name);
        ensure!(ping(&path)? == pid, "{} is answered by another", path.display());
    }
    let listed = world.nu_json("proc list")?;
    let row = listed.row("name", "hero_demo")?;
    ensure!(
        row.text("status")? == "running" && row.int("sockets_ok")? == 2 && row.int("sockets")? == 2,
        "{row}"
    );

    let kept = world.rpc("service.get", json!({"name": "hero_demo"}))?;
    let spec: Value = serde_json::from_str(kept.text("spec_json")?)?;
    ensure!(
        spec.field("hero") == &json!({"icon": "gear", "tags": ["a", "b"]}),
        "unknown fields are kept: {spec}"
    );
    ensure!(spec.text("description")? == "a demo", "unknown fields are kept: {spec}");

    let changed = world.nu_json(&format!("{nuon} | merge {{description: other}} | proc register"))?;
    ensure!(change(&changed)? == "updated", "another spec: {changed}");
    ensure!(ping(&world.socket("hero_demo", "rpc.sock"))? == pid, "an update does not touch what runs");
    let gone = world.nu_json("proc unregister hero_demo")?;
    ensure!(gone.only()?.text("name")? == "hero_demo", "{gone}");
    ensure!(!scenarios::processes::alive(pid), "unregister stops it first");
    Ok(())
}
