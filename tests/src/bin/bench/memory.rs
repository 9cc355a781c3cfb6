//! The daemon's memory while it looks after services: resident (Rss), proportional (Pss), and the most it ever had.

use crate::fleet;
use crate::in_world;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::Result;
use scenarios::fault::Context;
use std::fs;
use std::time::Duration;

const SIZES: [usize; 3] = [1, 100, 1_000];
/// The largest amount at the last size.
const MOST: u64 = 8 << 20;
/// More than a period of the daemon's own audit: what it needs for that has been asked for by then.
const SETTLED: Duration = Duration::from_secs(6);

pub fn measure() -> Result<Vec<Section>> {
    in_world("memory", |world| {
        let daemon = world.start_daemon()?;
        let mut lines = Vec::new();
        let mut before = 0;
        for size in SIZES {
            let names = fleet::names(before..size);
            fleet::register(world, &names)?;
            fleet::start(world, &names)?;
            before = size;
            std::thread::sleep(SETTLED);
            let resident = field(daemon, "smaps_rollup", "Rss:")?;
            let line = Line::weighed(format!("{size} services: Rss"), resident);
            lines.push(if size == 1_000 { line.aim(Aim::Most(Amount::Bytes(MOST))) } else { line });
            let proportional = field(daemon, "smaps_rollup", "Pss:")?;
            lines.push(Line::weighed(format!("{size} services: Pss"), proportional));
            let anonymous = field(daemon, "smaps_rollup", "Anonymous:")?;
            lines.push(Line::weighed(format!("{size} services: of it anonymous"), anonymous));
            let peak = field(daemon, "status", "VmHWM:")?;
            lines.push(Line::weighed(format!("{size} services: the largest Rss so far"), peak));
        }
        Ok(vec![Section { title: "memory of the daemon".into(), floor: None, lines }])
    })
}

/// A field in kB of one of a process's files, as bytes.
pub fn field(pid: i32, file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).context(format!("no {name} in {file}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
