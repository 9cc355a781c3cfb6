//! The last lines of a service's two streams, by time.
//!
//! The files of a stream are read as one, from the end, in chunks: what is held in memory is where the wanted
//! lines begin, and then the lines themselves, each cut at `LINE_MAX` and all together at `TEXT_MAX`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::FlockArg;
use shimd_api::wire::LogRow;

use super::index::{Header, Index, date};
use super::trim::{copied_upto, hole};
use super::{Files, LogError, Stream, if_there};

/// Bytes of a line that are given; of a longer one the beginning.
pub(super) const LINE_MAX: u64 = 64 << 10;
/// Bytes of text of one stream that are given; beyond, older lines are left out.
const TEXT_MAX: u64 = 16 << 20;
/// Lines that are given at the most.
const LINES_MAX: usize = 100_000;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// The first second that RFC 3339 cannot write (the year 10000).
const YEAR_10000: u64 = 253_402_300_800;

/// Some of a file, as part of the stream.
#[derive(Debug)]
struct Part {
    file: File,
    /// Where it begins in the file.
    skip: u64,
    /// Where it begins in the view.
    from: u64,
    length: u64,
}

/// All that is kept of a stream, from its oldest byte.
#[derive(Debug, Default)]
struct View {
    parts: Vec<Part>,
    length: u64,
    /// The stream offset of its first byte; negative for what was kept from before the count began.
    first: i64,
}

/// A line, and what sorts it among those of the other stream.
struct Dated {
    key: u64,
    row: LogRow,
}

/// The last `lines` lines (at most 100,000) that a service wrote, both streams together, oldest first.
///
/// A line without its newline yet counts. Bytes that are not UTF-8 are replaced. Of a line over 64 KiB the
/// beginning is given, and how long it is; of a stream no more than 16 MiB. Lines without a time stay behind the
/// last one before them that has one. Call [`Indexer::touch`](super::Indexer::touch) first, so that the newest lines are dated.
///
/// # Errors
/// [`LogError`]; a service that never wrote has no lines, and that is no error.
pub fn tail(logs_dir: &Path, service: &str, lines: usize) -> Result<Vec<LogRow>, LogError> {
    let lines = lines.min(LINES_MAX);
    let mut streams = Vec::new();
    for stream in Stream::BOTH {
        let files = Files::new(logs_dir, service, stream)?;
        streams.push(last_lines(&files, stream, lines).map_err(LogError::io(&files.live, "read the log"))?);
    }
    let err = streams.pop().unwrap_or_default();
    let mut rows = merge(streams.pop().unwrap_or_default(), err);
    Ok(rows.split_off(rows.len().saturating_sub(lines)))
}

/// Both in the order of their keys, each in its own order; `out` first where they are equal.
fn merge(out: Vec<Dated>, err: Vec<Dated>) -> Vec<LogRow> {
    let (mut out, mut err) = (out.into_iter().peekable(), err.into_iter().peekable());
    let mut rows = Vec::with_capacity(out.len() + err.len());
    loop {
        let next = match (out.peek(), err.peek()) {
            (Some(a), Some(b)) if b.key < a.key => err.next(),
            (Some(_), _) => out.next(),
            (None, _) => err.next(),
        };
        match next {
            Some(line) => rows.push(line.row),
            None => return rows,
        }
    }
}

fn last_lines(files: &Files, stream: Stream, lines: usize) -> io::Result<Vec<Dated>> {
    let _held = Index::lock(&files.index(), FlockArg::LockShared)?;
    let index = Index::open_to_read(&files.index())?;
    let view = View::open(files, index.as_ref().map(|index| index.header).unwrap_or_default())?;
    let (begins, oldest) = view.line_begins(lines)?;
    let Some(first_end) = begins.first().map(|begin| view.first + begin.cast_signed()) else {
        return Ok(Vec::new());
    };
    let records = index.map_or(Ok(Vec::new()), |index| index.records_from(first_end))?;

    let ends = begins.iter().skip(1).copied().chain([view.length]);
    let mut dated = Vec::with_capacity(begins.len());
    let mut key = 0;
    for (begin, end) in begins.iter().zip(ends) {
        let time = date(&records, view.first + end.cast_signed());
        key = time.unwrap_or(key);
        let line = view.line(*begin, end)?;
        let row = LogRow { time: time.and_then(rfc3339), stream: stream.as_str().into(), line };
        dated.push(Dated { key, row });
    }
    if oldest == Oldest::LeftOut {
        let line = format!("[older lines are left out here: {} MiB are given]", TEXT_MAX >> 20);
        let row = LogRow { time: None, stream: stream.as_str().into(), line };
        dated.insert(0, Dated { key: 0, row });
    }
    Ok(dated)
}

