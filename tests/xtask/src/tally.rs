//! Runs of the test runner counted together: each is shown as it comes, and the closing line counts them all.

use scenarios::fault::Context;
use scenarios::{Result, command::line_of};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the runner's closing line begins with.
const CLOSING: &str = "test result: ";

/// The counts of the closing lines so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: [u64; 5],
    failed: bool,
    took: Duration,
}

/// What the runner counts, in its order.
const COUNTED: [&str; 5] = ["passed", "failed", "ignored", "measured", "filtered out"];

impl Tally {
    /// Runs one, and shows all that it says but its closing line, which is said with its title and counted.
    pub fn run(&mut self, title: &str, mut command: Command) -> Result {
        let line = line_of(&command);
        let start = Instant::now();
        let mut child = command.stdout(Stdio::piped()).spawn().context(&line)?;
        let output = child.stdout.take().context("no output")?;
        let mut screen = std::io::stdout().lock();
        let mut closed = false;
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            match std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix(CLOSING)) {
                Some(counts) => {
                    closed = self.count(counts);
                    writeln!(screen, "{title}: {counts}")?;
                }
                None => {
                    screen.write_all(&line)?;
                    screen.write_all(b"\n")?;
                }
            }
            screen.flush()?;
        }
        // A runner that ended before its closing line has not passed, whatever it says.
        self.failed |= !child.wait()?.success() || !closed;
        self.took += start.elapsed();
        Ok(())
    }

    /// Says the closing line of all runs; gives whether all have passed.
    pub fn close(&self) -> bool {
        println!("\n{CLOSING}{}", self.closing());
        !self.failed
    }

    fn closing(&self) -> String {
        let counts: Vec<String> =
            self.counts.iter().zip(COUNTED).map(|(count, word)| format!("{count} {word}")).collect();
        let word = if self.failed { "FAILED" } else { "ok" };
        format!("{word}. {}; finished in {:.2}s", counts.join("; "), self.took.as_secs_f64())
    }

    /// Adds the counts of a closing line; `false` if it has none.
    fn count(&mut self, line: &str) -> bool {
        let mut any = false;
        for part in line.split([';', '.']) {
            let Some((count, word)) = part.trim().split_once(' ') else { continue };
            let known = COUNTED.iter().zip(&mut self.counts).find(|(known, _)| **known == word);
            if let (Ok(count), Some((_, total))) = (count.parse::<u64>(), known) {
                *total += count;
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_runs_together() {
        let mut tally = Tally::default();
        assert!(
            tally.count("ok. 131 passed; 0 failed; 2 ignored; 0 measured; 1 filtered out; finished in 1.50s")
        );
        assert!(
            tally.count(
                "FAILED. 7 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s"
            )
        );
        assert_eq!(tally.counts, [138, 3, 2, 0, 1]);
        tally.failed = true;
        assert_eq!(
            tally.closing(),
            "FAILED. 138 passed; 3 failed; 2 ignored; 0 measured; 1 filtered out; finished in 0.00s"
        );
        assert!(!tally.count("nothing of the kind"));
    }
}
