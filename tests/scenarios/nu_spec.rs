//! What is wrong with a spec is told as early as Nushell lets it be: before the line runs, where it knows the type; else
//! when the command runs; the rest when the daemon is told. The mark is at the spec or the flag.

use crate::nu_modules::project;
use libtest_mimic::Trial;
use scenarios::{Need, Result, World, ensure, scenario};
use serde_json::json;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("nu_spec::before_the_line_runs", &needs, before),
        scenario("nu_spec::when_it_runs", &needs, when_it_runs),
        scenario("nu_spec::flags_set_fields", &needs, flags),
    ]
}

fn using() -> String {
    format!("use {} *;", project("lib.nu"))
}

fn before(world: &World) -> Result {
    for (line, words) in [
        ("service spec {name: web}", "expected record<name: string, exec: list<any>>"),
        ("service spec {exec: [sh]}", "expected record<name: string, exec: list<any>>"),
        ("service spec {name: 3, exec: [sh]}", "expected record<name: string, exec: list<any>>"),
        ("service spec {name: web, exec: sh}", "expected record<name: string, exec: list<any>>"),
        ("service spec {name: web, exec: [sh]} --stop-timeout 5", "expected duration with valid units"),
        ("service spec {name: web, exec: [sh]} --sockets rpc.sock", "expected list"),
        ("service spec {name: web, exec: [sh]} --restart-limit many", "expected int"),
        ("service spec {name: web, exec: [sh]} --stop-timout 5sec", "doesn't have flag `stop-timout`"),
        ("service socket-spec rpc.sock --backlog many", "expected int"),
        ("service restart web --claen", "doesn't have flag `claen`"),
    ] {
        // In a command that nobody calls, as in a module.
        let ran = world.nu(&format!("{} def later [] {{ {line} }}; print started", using()))?;
        ensure!(!ran.stdout.contains("started"), "`{line}` ran:\n{ran}");
        ensure!(ran.stderr.contains("nu::parser") && ran.stderr.contains(words), "`{line}`:\n{ran}");
    }
    Ok(())
}

fn when_it_runs(world: &World) -> Result {
    world.start_daemon()?;
    for (line, code, words) in [
        ("service spec {name: web, exec: []}", "service::bad_spec", "in this spec"),
        ("service spec {name: web, exec: [sh [a]]}", "service::bad_spec", "exec[1]"),
        (
            "service spec {name: web, exec: [sh]} --on-missing relnk",
            "service::bad_spec",
            "relink, restart, report",
        ),
        ("service spec {name: web, exec: [sh]} --restart no", "service::bad_spec", "never"),
        ("service socket-spec rpc.sock --mode listen", "service::bad_spec", "activate"),
        ("service socket-spec rpc.sock --type udp", "service::bad_spec", "dgram"),
        (
            "service up {name: web, exec: [sh], stop: {timeout: soon}}",
            "proc::bad_spec",
            "stop.timeout of this spec",
        ),
        (
            "service up {name: web, exec: [sh], sockets: [{path: a.sock, mode: listen}]}",
            "proc::bad_spec",
            "mode",
        ),
        ("service up {name: 'no way', exec: [sh]}", "proc::bad_spec", "name"),
    ] {
        let failure = world.nu_refuses(&format!("{} {line}", using()), code)?;
        ensure!(failure.mentions(words), "`{line}`: not `{words}`: {failure}");
        ensure!(!failure.labels.is_empty(), "`{line}`: no label: {failure}");
    }
    let ran = world
        .nu(&format!("{} service spec {{name: web, exec: [sh], socket: [a.sock]}} | ignore", using()))?
        .success()?;
    ensure!(ran.stderr.contains("did you mean `sockets`?"), "{ran}");
    Ok(())
}

fn flags(world: &World) -> Result {
    let spec = "service spec {name: web, exec: [tail -f /dev/null], stop: {timeout: 9sec, other: kept}, restart: {policy: always}} \
        --stop-timeout 3sec --restart-limit 7 --on-missing report --settle 50ms --log-size 1MB --autostart \
        --sockets [a.sock (service socket-spec b.sock --optional --type dgram)]";
    let got = world.nu_json(&format!("{} {spec} | reject exec", using()))?;
    let wanted = json!({
        "name": "web", "stop": {"timeout": 3_000_000_000_u64, "other": "kept"}, "restart": {"policy": "always", "limit": 7},
        "on_missing": "report", "settle": 50_000_000, "log": {"max_size": 1_000_000}, "autostart": true,
        "sockets": ["a.sock", {"path": "b.sock", "type": "dgram", "optional": true}],
    });
    ensure!(got == wanted, "{got}");
    let registered = world.nu_json(&format!("{} proc register ({spec}) | get change", using()))?;
    ensure!(registered == json!(["created"]), "the daemon takes it: {registered}");
    Ok(())
}
