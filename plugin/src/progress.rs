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
    /// A line that is not drawn yet, and never is with `--quiet`.
    ///
    /// # Errors
    /// Nushell's own.
    pub fn of(call: &EvaluatedCall) -> Result<ProgressLine, LabeledError> {
        Ok(ProgressLine { shown: !call.switch("quiet")? && std::io::stderr().is_terminal(), drawn: false })
    }

    /// One that is never drawn: for work that is not long.
    pub fn none() -> ProgressLine {
        ProgressLine { shown: false, drawn: false }
    }

    /// Draws it anew. The daemon tells first after about a second: what is quicker draws nothing.
    pub fn draw(&mut self, progress: &Progress) {
        self.say(&line(progress));
    }

    /// Draws it anew for a wait of the plugin's own, which has lasted so long: once it is over a second.
    pub fn waits(&mut self, waited: Duration, what: &str) {
        if waited >= Duration::from_secs(1) {
            self.say(&format!("{}s  {what}", waited.as_secs()));
        }
    }

    fn say(&mut self, words: &str) {
        if self.shown {
            // One that is wrapped could not be cleared.
            let width = size().map_or(80, |(columns, _)| usize::from(columns)).saturating_sub(1);
            let words: String = words.chars().take(width).collect();
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

/// How many are through, then who is on the way, the longest first: that is what a narrow terminal shows.
fn line(progress: &Progress) -> String {
    let seconds = |nanos: i64| Duration::from_nanos(nanos.unsigned_abs()).as_secs();
    let mut words = Vec::new();
    let all = &progress.services;
    if all.len() > 1 {
        let settled = all.iter().filter(|row| row.settled);
        let failed = settled.clone().filter(|row| row.status == Status::Failed).count();
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        words.push(format!("{} of {} done{failed}", settled.count(), all.len()));
    }
    let mut under_way: Vec<(&ProgressRow, i64)> =
        all.iter().filter(|row| !row.settled).filter_map(|row| Some((row, row.took?))).collect();
    under_way.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    words.extend(
        under_way.iter().map(|(row, took)| format!("{} {} {}s", row.name, row.status, seconds(*took))),
    );
    let waiting = all.iter().filter(|row| !row.settled && row.took.is_none()).count();
    if waiting > 0 {
        words.push(format!("{waiting} to come"));
    }
    format!("{}s  {}", seconds(progress.elapsed), words.join(" · "))
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
        assert_eq!(line(&Progress { services, elapsed: 3_400_000_000 }), "3s  redis stopping 3s");
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
        assert_eq!(
            line(&Progress { services, elapsed: 9_400_000_000 }),
            "9s  2 of 5 done, 1 failed · redis stopping 9s · web starting 2s · 1 to come"
        );
    }
}
