//! Long work on a terminal: one line of stderr, redrawn as the daemon tells how far it is, gone at the end.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use nu_plugin::EvaluatedCall;
use nu_protocol::LabeledError;
use ratatui::crossterm::terminal::size;
use shimd_api::wire::{Progress, ProgressRow, Status};

use crate::flags::Flags;

/// Clears the line.
const CLEAR: &str = "\r\x1b[K";

/// The line, if stderr is a terminal; otherwise nothing.
pub struct ProgressLine {
    shown: bool,
    drawn: bool,
}

impl ProgressLine {
    /// A line that is not drawn yet, and never is with `--quiet`, nor where a line cannot be drawn anew (`TERM=dumb`).
    ///
    /// # Errors
    /// Nushell's own.
    pub fn of(call: &EvaluatedCall) -> Result<ProgressLine, LabeledError> {
        let able =
            std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Ok(ProgressLine { shown: able && !call.switch("quiet")?, drawn: false })
    }

    /// One that is never drawn: for work that is not long.
    pub fn none() -> ProgressLine {
        ProgressLine { shown: false, drawn: false }
    }

    /// Draws it anew. The daemon tells first after about a second: what is quicker draws nothing.
    pub fn draw(&mut self, progress: &Progress) {
        if self.shown {
            self.say(&line(progress, width()));
        }
    }

    /// Draws it anew for a wait of the plugin's own, which has lasted so long: once it is over a second.
    pub fn waits(&mut self, waited: Duration, what: &str) {
        if waited >= Duration::from_secs(1) {
            self.say(&format!("{}s  {what}", waited.as_secs()));
        }
    }

    fn say(&mut self, words: &str) {
        if self.shown {
            let words: String = words.chars().take(width()).collect();
            // A terminal that is gone loses the line, nothing else.
            let _ = write!(std::io::stderr(), "{CLEAR}{words}");
            self.drawn = true;
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.drawn {
            let _ = write!(std::io::stderr(), "{CLEAR}");
        }
    }
}

/// What fits on a line. One that is wrapped could not be cleared.
fn width() -> usize {
    size().map_or(80, |(columns, _)| usize::from(columns)).saturating_sub(1)
}

/// How many are through, then who is on the way, the longest first, and how many more than the width has room for.
fn line(progress: &Progress, width: usize) -> String {
    let seconds = |nanos: i64| Duration::from_nanos(nanos.unsigned_abs()).as_secs();
    let all = &progress.services;
    let mut under_way: Vec<(&ProgressRow, i64)> =
        all.iter().filter(|row| !row.settled).filter_map(|row| Some((row, row.took?))).collect();
    under_way.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    // The words on some services, and how many these are.
    let mut parts: Vec<(String, usize)> = under_way
        .iter()
        .map(|(row, took)| (format!("{} {} {}s", row.name, row.status, seconds(*took)), 1))
        .collect();
    let waiting = all.iter().filter(|row| !row.settled && row.took.is_none()).count();
    if waiting > 0 {
        parts.push((format!("{waiting} to come"), waiting));
    }
    if all.len() > 1 {
        let settled = all.iter().filter(|row| row.settled);
        let failed = settled.clone().filter(|row| row.status == Status::Failed).count();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        parts.insert(0, (format!("{} of {} done{failed}", settled.count(), all.len()), 0));
    }
    let line = |words: &mut dyn Iterator<Item = String>| {
        format!("{}s  {}", seconds(progress.elapsed), words.collect::<Vec<_>>().join(" · "))
    };
    let with_more = |shown: usize| {
        let (shown, left) = parts.split_at(shown.min(parts.len()));
        let more: usize = left.iter().map(|(_, count)| count).sum();
        let more = (more > 0).then(|| format!("{more} more"));
        line(&mut shown.iter().map(|(words, _)| words.clone()).chain(more))
    };
    let fits = (1..=parts.len()).rev().map(with_more).find(|line| line.chars().count() <= width);
    fits.unwrap_or_else(|| line(&mut parts.iter().map(|(words, _)| words.clone()).take(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, status: Status, settled: bool, took: Option<i64>) -> ProgressRow {
        ProgressRow { name: name.into(), status, settled, took: took.map(|seconds| seconds * 1_000_000_000) }
    }

    #[test]
    fn one_service_is_told_with_its_state() {
        let services = vec![row("redis", Status::Stopping, false, Some(3))];
        assert_eq!(line(&Progress { services, elapsed: 3_400_000_000 }, 79), "3s  redis stopping 3s");
    }

    #[test]
    fn of_many_the_slowest_come_first() {
        let services = vec![
            row("db", Status::Running, true, Some(1)),
            row("web", Status::Starting, false, Some(2)),
            row("redis", Status::Stopping, false, Some(9)),
            row("mail", Status::Failed, true, Some(5)),
            row("later", Status::Running, false, None),
        ];
        let progress = Progress { services, elapsed: 9_400_000_000 };
        let whole = "9s  2 of 5 done, 1 failed · redis stopping 9s · web starting 2s · 1 to come";
        assert_eq!(line(&progress, whole.chars().count()), whole);
        for (width, fits) in [
            (72, "9s  2 of 5 done, 1 failed · redis stopping 9s · web starting 2s · 1 more"),
            (60, "9s  2 of 5 done, 1 failed · redis stopping 9s · 2 more"),
            (50, "9s  2 of 5 done, 1 failed · 3 more"),
            (30, "9s  2 of 5 done, 1 failed"),
        ] {
            assert_eq!(line(&progress, width), fits, "{width}");
        }
    }
}
