//! Every example in the help of the plugin's commands works as it stands there, with a real daemon and services that have a
//! history.

use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two things that happen while somebody waits for one.
const PACE: Duration = Duration::from_millis(50);

/// It heals whatever is lost on the machine, other scenarios' sockets too; `proc_heal_bridges_a_ghost` has one of its own.
const OF_THE_MACHINE: &str = "proc socket-check --system | where verdict == dangling | proc heal";

pub fn trials() -> Vec<Trial> {
    vec![scenario("help_examples", &[Need::Daemon, Need::Nushell], examples)]
}

fn examples(world: &World) -> Result {
    world.start_daemon()?;
    let find =
        "scope commands | where name =~ '^proc' and type == plugin | get examples | flatten | get example";
    let found = world.nu_json(find)?;
    let examples: Vec<&str> = found.rows()?.iter().filter_map(Value::as_str).collect();
    ensure!(examples.len() > 40, "{examples:?}");
    let mut faults = Vec::new();
    for example in examples {
        // Its terminal is in `top`.
        if example == "proc top" || example == OF_THE_MACHINE {
            continue;
        }
        prepare(world)?;
        let ran = if example.contains("--follow") || example.contains("--watch") {
            // What would go on until Ctrl-C has an end here.
            let ends = match example.split_once(" | each") {
                Some((stream, rest)) => format!("{stream} | first 2 | each{rest}"),
                None if example.ends_with("--raw") => format!("{example} | lines | first 1"),
                None => example.to_owned(),
            };
            meanwhile(world, || world.nu(&ends))?
        } else {
            world.nu(&format!("{example} | to json -r"))?
        };
        if ran.code != Some(0) || !ran.stderr.is_empty() {
            faults.push(format!("{example}\n{ran}"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// As a user has it: two services run, one of them published, both have been through something, and a spec lies in a file.
fn prepare(world: &World) -> Result {
    world.nu_json("proc shim start")?;
    for row in world.rpc("service.list", json!({}))?.rows()? {
        if !["web", "redis"].contains(&row.text("name")?) {
            world.rpc("service.delete", json!({"name": row.text("name")?}))?;
        }
    }
    let relink = json!({"on_missing": "relink", "settle": 0});
    let published = json!({"sockets": [{"path": "rpc.sock", "mode": "publish"}]});
    let web = specs::with(specs::with(specs::unixd(world, "web", &[]), relink.clone()), published);
    world.write("web.nuon", &web.to_string())?;
    for spec in [web, specs::with(specs::unixd(world, "redis", &[]), relink)] {
        world.rpc("service.set", json!({"spec": spec}))?;
    }
    world.rpc("service.start", json!({"names": ["web", "redis"]}))?;
    Ok(())
}

/// Runs it while lines are written and files are lost.
fn meanwhile<T>(world: &World, run: impl FnOnce() -> T) -> T {
    let sockets: Vec<PathBuf> = ["web", "redis"].map(|name| world.socket(name, "rpc.sock")).into();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for socket in &sockets {
                    // It may not be back yet.
                    let _ = ask(socket, SockType::Stream, "say listening");
                    let _ = fs::remove_file(socket);
                }
                std::thread::park_timeout(PACE);
            }
        });
        let ran = run();
        over.store(true, Ordering::Relaxed);
        ran
    })
}
