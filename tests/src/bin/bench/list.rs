//! `proc list` inside one Nushell whose plugin is warm, and once in a Nushell that does nothing else.

use crate::client::Control;
use crate::fleet;
use crate::in_world;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::{Json, Result, World, bins, ensure};
use serde_json::json;
use std::process::Command;
use std::time::Duration;

/// So many services, and how long a call may take then.
const SIZES: [(usize, Duration); 2] = [(100, Duration::from_millis(2)), (1_000, Duration::from_millis(15))];
const RUNS: usize = 200;
/// How much longer than nothing a Nushell of its own may take.
const COLD: Duration = Duration::from_millis(60);
const COLD_RUNS: usize = 40;
const LIMIT: Duration = Duration::from_secs(30);

pub fn measure() -> Result<Vec<Section>> {
    in_world("list", |world| {
        world.start_daemon()?;
        let mut sections = Vec::new();
        let mut before = 0;
        for (size, most) in SIZES {
            let names = fleet::names(before..size);
            fleet::register(world, &names)?;
            fleet::start(world, &names)?;
            before = size;
            sections.push(warm(world, size, most)?);
            if size == SIZES[0].0 {
                sections.push(cold(world, size)?);
            }
        }
        Ok(sections)
    })
}

fn warm(world: &World, services: usize, most: Duration) -> Result<Section> {
    let mut floor = Samples::default();
    for _ in 0..RUNS {
        // As the plugin does it: a connection for each request.
        let rows = floor.time(|| Control::open(world)?.call("service.list", json!({})))?;
        ensure!(rows.rows()?.len() == services, "{} rows", rows.rows()?.len());
    }
    let [small, list] = in_nushell(world, ["null | proc shim status | ignore", "null | proc list | ignore"])?;
    Ok(Section {
        title: format!("proc list of {services} services, warm plugin"),
        floor: Some(Line::timed("service.list over a new connection, from here", &floor)),
        lines: vec![
            Line::timed("proc shim status: the same way, one small record", &small),
            Line::timed("proc list", &list).aim(Aim::Most(Amount::Time(most))),
        ],
    })
}

/// How long each of two pipelines takes in a Nushell that has run both before; they take turns.
fn in_nushell(world: &World, pipelines: [&str; 2]) -> Result<[Samples; 2]> {
    let [one, two] = pipelines;
    let warm = format!("for _ in 0..<20 {{ {one}; {two} }}");
    let timed = format!(
        "mut took = []; for _ in 0..<{RUNS} {{ $took ++= [[(timeit {{ {one} }} | into int) (timeit {{ {two} }} | into int)]] }}"
    );
    let nanos = world.nu_json(&format!("{warm}; {timed}; $took"))?;
    let of = |which: usize| -> Result<Samples> {
        let nanos = nanos.rows()?.iter().filter_map(|pair| pair.get(which)?.as_u64());
        let samples: Samples = nanos.map(Duration::from_nanos).collect();
        ensure!(samples.runs() == RUNS, "{} of {RUNS} runs were timed", samples.runs());
        Ok(samples)
    };
    Ok([of(0)?, of(1)?])
}

/// `nu -c`, with the plugin registered as `plugin add` does it.
fn cold(world: &World, services: usize) -> Result<Section> {
    let nu = bins::nu().context("no Nushell")?;
    let script = |script: &str| -> Command {
        let mut command = world.command(nu);
        command.args(["-c", script]);
        command
    };
    let plugin = world.bin("nu_plugin_proc");
    run(script(&format!("plugin add '{}'", plugin.display())), LIMIT)?.success()?;
    let counted = run(script("proc list | length"), LIMIT)?.success()?;
    ensure!(counted.stdout.trim() == services.to_string(), "{counted}");
    let (mut floor, mut list) = (Samples::default(), Samples::default());
    for _ in 0..COLD_RUNS {
        floor.add(run(script("1"), LIMIT)?.success()?.took);
        list.add(run(script("proc list"), LIMIT)?.success()?.took);
    }
    let more = list.median().saturating_sub(floor.median());
    Ok(Section {
        title: format!("proc list of {services} services, cold: nu -c"),
        floor: Some(Line::timed("nu -c 1, the plugin registered", &floor)),
        lines: vec![
            Line::timed("nu -c 'proc list'", &list),
            Line::found("its median, less the floor's", COLD_RUNS, Amount::Time(more))
                .aim(Aim::Most(Amount::Time(COLD))),
        ],
    })
}
