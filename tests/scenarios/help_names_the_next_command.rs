//! What the help of an error says to do next works as it stands there.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;

/// What fails, and the command in its help.
const NEXT: &[(&str, &str)] = &[
    ("proc start", "proc list | proc start"),
    ("proc reset-failed", "proc list | proc reset-failed"),
    ("proc logs", "proc list | each { |row| proc logs $row.name }"),
    ("proc history", "proc list | each { |row| proc history $row.name }"),
    ("proc status", "proc list | each { |row| proc status $row.name }"),
    ("proc status web off", "proc list | each { |row| proc status $row.name }"),
    ("proc list | proc logs", "proc list | each { |row| proc logs $row.name }"),
    ("proc restart web --gapless", "proc restart --clean web"),
    ("proc start off --fail", "proc status off"),
    ("proc start off --fail", "proc logs off --lines 20"),
    ("proc restart --clean off --fail", "proc logs off --lines 20"),
    ("proc status nope", "proc list"),
];

/// Slips of the fingers, each of a command that names services.
const SLIPS: &[&str] = &[
    "proc list wbe",
    "proc status wbe",
    "proc start weeb",
    "proc stop wbe",
    "proc restart web wbe",
    "proc socket-check wbe",
    "proc socket-check wbe --watch",
    "proc heal wbe",
    "proc logs wbe",
    "proc logs wbe --follow",
    "proc events wbe",
    "proc events wbe --since 1hr",
    "proc events web wbe --follow",
    "proc events wbe --follow --raw",
    "proc history wbe",
    "proc reset-failed wbe",
    "proc unregister wbe",
];

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("help_names_the_next_command::it_works_as_it_stands", &needs, works),
        scenario("help_names_the_next_command::after_a_slip", &needs, slips),
    ]
}

fn works(world: &World) -> Result {
    let failure = world.nu_refuses("proc list", "proc::no_daemon")?;
    ensure!(failure.mentions("`proc shim start`"), "{failure}");
    world.nu_json("proc shim start")?;
    world.up(&specs::unixd(world, "web", &[]))?;
    world.register(&json!({"name": "off", "exec": ["false"], "restart": {"policy": "never"}}))?;
    for (fails, next) in NEXT {
        let failure = world.nu_error(fails)?;
        ensure!(failure.help.contains(next), "{fails}: no `{next}` in {failure}");
        world.nu_json(next)?;
    }
    Ok(())
}

fn slips(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    for slip in SLIPS {
        let failure = world.nu_refuses(slip, "proc::unknown_service")?;
        ensure!(failure.help.starts_with("did you mean web? proc list"), "{slip}: {failure}");
        ensure!(failure.labels == ["not registered"], "{slip}: {failure}");
    }
    // What happened to a service that is no more can be asked for all the same.
    world.nu_json("proc stop web; proc unregister web")?;
    let events = world.nu_json("proc events web")?;
    ensure!(events.rows()?.iter().any(|row| row.field("kind") == "state"), "{events}");
    ensure!(world.nu_json("sleep 20ms; proc events web --since 1ms")? == json!([]), "and nothing lately");
    Ok(())
}
