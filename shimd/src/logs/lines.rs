//! The lines of one stream, from some offset on, as far as it has been written.
//!
//! Each look takes in at most [`LOOK`] bytes under the index's lock, and knows its place by its offset: files may be
//! cut between two looks. Held are those bytes, cut into lines, and the beginning of the line that is not whole yet.
//!
//! | found | becomes |
//! | --- | --- |
//! | a line | a line |
//! | one over [`LINE_MAX`] | its beginning and its length; or, of bytes that are wanted whole, pieces |
//! | the beginning of a line, nothing after it for [`PATIENCE`], or at the last wanted byte | a line as it is |
//! | bytes that were cut off before they were read | a notice of how many |
//! | a live file that is shorter than it was, or another one | its beginning |

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use nix::fcntl::FlockArg;

use super::dates::{Date, Dates};
use super::index::Index;
use super::view::View;
use super::{Files, LogError};

/// Bytes of a line that are given; of a longer one the beginning.
pub(super) const LINE_MAX: usize = 64 << 10;
/// Bytes that one look takes in.
const LOOK: usize = 256 << 10;
/// How long the rest of a line is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A line, or some of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Sorts it among those of the other stream.
    pub key: u64,
    /// When it was written, nanoseconds since 1970.
    pub time: Option<u64>,
    /// With its newline, if it has one; at most [`LINE_MAX`] bytes.
    pub bytes: Vec<u8>,
    /// How many bytes the whole line has.
    pub length: u64,
    /// Whether more of the same line follows.
    pub goes_on: bool,
}

/// What is wanted of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The offset of the first line.
    pub from: i64,
    /// The offset at which the past ends: what comes after it was written just now.
    pub now: i64,
    /// Whether more is wanted than the past.
    pub follow: bool,
    /// Whether long lines are wanted whole, in pieces.
    pub whole: bool,
}

/// The lines of one stream.
#[derive(Debug)]
pub(super) struct Lines {
    files: Files,
    span: Span,
    /// The offset of the next byte.
    at: i64,
    /// The inode of the live file, once it was seen, and the offset of its byte 0.
    ino: u64,
    origin: i64,
    ready: VecDeque<Line>,
    /// The beginning of a line that is not whole yet, and how long it is.
    rest: Vec<u8>,
    rest_length: u64,
    rest_since: Instant,
    /// The last time, by which lines without one are sorted.
    key: Option<u64>,
    /// The last look found nothing.
    dry: bool,
}

impl Lines {
    /// Those of a stream whose live file was found to have this inode and origin.
    pub fn new(files: Files, span: Span, (ino, origin): (u64, i64)) -> Lines {
        Lines {
            files,
            span,
            at: span.from,
            ino,
            origin,
            ready: VecDeque::new(),
            rest: Vec::new(),
            rest_length: 0,
            rest_since: Instant::now(),
            key: None,
            dry: false,
        }
    }

    /// Forgets that there was nothing more.
    pub fn refresh(&mut self) {
        self.dry = false;
    }

    /// The next line, if there is one at this moment, which is `now`: nanoseconds since 1970.
    ///
    /// # Errors
    /// [`LogError::Io`]
    pub fn peek(&mut self, now: u64) -> Result<Option<&Line>, LogError> {
        while self.ready.is_empty() && !self.dry {
            let looked = self.look(now);
            looked.map_err(LogError::io(&self.files.live, "read the log"))?;
        }
        Ok(self.ready.front())
    }

    /// Takes the line that was peeked at.
    pub fn take(&mut self) -> Option<Line> {
        self.ready.pop_front()
    }

