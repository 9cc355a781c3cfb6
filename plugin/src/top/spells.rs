//! How a service's sockets were over time: each change of verdict is known, the worst socket counts. A file that is left
//! over (`stale`) is bad only while somebody wants the service up.

use std::collections::BTreeMap;

use chrono::DateTime;
use shimd_api::event::{EventKind, EventRow};
use shimd_api::wire::Status;

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

/// The verdict of a file that nobody listens on.
const STALE: &str = "stale";

/// Whether nobody wants a service up that is in this state.
pub fn is_down(status: Status) -> bool {
    matches!(status, Status::Inactive | Status::Stopping)
}

/// The verdicts of one service's sockets. Times are nanoseconds since 1970.
#[derive(Debug, Default)]
pub struct Spells {
    /// At each path.
    sockets: BTreeMap<String, Socket>,
    /// Whether nobody wants the service up, as far as is known.
    down: bool,
}

/// From when on it was how.
#[derive(Debug, Default)]
struct Socket {
    spells: Vec<(i64, Level)>,
    stale: bool,
}

impl Socket {
    fn note(&mut self, time: i64, level: Level) {
        if self.spells.last().is_none_or(|(last, known)| *known != level && *last <= time) {
            self.spells.push((time, level));
        }
    }
}

impl Spells {
    /// From this moment on a socket is so.
    pub fn note(&mut self, path: &str, time: i64, verdict: &str) {
        let socket = self.sockets.entry(path.to_owned()).or_default();
        socket.stale = verdict == STALE;
        socket.note(time, if socket.stale && self.down { Level::Absent } else { Level::of(verdict) });
    }

    /// From this moment on the service is in this state.
    pub fn state(&mut self, time: i64, status: Status) {
        self.down = is_down(status);
        for socket in self.sockets.values_mut().filter(|socket| self.down && socket.stale) {
            socket.note(time, Level::Absent);
        }
    }

    /// What an event of the service tells.
    pub fn take(&mut self, event: &EventRow) {
        let time = DateTime::parse_from_rfc3339(&event.time).ok().and_then(|time| time.timestamp_nanos_opt());
        let (Some(time), detail) = (time, &event.detail) else { return };
        match (event.kind, &detail.path, &detail.verdict) {
            (EventKind::Verdict, Some(path), Some(verdict)) => self.note(path, time, verdict),
            // It is no longer declared: nothing is known of it from then on.
            (EventKind::Verdict, Some(path), None) => {
                if let Some(socket) = self.sockets.get_mut(path) {
                    socket.stale = false;
                    socket.note(time, Level::Unknown);
                }
            }
            _ => {}
        }
        // One that a newer daemon knows says nothing here.
        let status = detail.status.as_deref().and_then(|status| serde_json::from_value(status.into()).ok());
        if let (EventKind::State, Some(status)) = (event.kind, status) {
            self.state(time, status);
        }
    }

    /// What was before this is forgotten, but for what it was then.
    pub fn forget_before(&mut self, time: i64) {
        for socket in self.sockets.values_mut() {
            let begun = socket.spells.iter().rposition(|(since, _)| *since <= time).unwrap_or(0);
            socket.spells.drain(..begun);
        }
    }

    /// The span until `now` in so many cells, the oldest first; in each the worst that was.
    pub fn bar(&self, now: i64, span: i64, cells: usize) -> Vec<Level> {
        let width = (span / i64::try_from(cells.max(1)).unwrap_or(i64::MAX)).max(1);
        let cell = |number: usize| {
            let begin = now - span + width * i64::try_from(number).unwrap_or_default();
            let worst = self.sockets.values().map(|socket| worst(&socket.spells, begin, begin + width));
            worst.max().unwrap_or(Level::Unknown)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(spells: &Spells, now: i64, span: i64, cells: usize) -> String {
        spells.bar(now, span, cells).into_iter().map(Level::cell).collect()
    }

    #[test]
    fn each_cell_has_the_worst_of_its_time() {
        let mut spells = Spells::default();
        spells.note("/a", 20, "ok");
        spells.note("/a", 55, "dangling");
        spells.note("/a", 56, "ok");
        spells.note("/a", 80, "absent");
        assert_eq!(bar(&spells, 100, 100, 10), "  ▄▄▄█▄▄··");
        spells.note("/b", 90, "dangling");
        assert_eq!(bar(&spells, 100, 100, 10), "  ▄▄▄█▄▄·█");
        assert_eq!(bar(&spells, 100, 100, 0), "");
        assert_eq!(bar(&Spells::default(), 100, 100, 3), "   ");
    }

    #[test]
    fn what_is_said_twice_or_late_changes_nothing() {
        let mut spells = Spells::default();
        spells.note("/a", 50, "ok");
        spells.note("/a", 70, "ok");
        spells.note("/a", 10, "dangling");
        assert_eq!(bar(&spells, 100, 100, 4), "  ▄▄");
    }

    #[test]
    fn what_nobody_wants_up_is_not_bad() {
        let mut spells = Spells::default();
        spells.note("/a", 10, "ok");
        spells.note("/a", 30, "stale");
        spells.state(50, Status::Inactive);
        spells.note("/a", 60, "stale");
        spells.state(70, Status::Starting);
        spells.note("/a", 70, "ok");
        spells.state(80, Status::Stopping);
        spells.note("/a", 85, "stale");
        assert_eq!(bar(&spells, 100, 100, 10), " ▄▄██··▄▄·");
        spells.note("/a", 90, "foreign");
        assert_eq!(bar(&spells, 100, 100, 10), " ▄▄██··▄▄█", "somebody else has its place");
    }

    #[test]
    fn events_tell_of_verdicts_and_states() {
        let event = |kind: EventKind, detail: serde_json::Value| {
            let row = serde_json::json!({"id": 1, "time": "1970-01-01T00:00:00.000000050Z", "service": "web", "kind": kind,
                "detail": detail});
            serde_json::from_value::<EventRow>(row).unwrap()
        };
        let mut spells = Spells::default();
        spells.take(&event(EventKind::Verdict, serde_json::json!({"path": "/a", "verdict": "stale"})));
        assert_eq!(bar(&spells, 100, 100, 2), " █");
        spells.take(&event(EventKind::State, serde_json::json!({"status": "inactive"})));
        spells.take(&event(EventKind::State, serde_json::json!({"status": "of another day"})));
        assert_eq!(spells.sockets["/a"].spells.last(), Some(&(50, Level::Absent)));
        spells.take(&event(EventKind::Verdict, serde_json::json!({"path": "/a", "was": "stale"})));
        spells.state(60, Status::Running);
        assert_eq!(bar(&spells, 100, 100, 2), "  ", "no longer declared");
    }

    #[test]
    fn what_is_forgotten_leaves_how_it_was() {
        let mut spells = Spells::default();
        spells.note("/a", 10, "dangling");
        spells.note("/a", 20, "ok");
        spells.note("/a", 90, "dangling");
        spells.forget_before(60);
        assert_eq!(bar(&spells, 100, 40, 4), "▄▄▄█");
    }
}
