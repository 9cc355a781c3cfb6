//! How a service's sockets were over time: each change of verdict is known, the worst socket counts.

use std::collections::BTreeMap;

use chrono::DateTime;
use shimd_api::event::{EventKind, EventRow};

/// How the worst socket of a service is. A later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is known.
    Unknown,
    /// It is down, as it should be: nobody listens, and nothing is in the way.
    Absent,
    /// All are `ok`.
    Ok,
    /// One is not.
    Bad,
}

impl Level {
    /// Of a verdict.
    pub fn of(verdict: &str) -> Level {
        match verdict {
            "ok" => Level::Ok,
            "absent" => Level::Absent,
            "unknown" => Level::Unknown,
            _ => Level::Bad,
        }
    }

    /// The word whose colour it has.
    pub fn word(self) -> &'static str {
        match self {
            Level::Unknown => "unknown",
            Level::Absent => "absent",
            Level::Ok => "ok",
            Level::Bad => "failed",
        }
    }

    /// Its cell in a bar.
    pub fn cell(self) -> char {
        match self {
            Level::Unknown => ' ',
            Level::Absent => '·',
            Level::Ok => '▄',
            Level::Bad => '█',
        }
    }
}

/// The verdicts of one service's sockets: at each path, from when on it was how. Times are nanoseconds since 1970.
#[derive(Debug, Default)]
pub struct Spells(BTreeMap<String, Vec<(i64, Level)>>);

impl Spells {
    /// From this moment on a socket is so.
    pub fn note(&mut self, path: &str, time: i64, level: Level) {
        let spells = self.0.entry(path.to_owned()).or_default();
        if spells.last().is_none_or(|(last, known)| *known != level && *last <= time) {
            spells.push((time, level));
        }
    }

    /// What was before this is forgotten, but for what it was then.
    pub fn forget_before(&mut self, time: i64) {
        for spells in self.0.values_mut() {
            let begun = spells.iter().rposition(|(since, _)| *since <= time).unwrap_or(0);
            spells.drain(..begun);
        }
    }

    /// The span until `now` in so many cells, the oldest first; in each the worst that was.
    pub fn bar(&self, now: i64, span: i64, cells: usize) -> Vec<Level> {
        let width = (span / i64::try_from(cells.max(1)).unwrap_or(i64::MAX)).max(1);
        let cell = |number: usize| {
            let begin = now - span + width * i64::try_from(number).unwrap_or_default();
            self.0.values().map(|spells| worst(spells, begin, begin + width)).max().unwrap_or(Level::Unknown)
        };
        (0..cells).map(cell).collect()
    }
}

/// The worst within `[begin, end)`.
fn worst(spells: &[(i64, Level)], begin: i64, end: i64) -> Level {
    let ends = spells.iter().skip(1).map(|(since, _)| *since).chain([i64::MAX]);
    let within = spells.iter().zip(ends).filter(|((since, _), until)| *since < end && *until > begin);
    within.map(|((_, level), _)| *level).max().unwrap_or(Level::Unknown)
}

/// The service, path, time and level of an event that changes a verdict.
pub fn change(event: &EventRow) -> Option<(&str, &str, i64, Level)> {
    let time = DateTime::parse_from_rfc3339(&event.time).ok()?.timestamp_nanos_opt()?;
    let detail = (event.kind == EventKind::Verdict).then_some(&event.detail)?;
    Some((event.service.as_deref()?, detail.path.as_deref()?, time, Level::of(detail.verdict.as_deref()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(spells: &Spells, now: i64, span: i64, cells: usize) -> String {
        spells.bar(now, span, cells).into_iter().map(Level::cell).collect()
    }

    #[test]
    fn each_cell_has_the_worst_of_its_time() {
        let mut spells = Spells::default();
        spells.note("/a", 20, Level::Ok);
        spells.note("/a", 55, Level::Bad);
        spells.note("/a", 56, Level::Ok);
        spells.note("/a", 80, Level::Absent);
        assert_eq!(bar(&spells, 100, 100, 10), "  ▄▄▄█▄▄··");
        spells.note("/b", 90, Level::Bad);
        assert_eq!(bar(&spells, 100, 100, 10), "  ▄▄▄█▄▄·█");
        assert_eq!(bar(&spells, 100, 100, 0), "");
        assert_eq!(bar(&Spells::default(), 100, 100, 3), "   ");
    }

    #[test]
    fn what_is_said_twice_or_late_changes_nothing() {
        let mut spells = Spells::default();
        spells.note("/a", 50, Level::Ok);
        spells.note("/a", 70, Level::Ok);
        spells.note("/a", 10, Level::Bad);
        assert_eq!(bar(&spells, 100, 100, 4), "  ▄▄");
    }

    #[test]
    fn what_is_forgotten_leaves_how_it_was() {
        let mut spells = Spells::default();
        spells.note("/a", 10, Level::Bad);
        spells.note("/a", 20, Level::Ok);
        spells.note("/a", 90, Level::Bad);
        spells.forget_before(60);
        assert_eq!(bar(&spells, 100, 40, 4), "▄▄▄█");
    }
}
