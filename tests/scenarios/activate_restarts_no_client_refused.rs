//! Restarts that no client sees: whoever connects while no instance runs waits in the queue.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Fault, Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const RESTARTS: usize = 20;
const CLIENTS: usize = 4;

pub fn trials() -> Vec<Trial> {
    vec![scenario("activate_restarts_no_client_refused", &[Need::Daemon], restarts)]
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
            let params = json!({"name": "web", "clean": round % 2 == 1});
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