    fn look(&mut self, now: u64) -> io::Result<()> {
        let _held = Index::lock(&self.files.index(), FlockArg::LockShared)?;
        let index = Index::open_to_read(&self.files.index())?;
        let view = View::open(&self.files, index.as_ref().map(|index| index.header).unwrap_or_default())?;
        let mut dates = Dates::new(index);
        if view.ino != 0 {
            self.keep_place(&view, now);
        }
        let end = if self.span.follow { view.end() } else { view.end().min(self.span.now) };
        let length = usize::try_from(end.saturating_sub(self.at)).unwrap_or(0).min(LOOK);
        if length == 0 {
            self.dry = true;
            let finished = !self.span.follow || self.rest_since.elapsed() >= PATIENCE;
            if self.rest_length > 0 && finished {
                self.give(self.at, &mut dates, now, false)?;
            }
            return Ok(());
        }
        let mut bytes = vec![0; length];
        view.read(view.place(self.at), &mut bytes)?;
        if self.key.is_none() {
            self.key = Some(dates.key(self.at)?);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.add(piece, &mut dates, now)?;
        }
        Ok(())
    }

    /// Takes in some of a line, its newline perhaps.
    fn add(&mut self, mut piece: &[u8], dates: &mut Dates, now: u64) -> io::Result<()> {
        let whole = piece.last() == Some(&b'\n');
        while !piece.is_empty() {
            let room = LINE_MAX - self.rest.len();
            if room == 0 && self.span.whole {
                self.give(self.at, dates, now, true)?;
                continue;
            }
            // What is beyond the room is counted alone, where it is not wanted.
            let taken = if room == 0 { piece.len() } else { room.min(piece.len()) };
            let (here, later) = piece.split_at(taken);
            self.rest.extend_from_slice(here.get(..room.min(taken)).unwrap_or_default());
            self.rest_length += taken as u64;
            self.at += taken.cast_signed() as i64;
            self.rest_since = Instant::now();
            piece = later;
        }
        if whole { self.give(self.at, dates, now, false) } else { Ok(()) }
    }

    /// Gives what there is of a line, which ends at this offset.
    fn give(&mut self, end: i64, dates: &mut Dates, now: u64, goes_on: bool) -> io::Result<()> {
        let time = match dates.date(end)? {
            Date::By(time) => Some(time),
            Date::Later if end > self.span.now => Some(now),
            Date::Later | Date::Unknown => None,
        };
        let key = time.or(self.key).unwrap_or(0);
        self.key = Some(key);
        let (bytes, length) = (std::mem::take(&mut self.rest), std::mem::take(&mut self.rest_length));
        self.ready.push_back(Line { key, time, bytes, length, goes_on });
        Ok(())
    }

    /// Finds the place in files that may be others than at the last look.
    fn keep_place(&mut self, view: &View, now: u64) {
        let another = self.ino != 0 && view.ino != self.ino;
        self.ino = view.ino;
        // Who empties the file has its bytes counted anew, soon after.
        let anew = view.origin.saturating_sub(self.origin).min(0);
        (self.origin, self.at, self.span.now) = (view.origin, self.at + anew, self.span.now + anew);
        if another || view.end() < self.at {
            self.give_rest();
            self.at = view.live();
            self.span.now = self.span.now.min(self.at);
        }
        let lost = view.first.saturating_sub(self.at);
        if lost > 0 {
            self.give_rest();
            self.at = view.first;
            let words = format!("[{lost} bytes of {} were cut off before they were read]\n", self.name());
            let key = *self.key.get_or_insert(now);
            self.ready.push_back(Line {
                key,
                time: None,
                bytes: words.into_bytes(),
                length: 0,
                goes_on: false,
            });
        }
    }

    /// Gives the beginning of a line whose end is gone.
    fn give_rest(&mut self) {
        let (bytes, length) = (std::mem::take(&mut self.rest), std::mem::take(&mut self.rest_length));
        if length > 0 {
            self.ready.push_back(Line {
                key: self.key.unwrap_or(0),
                time: None,
                bytes,
                length,
                goes_on: false,
            });
        }
    }

    fn name(&self) -> std::borrow::Cow<'_, str> {
        self.files.live.file_name().unwrap_or_default().to_string_lossy()
    }
}

#[cfg(test)]
impl Lines {
    /// Bytes in memory.
    pub fn held(&self) -> usize {
        self.rest.capacity() + self.ready.iter().map(|line| line.bytes.capacity()).sum::<usize>()
    }
}
