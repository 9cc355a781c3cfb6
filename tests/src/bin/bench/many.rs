//! `restart --clean` of 100 services in one request: on their own, and as 25 times four that depend on each other.

use crate::client::Control;
use crate::samples::Samples;
use crate::start::by_hand;
use crate::table::{Line, Section};
use crate::{fleet, in_world};
use scenarios::{Json, Result, World, ensure, specs};
use serde_json::json;
use std::time::{Duration, Instant};

const SERVICES: usize = 100;
const RUNS: usize = 10;
/// How many depend on each other, each on the one before.
const CHAIN: usize = 4;

pub fn measure() -> Result<Vec<Section>> {
    in_world("many", |world| {
        world.start_daemon()?;
        let names = fleet::names(0..SERVICES);
        fleet::register(world, &names)?;
        fleet::start(world, &names)?;
        let (mut floor, mut alone, mut longest, mut chained) = <[Samples; 4]>::default().into();
        for _ in 0..RUNS {
            floor.add(by_hand(world, SERVICES)?);
            let (took, most) = restart(world, &names)?;
            alone.add(took);
            longest.add(most);
        }
        chain(world, &names)?;
        for _ in 0..RUNS {
            chained.add(restart(world, &names)?.0);
        }
        Ok(vec![Section {
            title: format!("restart --clean of {SERVICES} services"),
            floor: Some(Line::timed("posix_spawn of all from here → all sockets answer", &floor)),
            lines: vec![
                Line::timed("one request → all running, each on its own", &alone),
                Line::timed("… of which the one that was down the longest", &longest),
                Line::timed(format!("one request → all running, in chains of {CHAIN}"), &chained),
            ],
        }])
    })
}

fn chain(world: &World, names: &[String]) -> Result {
    let spec = |(number, name): (usize, &String)| {
        let on = number.checked_sub(1).filter(|_| number % CHAIN > 0).map(|before| &names[before]);
        specs::with(specs::unixd(world, name, &[]), json!({"depends_on": on.into_iter().collect::<Vec<_>>()}))
    };
    let specs: Vec<_> = names.iter().enumerate().map(spec).collect();
    Control::open(world)?.call("service.set", json!({"specs": specs})).map(drop)
}

/// How long the request took, and the longest time that one service was at it.
fn restart(world: &World, names: &[String]) -> Result<(Duration, Duration)> {
    let mut control = Control::open(world)?;
    let start = Instant::now();
    let rows = control.call("service.restart", json!({"names": names, "clean": true}))?;
    let took = start.elapsed();
    let mut most = 0;
    for row in rows.rows()? {
        ensure!(row.text("outcome")? == "restarted", "it did not come up: {row}");
        most = most.max(row.int("took")?);
    }
    Ok((took, Duration::from_nanos(most.unsigned_abs())))
}
