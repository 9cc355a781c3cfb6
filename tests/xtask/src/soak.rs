//! `cargo xtask soak`: ten minutes of churn, and what the daemon holds before and after.

use crate::build::programs;
use scenarios::fault::Context;
use scenarios::{Fault, Result, World, soak};
use std::process::ExitCode;
use std::time::Duration;

/// `[--minutes N] [--seed S]`. The status says whether it has grown.
pub fn soak(arguments: &[String]) -> Result<ExitCode> {
    let (mut minutes, mut seed) = (10, u64::from(std::process::id()));
    for pair in arguments.chunks(2) {
        let [option, value] = pair else {
            return Err(Fault(format!("{}: give it a number", pair.concat())));
        };
        let number: u64 = value.parse().context(format!("{option} {value}: not a number"))?;
        match option.as_str() {
            "--minutes" => minutes = number,
            "--seed" => seed = number,
            _ => return Err(Fault(format!("{option}: soak knows --minutes and --seed"))),
        }
    }
    programs()?;
    println!("seed {seed}: cargo xtask soak --minutes {minutes} --seed {seed}");
    let world = World::new("soak", None)?;
    let outcome = soak::run(&world, seed, Duration::from_secs(60 * minutes));
    let ended = world.end();
    let report = outcome?;
    println!("{:?}\nbefore: {}\nafter:  {}", report.done, report.before, report.after);
    ended?;
    if report.grown.is_empty() {
        println!("it ended where it began");
        world.remove();
        return Ok(ExitCode::SUCCESS);
    }
    println!("it has grown: {}\nkept in {}", report.grown.join("; "), world.folder().display());
    Ok(ExitCode::FAILURE)
}
