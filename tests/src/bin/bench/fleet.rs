//! Many services of the smallest kind: the fixture server, on one socket each or on many.

use crate::client::Control;
use scenarios::{Json, Result, World, ensure, specs};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How many sockets one request registers: it may hold 1 MiB.
const AT_ONCE: usize = 500;
/// How many sockets a service has at most that has many.
pub const WIDE: usize = 100;

/// Names of services.
pub fn names(range: Range<usize>) -> Vec<String> {
    range.map(|number| format!("service-{number:04}")).collect()
}

/// Registers services of one socket each.
pub fn register(world: &World, names: &[String]) -> Result {
    set(world, names.iter().map(|name| specs::unixd(world, name, &[])).collect(), AT_ONCE)
}

/// Registers and starts services that have so many sockets together, [`WIDE`] each and the last what is left over.
/// Gives the paths of all sockets. `on_missing`: what follows when one is lost.
pub fn up_wide(world: &World, sockets: usize, on_missing: &str) -> Result<Vec<PathBuf>> {
    let names = names(0..sockets.div_ceil(WIDE));
    let (mut specs, mut paths) = (Vec::new(), Vec::new());
    for name in &names {
        let count = WIDE.min(sockets - paths.len());
        let sockets: Vec<String> = (0..count).map(|number| format!("{number:02}.sock")).collect();
        paths.extend(sockets.iter().map(|socket| world.socket(name, socket)));
        let sockets: Vec<&str> = sockets.iter().map(String::as_str).collect();
        let spec = specs::unixd_on(world, name, &sockets, &[]);
        // All at once on a machine that may be busy.
        specs.push(specs::with(spec, json!({"ready": {"timeout": "60sec"}, "on_missing": on_missing})));
    }
    set(world, specs, AT_ONCE / WIDE)?;
    if !names.is_empty() {
        start(world, &names)?;
    }
    Ok(paths)
}

fn set(world: &World, specs: Vec<Value>, at_once: usize) -> Result {
    let mut control = Control::open(world)?;
    for some in specs.chunks(at_once) {
        control.call("service.set", json!({"specs": some}))?;
    }
    Ok(())
}

/// Starts them in one request, and holds that all are running then; gives how long the answer took.
pub fn start(world: &World, names: &[String]) -> Result<Duration> {
    let mut control = Control::open(world)?;
    let start = Instant::now();
    let rows = control.call("service.start", json!({"names": names}))?;
    let took = start.elapsed();
    for row in rows.rows()? {
        ensure!(row.text("status")? == "running", "it did not come up: {row}");
    }
    ensure!(rows.rows()?.len() == names.len(), "{} rows for {} services", rows.rows()?.len(), names.len());
    Ok(took)
}

/// Stops them.
pub fn stop(world: &World, names: &[String]) -> Result {
    Control::open(world)?.call("service.stop", json!({"names": names})).map(drop)
}