/// Whether all lines that were asked for are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oldest {
    Given,
    LeftOut,
}

impl View {
    fn open(files: &Files, header: Header) -> io::Result<View> {
        let mut parts = Vec::new();
        let mut add = |file: File, skip: u64| -> io::Result<()> {
            let length = file.metadata()?.len().saturating_sub(skip);
            parts.push(Part { file, skip, from: 0, length });
            Ok(())
        };
        let Some(live) = if_there(File::open(&files.live))? else { return Ok(View::default()) };
        let hole = hole(&live)?;
        // A cut that was committed, and not finished when the daemon was killed, holds the live file's front.
        let cut = if_there(File::open(files.cut()))?;
        let copied = cut.as_ref().map_or(Ok(0), |cut| cut.metadata().map(|found| found.len()))?;
        let data = copied_upto(header, copied, hole).unwrap_or(hole);
        add(live, data)?;
        if let Some(cut) = cut {
            add(cut, 0)?;
        }
        let mut missing = 0;
        for n in 1.. {
            match if_there(File::open(files.rotated(n)))? {
                Some(file) => add(file, 0)?,
                None if missing == 1 => break,
                None => missing += 1,
            }
        }
        parts.reverse();
        let mut length = 0;
        let mut before_live = 0;
        for part in &mut parts {
            before_live = length;
            part.from = length;
            length += part.length;
        }
        let first = (header.origin(hole) + data).cast_signed() - before_live.cast_signed();
        Ok(View { parts, length, first })
    }

    /// Fills `buffer` from `offset` on, as far as there is something.
    fn read(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        for part in &self.parts {
            if buffer.is_empty() {
                break;
            }
            let Some(rest) = (part.from + part.length).checked_sub(offset).filter(|rest| *rest > 0) else {
                continue;
            };
            let here = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let (now, later) = std::mem::take(&mut buffer).split_at_mut(here);
            part.file.read_exact_at(now, part.skip + offset - part.from)?;
            offset += here as u64;
            buffer = later;
        }
        Ok(())
    }

    /// Where each of the last `lines` lines begins, oldest first.
    fn line_begins(&self, lines: usize) -> io::Result<(Vec<u64>, Oldest)> {
        let mut begins = Vec::new();
        let mut text = 0;
        let mut end = self.length;
        let mut at = self.length;
        let mut buffer = vec![0; CHUNK];
        // Takes a line that begins at `begin`; false once there are enough.
        let mut take = |begin: u64, begins: &mut Vec<u64>| {
            text += (end - begin).min(LINE_MAX);
            if begin < end && begins.len() < lines && text <= TEXT_MAX {
                begins.push(begin);
                end = begin;
            }
            begins.len() < lines && text <= TEXT_MAX
        };
        let mut more = lines > 0;
        while at > 0 && more {
            let size = usize::try_from(at).unwrap_or(CHUNK).min(CHUNK);
            let Some(chunk) = buffer.get_mut(..size) else { break };
            at -= size as u64;
            self.read(at, chunk)?;
            for (position, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let begin = at + position as u64 + 1;
                if begin < self.length && !take(begin, &mut begins) {
                    more = false;
                    break;
                }
            }
        }
        if more {
            take(0, &mut begins);
        }
        let oldest = if text > TEXT_MAX { Oldest::LeftOut } else { Oldest::Given };
        begins.reverse();
        Ok((begins, oldest))
    }

    /// The text of the line `[begin, end)`.
    fn line(&self, begin: u64, end: u64) -> io::Result<String> {
        let length = end - begin;
        let mut bytes = vec![0; usize::try_from(length.min(LINE_MAX)).unwrap_or(0)];
        self.read(begin, &mut bytes)?;
        if length <= LINE_MAX {
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        let text = String::from_utf8_lossy(&bytes);
        // The cut may have gone through a character.
        let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        Ok(format!("{text} [cut here: the line has {length} bytes]"))
    }
}

fn rfc3339(time: u64) -> Option<String> {
    let since = Duration::from_nanos(time);
    let time = UNIX_EPOCH.checked_add(since).filter(|_| since.as_secs() < YEAR_10000)?;
    Some(humantime::format_rfc3339_millis(time).to_string())
}

/// All that is kept of a stream, as a reader gets it.
#[cfg(test)]
pub(super) fn read_all(files: &Files, header: Header) -> Vec<u8> {
    let view = View::open(files, header).expect("open");
    let mut bytes = vec![0; usize::try_from(view.length).expect("small")];
    view.read(0, &mut bytes).expect("read");
    bytes
}

#[cfg(test)]
mod tests;
