//! Two removers in a loop: the socket is put back ever more rarely, the reason names who removes it, nothing spins, and
//! all is well once they stop.

use super::relink_puts_it_back::serve;
use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, scenario, wait_until};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// How long the daemon is watched once its patience is worn.
const WATCHED: Duration = Duration::from_secs(2);

pub fn trials() -> Vec<Trial> {
    vec![scenario("relink_backs_off", &[Need::Daemon, Need::Nushell], two_removers)]
}

fn two_removers(world: &World) -> Result {
    let pid = serve(world, &["rpc.sock"], &[])?;
    let path = world.socket("web", "rpc.sock");
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| remove_again_and_again(&path, &ends));
        }
        let watched = watch(world, pid);
        ends.store(true, Ordering::Relaxed);
        watched
    })?;
    wait_until(SOON, "a client is answered", || ping(&path).is_ok_and(|answers| answers == pid))?;
    world.wait_status("web", "running", SOON)?;
    Ok(())
}

fn remove_again_and_again(path: &Path, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        // Gone, or not back yet.
        let _ = fs::remove_file(path);
        std::thread::yield_now();
    }
}

fn watch(world: &World, pid: i32) -> Result {
    let row = wait_until(SOON, "its patience is worn", || {
        let row = world.service("web").ok()?;
        let reason = row.text("health_reason").ok()?.to_owned();
        reason.contains("removed again and again").then_some(row)
    })?;
    ensure!(row.text("status")? == "failed" && row.pid("pid")? == pid, "{row}");
    if world.names_culprits() {
        let own = std::process::id().to_string();
        ensure!(row.text("health_reason")?.contains(&own), "it names who removes it, {own}: {row}");
    }
    let daemon = world.daemon_pid()?;
    let times = || world.socket_row("web", "rpc.sock").and_then(|row| row.int("relinked"));
    let (began, spent, before) = (Instant::now(), processor_ticks(daemon)?, times()?);
    let mut asked = 0;
    while began.elapsed() < WATCHED {
        // Others are answered meanwhile.
        world.rpc("shim.info", json!({}))?;
        asked += 1;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    ensure!(asked > 10, "it answered {asked} times only");
    let put_back = times()? - before;
    ensure!(put_back < 20, "put back {put_back} times within {WATCHED:?}");
    // 100 ticks a second: a fifth of one processor, most of it for the questions above.
    let spent = processor_ticks(daemon)? - spent;
    ensure!(spent < 40, "{spent} ticks of processor time within {WATCHED:?}");
    Ok(())
}

/// User and system time of a process, in ticks: proc_pid_stat(5).
pub fn processor_ticks(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let times: Vec<u64> = fields.skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
    Ok(times.iter().sum())
}
