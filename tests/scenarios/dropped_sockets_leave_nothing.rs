//! A socket that the spec no longer declares goes with the instance that had it: its names, and its pin.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Once, 5 s after its start, a daemon removes pins that nobody owns.
const BEFORE_THE_SWEEP: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    let ways =
        [("gapless", json!({"gapless": true})), ("clean", json!({"clean": true})), ("plain", json!({}))];
    let mut trials = Vec::new();
    for mode in ["publish", "activate"] {
        for (way, params) in ways.clone() {
            let name = format!("dropped_sockets_leave_nothing::{mode}_{way}");
            trials.push(scenario(&name, &[Need::Daemon], move |world| run(world, mode, &params)));
        }
    }
    trials
}

fn spec(world: &World, mode: &str, sockets: &[&str]) -> Value {
    let options: &[&str] = if mode == "activate" { &["--activated"] } else { &[] };
    let mut spec =
        specs::with(specs::unixd_on(world, "web", sockets, options), json!({"on_missing": "relink"}));
    for socket in spec.get_mut("sockets").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(socket) = socket.as_object_mut() {
            socket.insert("mode".to_owned(), mode.into());
        }
    }
    spec
}

fn run(world: &World, mode: &str, params: &Value) -> Result {
    world.start_daemon()?;
    world.up(&spec(world, mode, &["kept.sock", "dropped.sock"]))?;
    wait_until(SOON, "both are pinned", || pins(world).len() == 2)?;
    world.register(&spec(world, mode, &["kept.sock"]))?;
    let row = world.rpc("service.restart", specs::with(json!({"name": "web"}), params.clone()))?;
    ensure!(row.only()?.text("outcome")? == "restarted", "{row}");
    let pid = row.only()?.pid("new_pid")?;
    ensure!(ping(&world.socket("web", "kept.sock"))? == pid, "{row}");
    let expected: &[&str] = if mode == "publish" { &[".kept.sock.2", "kept.sock"] } else { &["kept.sock"] };
    wait_until(SOON, format!("only {expected:?} are left"), || {
        names(&world.sockets().join("web")) == expected
    })?;
    wait_until(BEFORE_THE_SWEEP, "one pin is left", || pins(world).len() == 1)?;
    world.rpc("service.delete", json!({"name": "web"}))?;
    wait_until(SOON, "no pin is left", || pins(world).is_empty())?;
    Ok(())
}

fn pins(world: &World) -> Vec<String> {
    names(&world.sockets().join(".shimd"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
