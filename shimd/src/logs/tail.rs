//! The last lines of a service in one answer, which has bounds.

use std::path::Path;
use std::time::Duration;

use shimd_api::wire::{LogLines, LogRow};

use super::LogError;
use super::reader::{Reader, Wanted};

/// Bytes of text that an answer holds; beyond, older lines are left out.
const TEXT_MAX: u64 = 16 << 20;
/// Lines that an answer holds.
const LINES_MAX: usize = 100_000;

/// The last `lines` lines (at most 100,000) that a service wrote, both streams together, oldest first.
///
/// A line without its newline yet counts. Bytes that are not UTF-8 are replaced. Of a line over 64 KiB the
/// beginning is given, and how long it is; of all no more than 16 MiB. Lines without a time stay behind the
/// last one before them that has one. Call [`Indexer::touch`](super::Indexer::touch) first, so that the newest lines
/// are dated.
///
/// # Errors
/// [`LogError`]; a service that never wrote has no lines, and that is no error.
pub fn tail(
    folder: &Path,
    service: &str,
    lines: usize,
    since: Option<Duration>,
) -> Result<Vec<LogRow>, LogError> {
    let lines = Some(lines.min(LINES_MAX));
    let wanted = Wanted { lines, since, most: Some(TEXT_MAX), ..Wanted::default() };
    let (mut reader, left_out) = Reader::open(folder, service, wanted)?;
    let mut rows = Vec::new();
    if left_out {
        let line = format!("[older lines are left out here: {} MiB are given]", TEXT_MAX >> 20);
        rows.push(LogRow { time: None, stream: "out".into(), line });
    }
    loop {
        let batch = reader.batch()?;
        if let Some(LogLines::Rows(more)) = batch.lines {
            rows.extend(more);
        }
        if !batch.more {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests;
