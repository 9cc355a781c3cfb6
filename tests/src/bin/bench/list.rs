//! `proc list` of 100 services, in one Nushell whose plugin is warm.

use crate::client::Control;
use crate::fleet;
use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::{Json, Result, World, ensure};
use serde_json::json;
use std::time::Duration;

const SERVICES: usize = 100;
const RUNS: usize = 200;

pub fn measure() -> Result<Vec<Section>> {
    in_world("list", |world| {
        world.start_daemon()?;
        let names = fleet::names(0..SERVICES);
        fleet::register(world, &names)?;
        fleet::start(world, &names)?;
        let mut floor = Samples::default();
        for _ in 0..RUNS {
            // As the plugin does it: a connection for each request.
            let rows = floor.time(|| Control::open(world)?.call("service.list", json!({})))?;
            ensure!(rows.rows()?.len() == SERVICES, "{} rows", rows.rows()?.len());
        }
        let small = in_nushell(world, "null | proc shim status | ignore")?;
        let list = in_nushell(world, "null | proc list | ignore")?;
        Ok(vec![Section {
            title: format!("proc list of {SERVICES} services, warm plugin"),
            floor: Some(Line::timed("service.list over a new connection, from here", &floor)),
            lines: vec![
                Line::timed("proc shim status: the same way, one small record", &small),
                Line::timed("proc list", &list).aim(Aim::Most(Amount::Time(Duration::from_millis(4)))),
            ],
        }])
    })
}

/// How long a pipeline takes in a Nushell that has run it before.
fn in_nushell(world: &World, pipeline: &str) -> Result<Samples> {
    let warm = format!("for _ in 0..<20 {{ {pipeline} }}");
    let timed =
        format!("mut took = []; for _ in 0..<{RUNS} {{ $took ++= [(timeit {{ {pipeline} }} | into int)] }}");
    let nanos = world.nu_json(&format!("{warm}; {timed}; $took"))?;
    let nanos = nanos.rows()?.iter().filter_map(|nanos| nanos.as_u64());
    let samples: Samples = nanos.map(Duration::from_nanos).collect();
    ensure!(samples.runs() == RUNS, "{} of {RUNS} runs were timed", samples.runs());
    Ok(samples)
}
