//! All that is kept of a stream, its files read as one.
//!
//! Two ways to count: a *place* is a byte of the view, from 0 for the oldest that is kept; an *offset* counts from the
//! stream's first byte ever (see `index`), and so names the same byte after a cut.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::index::Header;
use super::trim::{copied_upto, hole};
use super::{Files, if_there};

/// Bytes that a search reads at once.
pub(super) const CHUNK: usize = 64 << 10;

/// Some of a file, as part of the stream.
#[derive(Debug)]
struct Part {
    file: File,
    /// Where it begins in the file.
    skip: u64,
    /// The place where it begins.
    from: u64,
    length: u64,
}

/// All that is kept of a stream, from its oldest byte. It is whole as long as the index is locked.
#[derive(Debug, Default)]
pub(super) struct View {
    parts: Vec<Part>,
    /// How many bytes.
    pub length: u64,
    /// The offset of its first byte; negative for what was kept from before the count began.
    pub first: i64,
    /// The inode of the live file; 0 where there is none.
    pub ino: u64,
    /// The offset of the live file's byte 0.
    pub origin: i64,
    /// The place where the live file's data begin.
    live: u64,
    /// What a search read last: the place where it begins, and the bytes.
    chunk: (u64, Vec<u8>),
}

impl View {
    /// Opens the files of a stream, whose index has this header.
    pub fn open(files: &Files, header: Header) -> io::Result<View> {
        let mut parts = Vec::new();
        let mut add = |file: File, skip: u64| -> io::Result<()> {
            let length = file.metadata()?.len().saturating_sub(skip);
            parts.push(Part { file, skip, from: 0, length });
            Ok(())
        };
        let Some(live) = if_there(File::open(&files.live))? else { return Ok(View::default()) };
        let ino = live.metadata()?.ino();
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
        let (mut length, mut live) = (0, 0);
        for part in &mut parts {
            live = length;
            part.from = length;
            length += part.length;
        }
        let origin = header.origin(hole).cast_signed();
        let first = origin + data.cast_signed() - live.cast_signed();
        Ok(View { parts, length, first, ino, origin, live, chunk: (0, Vec::new()) })
    }

    /// The offset of a place.
    pub fn offset(&self, place: u64) -> i64 {
        self.first + place.cast_signed()
    }

    /// The offset of its end.
    pub fn end(&self) -> i64 {
        self.offset(self.length)
    }

    /// The offset at which the live file's data begin.
    pub fn live(&self) -> i64 {
        self.offset(self.live)
    }

    /// The place of an offset: the first or the last one for what lies beyond.
    pub fn place(&self, offset: i64) -> u64 {
        u64::try_from(offset.saturating_sub(self.first)).unwrap_or(0).min(self.length)
    }

    /// Fills `buffer` from `place` on, as far as there is something.
    pub fn read(&self, mut place: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        for part in &self.parts {
            if buffer.is_empty() {
                break;
            }
            let Some(rest) = (part.from + part.length).checked_sub(place).filter(|rest| *rest > 0) else {
                continue;
            };
            let here = buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let (now, later) = std::mem::take(&mut buffer).split_at_mut(here);
            part.file.read_exact_at(now, part.skip + place - part.from)?;
            place += here as u64;
            buffer = later;
        }
        Ok(())
    }

    /// The place where the line begins that the byte before `end` belongs to, be it its newline. What it read serves the
    /// search for the line before.
    pub fn line_begin(&mut self, end: u64) -> io::Result<u64> {
        let mut before = end.saturating_sub(1);
        while before > 0 {
            let (from, bytes) = &self.chunk;
            let held =
                before.checked_sub(*from).and_then(|length| bytes.get(..usize::try_from(length).ok()?));
            let Some(held) = held.filter(|held| !held.is_empty()) else {
                let from = before.saturating_sub(CHUNK as u64);
                let mut bytes = std::mem::take(&mut self.chunk.1);
                bytes.resize(usize::try_from(before - from).unwrap_or(CHUNK), 0);
                self.read(from, &mut bytes)?;
                self.chunk = (from, bytes);
                continue;
            };
            match held.iter().rposition(|byte| *byte == b'\n') {
                Some(newline) => return Ok(from + newline as u64 + 1),
                None => before = *from,
            }
        }
        Ok(0)
    }
}

/// All that is kept of a stream, as a reader gets it.
#[cfg(test)]
pub(super) fn read_all(files: &Files, header: Header) -> Vec<u8> {
    let view = View::open(files, header).expect("open");
    let mut bytes = vec![0; usize::try_from(view.length).expect("small")];
    view.read(0, &mut bytes).expect("read");
    bytes
}
