//! A service writes its own log files: no line is lost when the daemon dies, and they stay within their size.

use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("logs::lines_survive_the_daemon", &[Need::Daemon], survive),
        scenario("logs::stay_within_their_size", &[Need::Daemon], size),
    ]
}

fn say(world: &World, words: &str) -> Result {
    let answer = ask(&world.socket("svc", "rpc.sock"), SockType::Stream, &format!("say {words}"))?;
    ensure!(answer == "said", "{answer}");
    Ok(())
}

fn lines(world: &World) -> Result<Vec<Value>> {
    Ok(world.rpc("service.logs", json!({"name": "svc", "lines": 1000}))?.rows()?.clone())
}

fn survive(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "svc", &[]))?;
    say(world, "before")?;
    world.kill_daemon()?;
    say(world, "while it is dead")?;
    world.start_daemon()?;
    say(world, "after")?;
    let rows = lines(world)?;
    let said: Vec<&str> = rows
        .iter()
        .filter(|row| row.field("stream") == "out")
        .filter_map(|row| row.field("line").as_str())
        .collect();
    ensure!(said == ["before", "while it is dead", "after"], "{rows:?}");
    let last = || lines(world).ok()?.last()?.field("time").as_str().map(str::to_owned);
    let time = wait_until(SOON, "the last line has its time", last)?;
    ensure!(time.contains('T'), "RFC 3339: {time}");
    Ok(())
}

fn size(world: &World) -> Result {
    world.start_daemon()?;
    let max = 100_000;
    world.up(&specs::with(specs::unixd(world, "svc", &[]), json!({"log": {"max_size": max, "keep": 1}})))?;
    let words = "x".repeat(2000);
    for number in 0..400 {
        say(world, &format!("{number} {words}"))?;
    }
    let on_disk = || -> u64 {
        let entries = fs::read_dir(world.home().join("logs")).into_iter().flatten().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().contains("svc.out"));
        own.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
    };
    let kept = |info: &Value| info.field("troubles").as_array().is_some_and(|troubles| !troubles.is_empty());
    // Where the filesystem cannot take from a file's front, the daemon says so.
    wait_until(SOON, "800 kB become less than 300", || {
        on_disk() < 3 * max || world.rpc("shim.info", json!({})).is_ok_and(|info| kept(&info))
    })?;
    say(world, "the last")?;
    let rows = lines(world)?;
    ensure!(
        rows.last().is_some_and(|row| row.field("line") == "the last"),
        "its descriptor goes on: {:?}",
        rows.last()
    );
    Ok(())
}
