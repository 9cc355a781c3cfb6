//! `cargo xtask torture`: the daemon is killed 2,000 times, and each recovery looked at.

use crate::build::programs;
use scenarios::fault::Context;
use scenarios::{Fault, Result, World, torture};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

/// `[--kills N] [--seed S]`. The status says whether all was as it must be.
pub fn torture(arguments: &[String]) -> Result<ExitCode> {
    let (mut kills, mut seed) = (2_000, u64::from(std::process::id()));
    for pair in arguments.chunks(2) {
        let [option, value] = pair else {
            return Err(Fault(format!("{}: give it a number", pair.concat())));
        };
        let number: u64 = value.parse().context(format!("{option} {value}: not a number"))?;
        match option.as_str() {
            "--kills" => kills = usize::try_from(number)?,
            "--seed" => seed = number,
            _ => return Err(Fault(format!("{option}: torture knows --kills and --seed"))),
        }
    }
    programs()?;
    println!("seed {seed}: cargo xtask torture --kills {kills} --seed {seed}");
    let world = World::new("torture", None)?;
    let (began, terminal, mut shown) = (Instant::now(), std::io::stderr().is_terminal(), 0);
    let outcome = torture::run(&world, seed, kills, |toll| {
        for violation in toll.violations.iter().skip(shown) {
            println!("{violation}");
        }
        shown = toll.violations.len();
        if terminal {
            eprint!("\r{} of {kills} kills, {} violations", toll.kills, shown);
        }
    });
    if terminal {
        eprintln!();
    }
    let ended = world.end();
    let toll = outcome?;
    println!(
        "{} kills in {:.0} s, {} answers to clients, the longest recovery {:.0} ms: {} violations",
        toll.kills,
        began.elapsed().as_secs_f64(),
        toll.answers,
        toll.longest.as_secs_f64() * 1e3,
        toll.violations.len()
    );
    println!("what the longest waited for: {}", toll.slowest);
    ended?;
    if toll.violations.is_empty() {
        world.remove();
        return Ok(ExitCode::SUCCESS);
    }
    println!("kept in {}", world.folder().display());
    Ok(ExitCode::FAILURE)
}
