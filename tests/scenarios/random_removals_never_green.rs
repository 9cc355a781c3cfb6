//! Dentries are removed at random, under load, while `service.list` is polled: it never shows `running` for a service
//! whose socket is missing before and after the look.
//!
//! What counts as a violation: the path was missing before the request and after the answer, no restart of that service
//! was begun, ended or under way in between (so that the file was missing all the time), and the row says `running`.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Fault, Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SERVICES: usize = 8;
const SPAN: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("random_removals_never_green", &[Need::Daemon], never_green)]
}

struct Service {
    name: String,
    path: PathBuf,
    /// Odd while a restart is under way; each restart adds two.
    restarts: AtomicU64,
}

fn never_green(world: &World) -> Result {
    world.start_daemon()?;
    let mut services = Vec::new();
    for number in 0..SERVICES {
        let name = format!("s{number}");
        let options: &[&str] = match number % 4 {
            0 => &[],
            1 => &["--fork-workers", "2"],
            2 => &["--bind-temp-rename"],
            _ => &["--unlink-at-exit"],
        };
        // A file that goes before its start is verified makes that start wait for its time-out: a short one.
        world.up(&specs::with(specs::unixd(world, &name, options), json!({"ready": {"timeout": "1sec"}})))?;
        services.push(Service { path: world.socket(&name, "rpc.sock"), name, restarts: AtomicU64::new(0) });
    }
    let over = AtomicBool::new(false);
    let (services, over) = (services.as_slice(), &over);
    std::thread::scope(|scope| {
        let load = scope.spawn(move || clients(services, over));
        let removals = scope.spawn(move || remove_at_random(services, over));
        let restarts = scope.spawn(move || restart_the_lost(world, services, over));
        let polled = poll(world, services);
        over.store(true, Ordering::Relaxed);
        let panicked = |_| Fault::new("a thread panicked");
        let answers = load.join().map_err(panicked)?;
        let removed = removals.join().map_err(panicked)?;
        let restarted = restarts.join().map_err(panicked)??;
        let polled = polled?;
        world.note(format!("{answers} answers, {removed} removals, {restarted} restarts, {polled:?}"));
        ensure!(
            removed > 20 && restarted > 1 && polled.missing > 50 && polled.green > 50,
            "too little happened: {polled:?}"
        );
        Ok(())
    })?;
    for service in services {
        world.rpc("service.restart", json!({"name": service.name, "clean": true}))?;
        let row = world.service(&service.name)?;
        ensure!(row.text("status")? == "running", "in the end all can be cured: {row}");
        ping(&service.path)?;
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Polled {
    looks: usize,
    green: usize,
    missing: usize,
}

fn poll(world: &World, services: &[Service]) -> Result<Polled> {
    let mut polled = Polled::default();
    let start = Instant::now();
    let look = |service: &Service| {
        let restarts = service.restarts.load(Ordering::SeqCst);
        let missing = fs::symlink_metadata(&service.path).is_err();
        (restarts, missing)
    };
    while start.elapsed() < SPAN {
        let before: Vec<_> = services.iter().map(look).collect();
        let rows = world.rpc("service.list", json!({}))?;
        polled.looks += 1;
        for (service, before) in services.iter().zip(before) {
            let after = look(service);
            let row = rows.row("name", &service.name)?;
            let green = row.text("status")? == "running";
            polled.green += usize::from(green);
            let missing_throughout = before == after && before.1 && before.0 % 2 == 0;
            polled.missing += usize::from(missing_throughout);
            ensure!(
                !(green && missing_throughout),
                "green while {} is missing: {row}",
                service.path.display()
            );
        }
    }
    Ok(polled)
}

/// Keeps a processor busy and the servers' queues used; gives the number of answers.
fn clients(services: &[Service], over: &AtomicBool) -> usize {
    let mut answers = 0;
    while !over.load(Ordering::Relaxed) {
        answers += services.iter().filter(|service| ping(&service.path).is_ok()).count();
    }
    answers
}

fn remove_at_random(services: &[Service], over: &AtomicBool) -> usize {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut removed = 0;
    while !over.load(Ordering::Relaxed) {
        let service = &services[random.below(SERVICES)];
        removed += usize::from(fs::remove_file(&service.path).is_ok());
        // Also in quick succession: the pause is between nothing and 40 ms.
        std::thread::sleep(Duration::from_millis(random.below(40) as u64));
    }
    removed
}

fn restart_the_lost(world: &World, services: &[Service], over: &AtomicBool) -> Result<usize> {
    let mut restarted = 0;
    while !over.load(Ordering::Relaxed) {
        for service in services {
            if fs::symlink_metadata(&service.path).is_err() && !over.load(Ordering::Relaxed) {
                service.restarts.fetch_add(1, Ordering::SeqCst);
                let answer = world.rpc("service.restart", json!({"name": service.name, "clean": true}));
                service.restarts.fetch_add(1, Ordering::SeqCst);
                answer?;
                restarted += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(restarted)
}

/// xorshift64: the same removals in every run, as far as timing lets them.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
