//! A hundred kills of the daemon at random moments: `cargo xtask torture` has the whole run, and replays a seed.

use libtest_mimic::Trial;
use scenarios::torture;
use scenarios::{Need, Result, World, ensure, scenario};

const KILLS: usize = 100;
/// Always the same deeds; the moments are the machine's.
const SEED: u64 = 5;

pub fn trials() -> Vec<Trial> {
    vec![scenario("torture", &[Need::Daemon], hundred)]
}

fn hundred(world: &World) -> Result {
    let toll = torture::run(world, SEED, KILLS, |_| {})?;
    let violations: Vec<String> = toll.violations.iter().map(ToString::to_string).collect();
    ensure!(violations.is_empty(), "{} of {} kills: {}", violations.len(), toll.kills, violations.join("\n"));
    ensure!(toll.kills >= KILLS && toll.answers > 100, "too little happened: {toll:?}");
    Ok(())
}
