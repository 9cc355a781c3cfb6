//! Long work on a terminal: one line of stderr, redrawn as the daemon tells how far it is, gone at the end.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use shimd_api::wire::Progress;

/// Clears the line. Wrapping is off while one is drawn, so that a narrow terminal cuts it.
const CLEAR: &str = "\r\x1b[K";

/// The line, if stderr is a terminal; otherwise nothing.
pub struct ProgressLine {
    terminal: bool,
    drawn: bool,
}

impl ProgressLine {
    /// A line that is not drawn yet.
    pub fn new() -> ProgressLine {
        ProgressLine { terminal: std::io::stderr().is_terminal(), drawn: false }
    }

    /// Draws it anew. The daemon tells first after about a second: what is quicker draws nothing.
    pub fn draw(&mut self, progress: &Progress) {
        if self.terminal {
            // A terminal that is gone loses the line, nothing else.
            let _ = write!(std::io::stderr(), "{CLEAR}\x1b[?7l{}\x1b[?7h", line(progress));
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

fn line(progress: &Progress) -> String {
    let elapsed = Duration::from_nanos(progress.elapsed.unsigned_abs()).as_secs();
    let services: Vec<String> =
        progress.services.iter().map(|row| format!("{} {}", row.name, row.status)).collect();
    format!("{elapsed}s  {}", services.join(" · "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shimd_api::wire::{StateRow, Status};

    #[test]
    fn the_line_names_each_service_and_its_state() {
        let row = |name: &str, status| StateRow { name: name.into(), status };
        let services = vec![row("redis", Status::Stopping), row("web", Status::Starting)];
        assert_eq!(line(&Progress { services, elapsed: 3_400_000_000 }), "3s  redis stopping · web starting");
    }
}
