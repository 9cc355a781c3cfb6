//! What a command has brought about is in the history before the command is answered: a kill right after the answer takes
//! nothing of it away.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs};
use serde_json::{Value, json};

const ROUNDS: usize = 15;

pub fn trials() -> Vec<Trial> {
    vec![scenario("answered_is_kept", &[Need::Daemon], kept)]
}

/// The states that the history tells of `web` after event `last`, each with its event's id.
fn states(world: &World, last: i64) -> Result<Vec<(i64, String)>> {
    let events = world.rpc("event.list", json!({"after": last, "limit": 1000}))?;
    let states = events.rows()?.iter().filter(|event| event.text("kind").is_ok_and(|kind| kind == "state"));
    states.map(|event| Ok((event.int("id")?, event.field("detail").text("status")?.to_owned()))).collect()
}

fn verdicts(world: &World, last: i64) -> Result<Vec<String>> {
    let events = world.rpc("event.list", json!({"after": last, "limit": 1000}))?;
    let verdicts =
        events.rows()?.iter().filter(|event| event.text("kind").is_ok_and(|kind| kind == "verdict"));
    verdicts.map(|event| Ok(event.field("detail").text("verdict")?.to_owned())).collect()
}

fn kept(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&specs::unixd(world, "web", &[]))?;
    let mut last = 0;
    for round in 0..ROUNDS {
        let turns: [(&str, Value, &[&str]); 3] = [
            ("service.start", json!({"name": "web"}), &["starting", "running"]),
            ("service.restart", json!({"name": "web", "clean": true}), &["stopping", "starting", "running"]),
            ("service.stop", json!({"name": "web"}), &["stopping", "inactive"]),
        ];
        for (method, params, expected) in turns {
            let daemon = world.daemon_pid()?;
            world.rpc(method, params)?;
            processes::signal(daemon, Signal::SIGKILL);
            world.await_killed(daemon)?;
            world.start_daemon()?;
            let told = states(world, last)?;
            let words: Vec<&str> = told.iter().map(|(_, status)| status.as_str()).collect();
            ensure!(words == expected, "round {round}: {method} was answered, and the history has {words:?}");
            if method != "service.stop" {
                let verdicts = verdicts(world, last)?;
                ensure!(
                    verdicts.iter().any(|verdict| verdict == "ok"),
                    "round {round}: {method}: {verdicts:?}"
                );
            }
            last = told.last().map_or(last, |(id, _)| *id);
        }
    }
    Ok(())
}
