//! Real servers under clients in a tight loop: while the socket's file is removed, and while the service is restarted, in
//! each mode that the server can do. `LOAD_REMOVALS` and `LOAD_RESTARTS` say how often.
//!
//! There is no floor: the counts are to be none. Two clients connect anew for each question, without a pause; one more
//! keeps its connection open while files are removed.

use crate::in_world;
use crate::table::{Aim, Amount, Line, Section};
use scenarios::load::{Load, Mode, SERVERS, Seen, Server};
use scenarios::{Result, World};

const REMOVALS: usize = 1_000;
const RESTARTS: usize = 200;

pub fn measure() -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for server in &SERVERS {
        if let Some(why) = server.record()?.lacking() {
            eprintln!("bench: {} is skipped: {why}", server.name);
            continue;
        }
        for mode in server.modes {
            eprintln!("bench: load: {}, {}", server.name, mode.name());
            sections.push(in_world("load", |world| figure(world, server, *mode))?);
        }
    }
    Ok(sections)
}

fn figure(world: &World, server: &Server, mode: Mode) -> Result<Section> {
    let (removals, restarts) = (count("LOAD_REMOVALS", REMOVALS)?, count("LOAD_RESTARTS", RESTARTS)?);
    world.start_daemon()?;
    let load = Load::up(world, server, mode)?;
    let (fresh, open) = load.removals(removals, server.stays_open)?;
    let mut lines = lines("removed", removals, &fresh, false, true);
    if server.stays_open {
        lines.push(number("removed: open connections dropped", removals, open.dropped).aim(NONE));
    }
    let seen = load.restarts(restarts)?;
    let none = mode != Mode::Bind;
    lines.extend(self::lines("restarted", restarts, &seen, none, none));
    for seen in [&fresh, &open, &seen] {
        if let Some(first) = &seen.first_drop {
            eprintln!("bench: load: {}, {}: the first drop: {first}", server.name, mode.name());
        }
    }
    load.down()?;
    Ok(Section { title: format!("{}, {}, under clients", server.name, mode.name()), floor: None, lines })
}

const NONE: Aim = Aim::Most(Amount::Count(0));

fn lines(deed: &str, times: usize, seen: &Seen, none_fails: bool, none_drops: bool) -> Vec<Line> {
    let failed: Vec<String> = seen.refused.iter().map(|(errno, count)| format!("{errno} {count}")).collect();
    let failed = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
    let aimed = |line: Line, aimed: bool| if aimed { line.aim(NONE) } else { line };
    vec![
        number(&format!("{deed}: connects"), times, seen.connects),
        aimed(number(&format!("{deed}: … that failed{failed}"), times, seen.failed()), none_fails),
        aimed(number(&format!("{deed}: closed before the answer"), times, seen.dropped), none_drops),
        Line::found(format!("{deed}: the longest wait for an answer"), times, Amount::Time(seen.longest)),
    ]
}

fn number(what: &str, times: usize, count: usize) -> Line {
    Line::found(what, times, Amount::Count(count as u64))
}

fn count(variable: &str, otherwise: usize) -> Result<usize> {
    match std::env::var(variable) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(otherwise),
    }
}
