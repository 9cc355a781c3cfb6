//! `service logs` gives lines as they are written, and ends when its reader has enough: it collects nothing.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::{Need, Result, World, ensure, scenario};
use serde_json::json;

pub fn trials() -> Vec<Trial> {
    vec![scenario("nu_logs::lazy", &[Need::Daemon, Need::Nushell], lazy)]
}

fn lazy(world: &World) -> Result {
    let using = format!("use {} *;", project("lib.nu"));
    // Nothing follows the third line: who collects the stream waits for ever.
    let service = "{name: talk, exec: [sh -c 'echo one; echo two; echo three >&2; exec tail -f /dev/null']}";
    world.nu(&format!("{using} service up {service}"))?.success()?;
    for (command, wanted) in [
        ("service logs talk --follow | first 3 | get line | sort", json!(["one", "three", "two"])),
        ("service logs talk --lines 1 --since 1hr | length", json!(1)),
        ("service logs talk --since 1hr | where stream == err | get line", json!(["three"])),
        (
            "service logs {name: talk, exec: [sh]} --lines 3 --raw | lines | sort",
            json!(["one", "three", "two"]),
        ),
        ("proc list | where name == talk | service logs --lines 1 | length", json!(1)),
        ("service logs talk --follow --raw | lines | first 2 | length", json!(2)),
    ] {
        let got = world.nu_json(&format!("{using} {command}"))?;
        ensure!(got == wanted, "{command}: {got}");
    }
    let failure = world.nu_refuses(&format!("{using} service logs nobody"), "proc::unknown_service")?;
    ensure!(failure.mentions("nobody"), "{failure}");
    for line in ["[talk other] | service logs", "[] | service logs", "service logs"] {
        let failure = world.nu_refuses(&format!("{using} {line}"), "service::bad_input")?;
        ensure!(!failure.labels.is_empty(), "{failure}");
    }
    Ok(())
}
