//! What a service wrote, both streams together in the order of time, a batch at a time.
//!
//! Where it begins is found from the end: the last so many lines, and none that was written before some time. From
//! there on lines come in the order of their times (see `dates`), each stream in its own order, `out` first where they
//! are equal. Whatever the log holds, memory holds a look and a batch.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use shimd_api::wire::{LogLines, LogRow};

use super::dates::Dates;
use super::index::Index;
use super::lines::{LINE_MAX, Line, Lines, Span};
use super::view::View;
use super::{Files, LogError, Stream};

/// Bytes of text in a batch; a little more where its last line is long.
const BATCH: usize = 32 << 10;
/// Lines in a batch.
const BATCH_LINES: usize = 1000;
/// The first second that RFC 3339 cannot write (the year 10000).
const YEAR_10000: u64 = 253_402_300_800;

/// What is wanted of a service's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The last so many lines of the past; `None`: all of them.
    pub lines: Option<usize>,
    /// None that was written longer ago.
    pub since: Option<Duration>,
    /// What is written from now on, too.
    pub follow: bool,
    /// Bytes as they were written, not rows.
    pub raw: bool,
    /// So many bytes of the past at the most; `None`: all of them.
    pub most: Option<u64>,
}

/// A service's log from some line on.
#[derive(Debug)]
pub(super) struct Reader {
    out: Lines,
    err: Lines,
    raw: bool,
    /// Whose line goes on, so that the other's do not come in between.
    within: Option<Stream>,
    times: Times,
}

/// What there is at some moment.
#[derive(Debug)]
pub(super) struct Batch {
    /// Lines, if there are any.
    pub lines: Option<LogLines>,
    /// Whether there may be more already.
    pub more: bool,
}

impl Reader {
    /// Finds where to begin; says whether lines were left out for [`Wanted::most`].
    ///
    /// # Errors
    /// [`LogError`]; a service that never wrote has no lines, and that is no error.
    pub fn open(folder: &Path, service: &str, wanted: Wanted) -> Result<(Reader, bool), LogError> {
        let now = nanoseconds(SystemTime::now());
        let back = |since: Duration| now.saturating_sub(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let open = |stream| {
            let files = Files::new(folder, service, stream)?;
            let failed = LogError::io(&files.live, "read the log");
            Back::open(&files, wanted.since.map(back)).map_err(failed)
        };
        let mut backs = [open(Stream::Out)?, open(Stream::Err)?];
        let short = match wanted.lines {
            Some(lines) => {
                walk(&mut backs, lines, wanted.most).map_err(LogError::io(folder, "read a log in"))?
            }
            None => false,
        };
        let [out, err] = backs.map(|back| back.lines(wanted));
        let reader = Reader { out, err, raw: wanted.raw, within: None, times: Times::default() };
        Ok((reader, short))
    }

    /// What there is now, as much as a batch holds.
    ///
    /// # Errors
    /// [`LogError::Io`]
    pub fn batch(&mut self) -> Result<Batch, LogError> {
        let now = nanoseconds(SystemTime::now());
        self.out.refresh();
        self.err.refresh();
        let (mut rows, mut bytes, mut size) = (Vec::new(), Vec::new(), 0);
        let mut more = true;
        while size < BATCH && rows.len() < BATCH_LINES {
            let Some((stream, line)) = self.next(now)? else {
                more = false;
                break;
            };
            size += line.bytes.len();
            match self.raw {
                true => bytes.extend_from_slice(&line.bytes),
                false => rows.push(LogRow {
                    time: line.time.and_then(|time| self.times.rfc3339(time)),
                    stream: stream.as_str().into(),
                    line: text(line),
                }),
            }
        }
        let lines = match self.raw {
            _ if rows.is_empty() && bytes.is_empty() => None,
            true => Some(
                String::from_utf8(bytes).map_or_else(|e| LogLines::Bytes(e.into_bytes()), LogLines::Text),
            ),
            false => Some(LogLines::Rows(rows)),
        };
        Ok(Batch { lines, more })
    }

    fn next(&mut self, now: u64) -> Result<Option<(Stream, Line)>, LogError> {
        let within = self.within;
        let first = match within {
            Some(stream) if self.peek(stream, now)?.is_some() => Some(stream),
            _ => match (self.peek(Stream::Out, now)?, self.peek(Stream::Err, now)?) {
                (Some(out), Some(err)) => Some(if err < out { Stream::Err } else { Stream::Out }),
                (Some(_), None) => Some(Stream::Out),
                (None, Some(_)) => Some(Stream::Err),
                (None, None) => None,
            },
        };
        let Some(stream) = first else { return Ok(None) };
        let line = self.lines(stream).take();
        self.within = line.as_ref().filter(|line| line.goes_on).map(|_| stream);
        Ok(line.map(|line| (stream, line)))
    }

    /// The key of a stream's next line.
    fn peek(&mut self, stream: Stream, now: u64) -> Result<Option<u64>, LogError> {
        Ok(self.lines(stream).peek(now)?.map(|line| line.key))
    }

    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }
}

