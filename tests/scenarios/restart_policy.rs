//! What follows when a service ends by itself: policy, delay, the limit of starts, and `reset-failed`.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::wait::holds_for;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Long enough that a restart which is not to be would have come: many times the delay of these specs.
const QUIET: Duration = Duration::from_millis(600);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("restart_policy::comes_up_after_failures", &[Need::Daemon], after_failures),
        scenario("restart_policy::limit_then_reset_failed", &[Need::Daemon, Need::Nushell], limit),
        scenario("restart_policy::delay_grows", &[Need::Daemon], delay_grows),
        scenario("restart_policy::never", &[Need::Daemon], never),
        scenario("restart_policy::on_failure_leaves_a_clean_exit", &[Need::Daemon], clean_exit),
        scenario("restart_policy::into_the_background", &[Need::Daemon, Need::Nushell], into_the_background),
        scenario("restart_policy::always", &[Need::Daemon], always),
        scenario("restart_policy::killed_is_a_failure", &[Need::Daemon], killed),
        scenario("restart_policy::stop_during_backoff", &[Need::Daemon], stop_in_backoff),
        scenario("restart_policy::start_while_remains_are_ended", &[Need::Daemon], start_over_remains),
    ]
}

fn spec(world: &World, options: &[&str], restart: Value) -> Value {
    let journal = world.file("journal").display().to_string();
    let mut all = vec!["--journal", &journal];
    all.extend(options);
    specs::with(specs::unixd(world, "svc", &all), json!({"restart": restart}))
}

fn starts(world: &World) -> usize {
    let journal = fs::read_to_string(world.file("journal")).unwrap_or_default();
    journal.lines().filter(|line| line.starts_with("start ")).count()
}

fn start(world: &World, spec: &Value) -> Result {
    world.start_daemon()?;
    world.register(spec)?;
    world.rpc("service.start", json!({"name": "svc"})).map(drop)
}

fn after_failures(world: &World) -> Result {
    let restart = json!({"policy": "on-failure", "delay": "30ms", "limit": 5});
    start(world, &spec(world, &["--fail-first", "2"], restart))?;
    let row = world.wait_status("svc", "running", SOON)?;
    ensure!(starts(world) == 3, "the third start holds, not the {}th", starts(world));
    ensure!(row.int("restarts")? == 2, "{row}");
    Ok(())
}

fn limit(world: &World) -> Result {
    let restart = json!({"policy": "on-failure", "delay": "30ms", "limit": 3, "window": "60sec"});
    start(world, &spec(world, &["--fail-first", "4"], restart))?;
    let row = world.wait_status("svc", "failed", SOON)?;
    ensure!(!row.text("health_reason")?.is_empty(), "it says why: {row}");
    holds_for(QUIET, "no start beyond the limit", || Ok(starts(world) == 3))?;

    let reset = world.nu_json("proc reset-failed svc")?;
    ensure!(reset.only()?.text("status")? == "inactive", "{reset}");
    holds_for(QUIET, "reset-failed starts nothing", || Ok(starts(world) == 3))?;
    world.rpc("service.start", json!({"name": "svc"}))?;
    world.wait_status("svc", "running", SOON)?;
    ensure!(starts(world) == 5, "one more failure, then up: {} starts", starts(world));
    Ok(())
}

fn delay_grows(world: &World) -> Result {
    let restart = json!({"policy": "on-failure", "delay": "200ms", "max_delay": "800ms", "limit": 4});
    let began = std::time::Instant::now();
    world.start_daemon()?;
    world.register(&spec(world, &["--fail-first", "100"], restart))?;
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| world.rpc("service.start", json!({"name": "svc"})));
        let seen = world.wait_status("svc", "backoff", SOON);
        world.wait_status("svc", "failed", SOON)?;
        // Three delays between four starts: the first is 200 ms, and none is shorter.
        ensure!(began.elapsed() >= Duration::from_millis(600), "four starts in {:?}", began.elapsed());
        ensure!(starts(world) == 4, "{} starts", starts(world));
        let started = starting.join().map_err(|_| scenarios::Fault::new("the request panicked"))??;
        ensure!(started.only()?.text("status")? == "failed", "start answers when it is settled: {started}");
        seen.map(drop)
    })
}

fn never(world: &World) -> Result {
    start(world, &spec(world, &["--exit-after", "300", "--exit-code", "3"], json!({"policy": "never"})))?;
    let row = world.wait_status("svc", "failed", SOON)?;
    ensure!(row.text("health_reason")?.contains('3'), "it names the exit status: {row}");
    holds_for(QUIET, "it is not started again", || Ok(starts(world) == 1))
}

