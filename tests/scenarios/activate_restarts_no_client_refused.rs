//! Restarts that no client sees: whoever connects while no instance runs waits in the queue.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Fault, Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const RESTARTS: usize = 21;
const CLIENTS: usize = 4;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("activate_restarts_no_client_refused", &[Need::Daemon], restarts),
        scenario("activate_restarts_no_client_refused::gapless_failure", &[Need::Daemon], gapless_failure),
    ]
}

fn restarts(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::activated(world, "web", &["rpc.sock"], &["--finish"]))?;
    let path = world.socket("web", "rpc.sock");
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let client = || -> Result {
            while !over.load(Ordering::Relaxed) {
                ping(&path)?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let restarting = (0..RESTARTS).try_for_each(|round| {
            let before = answered.load(Ordering::Relaxed);
            let params = json!({"name": "web", "clean": round % 3 == 1, "gapless": round % 3 == 2});
            let restarted = world.rpc("service.restart", params)?;
            ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
            ensure!(answered.load(Ordering::Relaxed) > before, "clients are answered meanwhile");
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| Fault("a client panicked".into()))??;
        }
        restarting
    })
}

/// A new instance that cannot start is no reason to lose the old one, nor what it has.
fn gapless_failure(world: &World) -> Result {
    world.start_daemon()?;
    let old = world.up(&specs::activated(world, "web", &["a.sock"], &[]))?;
    let path = world.socket("web", "a.sock");
    let restart = || world.rpc("service.restart", json!({"name": "web", "gapless": true}));
    let journal = world.file("journal").display().to_string();
    let fails = ["--fail-first", "1", "--journal", &journal];
    world.register(&specs::activated(world, "web", &["a.sock", "b.sock"], &fails))?;
    let failed = restart()?;
    ensure!(failed.only()?.text("outcome")? == "failed" && ping(&path)? == old, "{failed}");
    let row = world.service("web")?;
    ensure!(row.text("status")? == "running", "the old one serves on: {row}");

    // With another socket, and later without the first.
    let restarted = restart()?;
    let new = restarted.only()?.pid("new_pid")?;
    for name in ["a.sock", "b.sock"] {
        ensure!(ping(&world.socket("web", name))? == new, "{name}: {restarted}");
    }
    world.register(&specs::activated(world, "web", &["b.sock"], &[]))?;
    let restarted = restart()?;
    ensure!(ping(&world.socket("web", "b.sock"))? == restarted.only()?.pid("new_pid")?, "{restarted}");
    ensure!(!path.exists(), "what is no longer declared is no longer there");
    Ok(())
}
