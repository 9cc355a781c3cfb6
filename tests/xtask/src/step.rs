//! One step of a long set-up: what it is, that it is still under way, how long it took. Its output is shown if it fails.

use scenarios::command::{line_of, wait_child};
use scenarios::fault::Context;
use scenarios::{Fault, Result};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two signs of life.
const STILL: Duration = Duration::from_secs(15);

/// Runs a command to its end, however long it takes. Whatever it says goes to a file in the target folder.
pub fn step(title: &str, mut command: Command) -> Result {
    let log = log_file(title)?;
    let output = File::create(&log).context(log.display())?;
    let errors = output.try_clone()?;
    eprintln!("xtask: {title} ({})", line_of(&command));
    let start = Instant::now();
    let spawned = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
    let mut child = spawned.context(line_of(&command))?;
    loop {
        match wait_child(&mut child, STILL)? {
            None => eprintln!("xtask: {title} … {} s", start.elapsed().as_secs()),
            Some(Some(0)) => {
                eprintln!("xtask: {title}: done in {:.1} s", start.elapsed().as_secs_f64());
                return Ok(());
            }
            Some(_) => return Err(Fault(format!("{title} failed:\n{}", tail(&log)))),
        }
    }
}

fn log_file(title: &str) -> Result<PathBuf> {
    let folder = crate::build::target()?.join("xtask");
    fs::create_dir_all(&folder).context(folder.display())?;
    let name: String =
        title.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
    Ok(folder.join(name + ".log"))
}

fn tail(log: &PathBuf) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.get(lines.len().saturating_sub(25)..).unwrap_or_default();
    format!("{}\n(all of it: {})", shown.join("\n"), log.display())
}