/// A stream on the way back from its end.
struct Back {
    files: Files,
    view: View,
    dates: Dates,
    /// The place where the lines begin that are wanted so far.
    at: u64,
    /// The place before which none is wanted.
    stop: u64,
    /// The key of the line that ends at `at`, once it was looked up.
    key: Option<u64>,
    _held: Option<Flock<File>>,
}

impl Back {
    /// At the first line that is wanted of a stream, by its time.
    fn open(files: &Files, since: Option<u64>) -> io::Result<Back> {
        let held = Index::lock(&files.index(), FlockArg::LockShared)?;
        let index = Index::open_to_read(&files.index())?;
        let mut view = View::open(files, index.as_ref().map(|index| index.header).unwrap_or_default())?;
        let mut dates = Dates::new(index);
        let stop = match since.map(|time| dates.since(time)).transpose()?.flatten() {
            Some(end) if end > view.first => view.line_begin(view.place(end) + 1)?,
            _ => 0,
        };
        Ok(Back { files: files.clone(), view, dates, at: stop, stop, key: None, _held: held })
    }

    /// The key of the line before, if one is wanted.
    fn before(&mut self) -> io::Result<Option<u64>> {
        if self.at <= self.stop {
            return Ok(None);
        }
        if self.key.is_none() {
            self.key = Some(self.dates.key(self.view.offset(self.at))?);
        }
        Ok(self.key)
    }

    fn lines(self, wanted: Wanted) -> Lines {
        let (from, now) = (self.view.offset(self.at), self.view.end());
        let span = Span { from, now, follow: wanted.follow, whole: wanted.raw };
        Lines::new(self.files, span, (self.view.ino, self.view.origin))
    }
}

/// Goes back to the first of the last `lines` lines; says whether it stopped before that, with `most` bytes.
fn walk([out, err]: &mut [Back; 2], lines: usize, most: Option<u64>) -> io::Result<bool> {
    (out.at, err.at) = (out.view.length, err.view.length);
    let mut text = 0;
    for _ in 0..lines {
        let back = match (out.before()?, err.before()?) {
            (Some(a), Some(b)) if a > b => &mut *out,
            (_, Some(_)) => &mut *err,
            (Some(_), None) => &mut *out,
            (None, None) => return Ok(false),
        };
        let begin = back.view.line_begin(back.at)?.max(back.stop);
        text += (back.at - begin).min(LINE_MAX as u64);
        if most.is_some_and(|most| text > most) {
            return Ok(true);
        }
        (back.at, back.key) = (begin, None);
    }
    Ok(false)
}

/// The text of a line, without its newline.
fn text(mut line: Line) -> String {
    let long = line.length > line.bytes.len() as u64;
    if line.bytes.last() == Some(&b'\n') {
        line.bytes.pop();
    }
    if !long {
        return String::from_utf8(line.bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    }
    let text = String::from_utf8_lossy(&line.bytes);
    // The cut may have gone through a character.
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    format!("{text} [cut here: the line has {} bytes]", line.length)
}

/// Times as text; lines come in crowds that share one.
#[derive(Debug, Default)]
struct Times(Option<(u64, String)>);

impl Times {
    fn rfc3339(&mut self, time: u64) -> Option<String> {
        if let Some((last, text)) = &self.0
            && *last == time
        {
            return Some(text.clone());
        }
        let since = Duration::from_nanos(time);
        let moment = UNIX_EPOCH.checked_add(since).filter(|_| since.as_secs() < YEAR_10000)?;
        let text = humantime::format_rfc3339_millis(moment).to_string();
        self.0 = Some((time, text.clone()));
        Some(text)
    }
}

fn nanoseconds(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
