//! Dependencies are started first, and their sockets are `ok` before the dependent is spawned; one that fails is named.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::{Value, json};
use std::fs;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("depends_on::order", &[Need::Daemon, Need::Nushell], order),
        scenario("depends_on::failure", &[Need::Daemon, Need::Nushell], failure),
    ]
}

fn spec(world: &World, name: &str, on: &[&str], options: &[&str]) -> Value {
    let journal = world.file("journal").display().to_string();
    let mut all = vec!["--journal", &journal, "--tag", name];
    all.extend(options);
    specs::with(specs::unixd(world, name, &all), json!({"depends_on": on}))
}

fn journal(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.file("journal")).unwrap_or_default();
    let lines = text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    lines.collect()
}

fn order(world: &World) -> Result {
    world.start_daemon()?;
    for (name, on) in
        [("top", &["left", "right"][..]), ("left", &["base"]), ("right", &["base"]), ("base", &[])]
    {
        world.register(&spec(world, name, on, &["--listen-after", "150"]))?;
    }
    let started = world.nu_json("proc start top")?;
    ensure!(started.row("name", "top")?.text("status")? == "running", "{started}");
    let journal = journal(world);
    let at = |entry: &str| journal.iter().position(|line| line == entry);
    for (first, second) in [
        ("ready base", "start left"),
        ("ready base", "start right"),
        ("ready left", "start top"),
        ("ready right", "start top"),
    ] {
        ensure!(
            at(first).is_some() && at(first) < at(second),
            "`{first}` comes before `{second}`: {journal:?}"
        );
    }
    ensure!(journal.iter().filter(|line| *line == "start base").count() == 1, "base once: {journal:?}");
    let listed = world.nu_json("proc list")?;
    for row in listed.rows()? {
        ensure!(row.text("status")? == "running", "{row}");
    }
    Ok(())
}

fn failure(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&spec(world, "base", &[], &["--fail-first", "100"]))?;
    world.register(&spec(world, "top", &["base"], &[]))?;
    let started = world.nu_json("proc start top")?;
    let row = started.row("name", "top")?;
    ensure!(row.text("status")? == "failed", "{row}");
    ensure!(row.text("health_reason")?.contains("base"), "the reason names the dependency: {row}");
    ensure!(!journal(world).contains(&"start top".to_owned()), "top is never spawned");

    world.register(&spec(world, "lost", &["nobody"], &[]))?;
    let started = world.nu_json("proc start lost")?;
    let row = started.row("name", "lost")?;
    ensure!(row.text("health_reason")?.contains("nobody"), "an unknown dependency is named: {row}");
    Ok(())
}
