//! `proc history`: what a socket was and for how long, as it happened to a real server; also of a service that is gone, and
//! over the daemon's death.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("verdict_history::of_a_lost_socket", &needs, lost),
        scenario("verdict_history::outlives_the_daemon_and_the_service", &needs, outlives),
    ]
}

fn verdicts(rows: &Value) -> Result<Vec<&str>> {
    rows.rows()?.iter().map(|row| row.text("verdict")).collect()
}

/// The history, once it ends so: events are written in the background.
fn ending(world: &World, verdicts: &[&str]) -> Result<Value> {
    wait_until(SOON, "the history", || {
        let rows = world.nu_json("proc history web").ok()?;
        self::verdicts(&rows).is_ok_and(|all| all.ends_with(verdicts)).then_some(rows)
    })
}

fn lose(world: &World) -> Result<i32> {
    let rm = world.hand("rm", &[world.socket("web", "rpc.sock")])?;
    world.wait_status("web", "failed", SOON)?;
    Ok(rm.pid)
}

fn lost(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let rm = lose(world)?;
    ending(world, &["ok", "dangling"])?;
    world.nu("proc restart web --clean --fail")?.success()?;
    let rows = ending(world, &["ok"])?;
    let lost = rows.row("verdict", "dangling")?;
    ensure!(lost.text("socket")? == "rpc.sock" && lost.int("lasted")? > 0, "{lost}");
    ensure!(lost.text("reason")?.contains("removed"), "{lost}");
    ensure!(!world.names_culprits() || lost.field("culprit").pid("pid")? == rm, "by {rm}: {lost}");
    let whole = world.nu_json(
        "let rows = proc history web; {sum: ($rows.lasted | math sum), first: ((date now) - $rows.0.from), \
         sorted: (($rows | sort-by from) == $rows), type: ($rows.0.from | describe)}",
    )?;
    // Measured durations are rounded to what one would say.
    let (sum, first) = (whole.int("sum")?, whole.int("first")?);
    ensure!((first - sum).abs() < 1_000_000_000, "no gaps: {whole}");
    ensure!(whole.field("sorted") == true && whole.text("type")? == "datetime", "{whole}");
    let late = world.nu_json("sleep 50ms; proc history web --since 1ms | get verdict")?;
    ensure!(late == json!(["ok"]), "what lasts reaches into the last millisecond: {late}");
    let chart = world.nu("proc history web --chart")?.success()?.stdout;
    ensure!(chart.contains("rpc.sock  ") && chart.contains("D dangling"), "{chart}");
    ensure!(chart.is_ascii() && chart.lines().all(|line| line.len() <= 80), "plain, and it fits: {chart}");
    let one = world.nu_json("{service: web} | proc history | length")?;
    ensure!(one == json!(rows.rows()?.len()), "{one}");
    Ok(())
}

fn outlives(world: &World) -> Result {
    world.start_daemon()?;
    let failure = world.nu_refuses("proc history wob", "proc::unknown_service")?;
    ensure!(failure.labels == ["not registered"], "{failure}");
    world.up(&specs::unixd(world, "web", &[]))?;
    lose(world)?;
    let before = ending(world, &["ok", "dangling"])?;
    world.kill_daemon()?;
    world.nu_refuses("proc history web", "proc::no_daemon")?;
    world.start_daemon()?;
    world.wait_status("web", "failed", SOON)?;
    let after = world.nu_json("proc history web")?;
    ensure!(verdicts(&after)? == verdicts(&before)?, "nothing changed: {before}, {after}");
    world.nu("proc unregister web")?.success()?;
    let gone = world.nu_json("proc history web")?;
    ensure!(gone.rows()?.len() >= before.rows()?.len(), "it is not forgotten: {gone}");
    Ok(())
}
