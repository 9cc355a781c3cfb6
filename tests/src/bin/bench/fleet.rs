//! Many services of the smallest kind: the fixture server on one socket each.

use crate::client::Control;
use scenarios::{Json, Result, World, ensure, specs};
use serde_json::{Value, json};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How many specs one request registers: it may hold 1 MiB.
const AT_ONCE: usize = 500;

/// Names of services.
pub fn names(range: Range<usize>) -> Vec<String> {
    range.map(|number| format!("service-{number:04}")).collect()
}

/// Registers them.
pub fn register(world: &World, names: &[String]) -> Result {
    let mut control = Control::open(world)?;
    for some in names.chunks(AT_ONCE) {
        let specs: Vec<Value> = some.iter().map(|name| specs::unixd(world, name, &[])).collect();
        control.call("service.set", json!({"specs": specs}))?;
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
