//! Churn for a while, after which the daemon holds no more than before: `cargo xtask soak` has the whole of it.

use libtest_mimic::Trial;
use scenarios::{Need, Result, World, ensure, scenario, soak};
use std::sync::atomic::Ordering;
use std::time::Duration;

const TIME: Duration = Duration::from_secs(15);

pub fn trials() -> Vec<Trial> {
    vec![scenario("soak", &[Need::Daemon], short)]
}

fn short(world: &World) -> Result {
    let report = soak::run(world, 7, TIME)?;
    ensure!(report.grown.is_empty(), "it has grown: {}\n{:?}", report.grown.join("; "), report.done);
    let done = &report.done;
    let enough = [&done.deeds, &done.answers, &done.follows, &done.looks];
    ensure!(enough.iter().all(|count| count.load(Ordering::Relaxed) > 20), "too little happened: {done:?}");
    ensure!(done.failed.load(Ordering::Relaxed) == 0, "commands failed: {done:?}");
    Ok(())
}
