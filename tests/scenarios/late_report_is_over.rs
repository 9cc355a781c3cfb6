//! Many sockets are audited as a batch, beside the supervisor, which takes a while; one of them is lost while that is on its
//! way, and is looked at by itself. What the batch saw of it is over then: a lost socket is not called `ok` once more.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::time::Duration;

const SOCKETS: usize = 100;
const ROUNDS: usize = 80;
const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("late_report_is_over", &[Need::Daemon], run)]
}

fn run(world: &World) -> Result {
    world.start_daemon()?;
    let names: Vec<String> = (0..SOCKETS).map(|number| format!("{number:02}.sock")).collect();
    let sockets: Vec<&str> = names.iter().map(String::as_str).collect();
    let spec = specs::unixd_on(world, "wide", &sockets, &[]);
    world.up(&specs::with(spec, json!({"on_missing": "report", "settle": "0sec"})))?;
    for round in 0..ROUNDS {
        let name = names[SOCKETS / 4 + round % (SOCKETS / 2)].as_str();
        let (path, kept) = (world.socket("wide", name), world.file("kept"));
        fs::hard_link(&path, &kept)?;
        let told = world.verdicts("wide", name)?.len();
        let lost = || -> Result<Vec<String>> { Ok(world.verdicts("wide", name)?.split_off(told)) };
        // So the daemon has more to look at than it does by itself.
        for socket in &sockets {
            let path = world.socket("wide", socket);
            fs::set_permissions(&path, fs::metadata(&path)?.permissions())?;
        }
        // Now or in the middle of it.
        std::thread::sleep(Duration::from_micros(round as u64 % 16 * 250));
        fs::remove_file(&path)?;
        wait_until(SOON, "its loss is told", || lost().is_ok_and(|told| !told.is_empty()))?;
        // Until the batch is over: a socket that is asked for after it is looked at after it.
        let row = world.rpc("service.list", json!({}))?.only()?.clone();
        ensure!(row.text("status")? == "failed", "{row}");
        world.rpc("socket.check", json!({"name": "wide"}))?;
        ensure!(lost()? == ["dangling"], "round {round}, {name}: {:?}", lost()?);
        fs::rename(&kept, &path)?;
        let back = || lost().is_ok_and(|told| told.last().is_some_and(|verdict| verdict == "ok"));
        wait_until(SOON, "it is back", back)?;
        ensure!(lost()? == ["dangling", "ok"], "round {round}, {name}: {:?}", lost()?);
    }
    Ok(())
}