fn clean_exit(world: &World) -> Result {
    start(world, &spec(world, &["--exit-after", "300"], json!({"policy": "on-failure", "delay": "30ms"})))?;
    wait_until(SOON, "it has ended", || world.service("svc").is_ok_and(|row| row.field("pid").is_null()))?;
    holds_for(QUIET, "it is not started again", || Ok(starts(world) == 1))?;
    let row = world.service("svc")?;
    ensure!(row.text("status")? == "inactive", "an exit with 0 is no failure: {row}");
    Ok(())
}

/// A program that puts itself into the background: its main process ends with 0, and its child, which has the listener, is
/// ended too. Why is told by the state, and known until somebody acts, over the daemon's death too.
fn into_the_background(world: &World) -> Result {
    let restart = json!({"policy": "on-failure", "delay": "30ms"});
    start(world, &spec(world, &["--child-holds", "--exit-after", "300"], restart))?;
    let row = world.wait_status("svc", "inactive", SOON)?;
    let told = row.text("health_reason")?.to_owned();
    ensure!(told.contains("exited with status 0 and left process"), "its child too: {row}");
    ensure!(told.contains("must be told to stay in the foreground"), "what to do: {row}");
    wait_until(SOON, "its child is gone", || {
        !world.processes().iter().any(|process| process.command.contains("__hold"))
    })?;
    let events = world.nu_json("proc events svc | where kind == state | last | get detail")?;
    ensure!(events.text("status")? == "inactive" && events.text("reason")? == told, "{events}");
    world.kill_daemon()?;
    world.start_daemon()?;
    ensure!(world.service("svc")?.text("health_reason")? == told, "the next daemon knows: {row}");
    let stopped = world.nu_json("proc stop svc; proc list svc | get health_reason")?;
    ensure!(stopped == json!([null]), "told to stop, it is down for that: {stopped}");
    // An end without a child is just that.
    let restart = json!({"policy": "on-failure", "delay": "30ms"});
    world.register(&spec(world, &["--exit-after", "300"], restart))?;
    world.rpc("service.start", json!({"name": "svc"}))?;
    let row = world.wait_status("svc", "inactive", SOON)?;
    ensure!(row.text("health_reason")?.ends_with("exited with status 0"), "{row}");
    Ok(())
}

fn always(world: &World) -> Result {
    start(
        world,
        &spec(world, &["--exit-after", "200"], json!({"policy": "always", "delay": "30ms", "limit": 100})),
    )?;
    wait_until(SOON, "it is started again", || starts(world) >= 3)
}

fn killed(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&spec(world, &[], json!({"policy": "on-failure", "delay": "30ms"})))?;
    processes::signal(pid, Signal::SIGKILL);
    wait_until(SOON, "it is started again", || starts(world) == 2)?;
    let row = world.wait_status("svc", "running", SOON)?;
    ensure!(row.pid("pid")? != pid && row.int("restarts")? == 1, "{row}");
    Ok(())
}

fn stop_in_backoff(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&spec(
        world,
        &["--fail-first", "9"],
        json!({"policy": "on-failure", "delay": "30sec"}),
    ))?;
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| world.rpc("service.start", json!({"name": "svc"})));
        world.wait_status("svc", "backoff", SOON)?;
        let stopped = world.rpc("service.stop", json!({"name": "svc"}))?;
        ensure!(stopped.only()?.text("status")? == "inactive", "{stopped}");
        // Whoever waits for the start is told at once that it will not be.
        starting.join().map_err(|_| scenarios::Fault::new("the request panicked"))??;
        ensure!(starts(world) == 1, "{} starts", starts(world));
        Ok(())
    })
}

/// Its main process is killed, a child is left, and the stop time-out is running: a start now is a start, not the news of
/// the old failure.
fn start_over_remains(world: &World) -> Result {
    world.start_daemon()?;
    let spec = spec(world, &["--child-holds"], json!({"policy": "never"}));
    let old = world.up(&specs::with(spec, json!({"stop": {"timeout": "2sec"}})))?;
    wait_until(SOON, "its child holds the listener", || {
        world.processes().iter().any(|process| process.command.contains("__hold"))
    })?;
    processes::signal(old, Signal::SIGKILL);
    wait_until(SOON, "its end is noticed", || {
        world.service("svc").is_ok_and(|row| row.field("status") != "running")
    })?;
    let started = world.rpc("service.start", json!({"name": "svc"}))?;
    let row = started.only()?;
    ensure!(row.text("status")? == "running" && row.pid("pid")? != old, "{row}");
    Ok(())
}
