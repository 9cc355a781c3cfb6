//! The daemon is killed in the moment of an answer: what was answered is in its store. The store is made slow
//! by another program that holds its lock, so that an answer that does not wait for it comes first.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use rusqlite::{Connection, TransactionBehavior};
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);
/// Longer than the server takes to listen; shorter than an answer waits for the store.
const HELD: Duration = Duration::from_secs(1);

pub fn trials() -> Vec<Trial> {
    vec![scenario("answered_is_in_the_history", &[Need::Daemon], answered)]
}

fn answered(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&specs::unixd(world, "web", &["--listen-after", "300"]))?;
    let daemon = world.daemon_pid()?;
    let mut db = Connection::open(world.home().join("state.db"))?;
    let answer = std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            let answer = world.rpc("service.start", json!({"name": "web"}));
            processes::signal(daemon, Signal::SIGKILL);
            answer
        });
        // All that a start waits for is written by then.
        wait_until(SOON, "its process is let go", || {
            db.query_row("SELECT count(*) FROM instance WHERE begun = 1", [], |row| row.get(0)) == Ok(1)
        })?;
        let held = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let _ = wait_until(HELD, "the answer", || started.is_finished());
        drop(held);
        started.join().map_err(|_| scenarios::Fault::new("the client panicked"))?
    })?;
    world.await_killed(daemon)?;
    let pid = answer.only()?.int("pid")?;
    // Before the next daemon tells what it finds.
    let kept = |what: &str| {
        let query = format!("SELECT count(*) FROM event WHERE pid = ?1 AND {what}");
        db.query_row(&query, [pid], |row| row.get::<_, i64>(0))
    };
    let (running, ok) = (kept("status = 'running'")?, kept("verdict = 'ok'")?);
    ensure!((running, ok) == (1, 1), "{answer}, and kept are {running} running and {ok} ok");
    // It takes the service over, and ends it with the scenario.
    world.start_daemon()?;
    Ok(())
}
