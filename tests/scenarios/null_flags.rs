//! A flag that is null is as good as no flag: for each flag of each command, so that a wrapper passes on what it was given.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("null_flags::of_every_command", &needs, every),
        scenario("null_flags::of_a_wrapper", &needs, wrapped),
    ]
}

/// Each flag that a command has, as Nushell itself tells them.
fn every(world: &World) -> Result {
    world.write("spec.json", &specs::unixd(world, "web", &[]).to_string())?;
    let flags = world.nu_json(
        "scope commands | where type == plugin and name =~ '^proc ' | each {|it| \
           $it.signatures | values | first | where parameter_type in [switch named] and parameter_name != help \
           | each {|flag| {command: $it.name, flag: $flag.parameter_name} } } | flatten",
    )?;
    let mut tried = 0;
    for row in flags.rows()? {
        let (command, flag) = (row.text("command")?, row.text("flag")?);
        let rest = match command {
            // It takes the whole terminal.
            "proc top" => continue,
            "proc register" => "{name: other, exec: [tail -f /dev/null]}",
            "proc heal" => "web",
            _ if command.starts_with("proc shim") => "",
            "proc doctor" => "",
            _ => "web",
        };
        // One of them ends the daemon, one forgets the service.
        world.nu("proc shim start; proc register spec.json")?.success()?;
        let given = format!("let none: any = null; {command} {rest} --{flag}=$none");
        world.nu(&given)?.success()?;
        tried += 1;
    }
    ensure!(tried > 20, "{tried} flags: {flags}");
    Ok(())
}

fn wrapped(world: &World) -> Result {
    world.start_daemon()?;
    let script = "echo one; echo two; exec tail -f /dev/null";
    world.up(&json!({"name": "web", "exec": ["/bin/sh", "-c", script]}))?;
    let mine = "def mine [--lines: int, --since: duration, --follow] { \
                proc logs web --lines $lines --since $since --follow=$follow | first 1 | get line }";
    for (call, line) in [("mine", "one"), ("mine --lines 1", "two"), ("mine --since 1hr --lines 1", "two")] {
        let lines = world.nu_json(&format!("{mine}; {call}"))?;
        ensure!(lines == json!([line]), "{call}: {lines}");
    }
    // Another type is Nushell's own error, as it is for its own commands.
    let ran = world.nu("let odd: any = 'x'; proc logs web --lines $odd")?;
    ensure!(ran.code != Some(0) && ran.stderr.contains("cant_convert"), "{ran}");
    Ok(())
}
