//! A daemon that was killed while 1,000 services run, started again: until it serves requests, and until every service
//! is known again, with the process that it had. Beside it a daemon that has no services, in turns.

use crate::client::Control;
use crate::samples::Samples;
use crate::table::{Aim, Amount, Line, Section};
use crate::{fleet, in_world};
use scenarios::{Json, Result, World, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

const SERVICES: usize = 1_000;
const RUNS: usize = 11;
const AIM: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks for the control socket.
const LOOK: Duration = Duration::from_micros(200);

pub fn measure() -> Result<Vec<Section>> {
    in_world("empty", |empty| in_world("recovery", |full| compared(empty, full)))
}

fn compared(empty: &World, full: &World) -> Result<Vec<Section>> {
    empty.start_daemon()?;
    full.start_daemon()?;
    let names = fleet::names(0..SERVICES);
    fleet::register(full, &names)?;
    fleet::start(full, &names)?;
    let before = pids(full)?;
    let (mut floor, mut serves, mut known) = <[Samples; 3]>::default().into();
    for _ in 0..RUNS {
        floor.add(again(empty)?.0);
        let (served, all) = again(full)?;
        serves.add(served);
        known.add(all);
        ensure!(pids(full)? == before, "not the same processes");
    }
    Ok(vec![Section {
        title: format!("recovery of {SERVICES} running services"),
        floor: Some(Line::timed("with none: start of the process → shim.info answered", &floor)),
        lines: vec![
            Line::timed("start of the process → shim.info answered", &serves)
                .aim(Aim::Most(Amount::Time(AIM))),
            Line::timed("… → service.list says that all are running", &known)
                .aim(Aim::Most(Amount::Time(AIM))),
        ],
    }])
}

/// Kills the daemon and starts another; gives when it served, and when it had told the state of every service.
fn again(world: &World) -> Result<(Duration, Duration)> {
    world.kill_daemon()?;
    let start = Instant::now();
    let mut command = world.command(world.bin("shimd"));
    command.arg("run").stdin(std::process::Stdio::null());
    let (mut served, mut all) = (Duration::ZERO, Duration::ZERO);
    std::thread::scope(|scope| -> Result {
        let looking = scope.spawn(|| -> Result {
            // One that connects to the last threads of the killed daemon is cut off.
            let answers = |mut control: Control| control.call("shim.info", json!({})).ok().map(|_| control);
            let mut control = loop {
                match Control::open(world).ok().and_then(answers) {
                    Some(control) => break control,
                    None => ensure!(start.elapsed() < LIMIT, "no daemon serves"),
                }
                std::thread::sleep(LOOK);
            };
            served = start.elapsed();
            while !all_running(&mut control)? {
                ensure!(start.elapsed() < LIMIT, "not all are known as running");
            }
            all = start.elapsed();
            Ok(())
        });
        world.start_daemon_by(command)?;
        looking.join().map_err(|_| scenarios::Fault::new("the looking thread panicked"))?
    })?;
    Ok((served, all))
}

fn all_running(control: &mut Control) -> Result<bool> {
    let rows = control.call("service.list", json!({}))?;
    Ok(rows.rows()?.iter().all(|row| row.text("status").is_ok_and(|status| status == "running")))
}

fn pids(world: &World) -> Result<Vec<i32>> {
    let rows = Control::open(world)?.call("service.list", json!({}))?;
    rows.rows()?.iter().map(|row| row.pid("pid")).collect()
}
