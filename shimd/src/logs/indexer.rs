//! Looks at the streams about every 100 ms: records when they grew, and trims them.
//!
//! A stream is *busy* or *calm*. A busy one is looked at by each tick, and becomes calm when it has not grown
//! for a while. A calm one costs nothing: it has an inotify watch for its next write, which fires once
//! (IN_ONESHOT) and makes it busy again, so a service that writes all the time pays for one event, not for each
//! write. This takes one inotify instance of its own; where none can be had (or no watch), streams stay busy.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::AtFlags;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::stat::fstatat;

use super::index::{Index, Record};
use super::trim::{Trimmer, Trimming};
use super::{Files, Limits, LogError, Stream, if_there};

/// How many ticks without growth make a stream calm: about two seconds.
const CALM_TICKS: u8 = 20;
/// How many ticks a stream that could not be trimmed or recorded is let be: about ten seconds.
const TRIES_AFTER: u8 = 100;

/// A stream as it was at the last look.
#[derive(Debug)]
struct Followed {
    files: Files,
    limits: Limits,
    /// Inode of the live file: another one means another stream.
    ino: u64,
    /// The stream offset of the live file's offset 0.
    base: u64,
    /// How long the live file was, and the hole at its front.
    size: u64,
    hole: u64,
    /// Open while it is busy and has something recorded.
    index: Option<Index>,
    watch: Option<WatchDescriptor>,
    busy: bool,
    quiet_ticks: u8,
    wait_ticks: u8,
    trouble: Troubles,
}

/// What did not go well at its last try.
#[derive(Debug, Default)]
struct Troubles {
    record: Option<String>,
    trim: Option<String>,
}

/// Dates and bounds the streams of all services; made once, then [`Indexer::tick`]ed about every 100 ms from
/// one thread. What it does may take milliseconds where it trims, and as long as the disk does where that is slow.
#[derive(Debug)]
pub struct Indexer {
    logs_dir: PathBuf,
    folder: File,
    trimming: Trimming,
    inotify: Option<Inotify>,
    streams: HashMap<(String, Stream), Followed>,
    watches: HashMap<WatchDescriptor, (String, Stream)>,
}

impl Indexer {
    /// Opens the folder of logs and tries out how its file system lets logs be trimmed.
    ///
    /// # Errors
    /// [`LogError::Io`], where the folder is missing or cannot be written.
    pub fn new(logs_dir: &Path) -> Result<Indexer, LogError> {
        Ok(Indexer {
            logs_dir: logs_dir.into(),
            folder: File::open(logs_dir).map_err(LogError::io(logs_dir, "open the folder of logs"))?,
            trimming: Trimming::probe(logs_dir)?,
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok(),
            streams: HashMap::new(),
            watches: HashMap::new(),
        })
    }

    /// How logs can be trimmed here.
    pub fn trimming(&self) -> Trimming {
        self.trimming
    }

    /// Begins to look at both streams of a service, or sets other limits for one that is followed. Call it
    /// after `open_for_append`, and for each service that may still write when the daemon comes up. A cut that
    /// a crash tore is carried on; what was written since the stream was last followed gets no time.
    ///
    /// # Errors
    /// [`LogError`]; where only the index cannot be written, [`Indexer::troubles`] says so instead.
    pub fn follow(&mut self, service: &str, limits: Limits) -> Result<(), LogError> {
        for stream in Stream::BOTH {
            let key = (service.to_owned(), stream);
            if let Some(followed) = self.streams.get_mut(&key) {
                followed.limits = limits;
                followed.busy = true;
                continue;
            }
            let files = Files::new(&self.logs_dir, service, stream)?;
            let mut followed = Followed::new(files, limits);
            followed.begin(&self.folder, self.trimming)?;
            let over = followed.is_over();
            self.streams.insert(key.clone(), followed);
            if !over {
                self.calm(&key);
            }
        }
        Ok(())
    }

    /// Stops looking at a service's streams, after one last look.
    pub fn forget(&mut self, service: &str, now: SystemTime) {
        self.touch(service, now);
        for stream in Stream::BOTH {
            let followed = self.streams.remove(&(service.to_owned(), stream));
            if let Some(wd) = followed.and_then(|followed| followed.watch) {
                self.watches.remove(&wd);
                if let Some(inotify) = &self.inotify {
                    // EINVAL: it fired in the meantime, and is gone.
                    let _ = inotify.rm_watch(wd);
                }
            }
        }
    }

    /// Looks at one service now, so that a [`tail`](super::tail()) right after it dates the last lines, too.
    pub fn touch(&mut self, service: &str, now: SystemTime) {
        for stream in Stream::BOTH {
            if let Some(followed) = self.streams.get_mut(&(service.to_owned(), stream)) {
                followed.look(&self.folder, self.trimming, now);
            }
        }
    }

    /// Looks at all busy streams; `now` is the time of this look. Streams over their size are trimmed after
    /// all were looked at.
    pub fn tick(&mut self, now: SystemTime) {
        self.wake();
        for followed in self.streams.values_mut().filter(|followed| followed.busy) {
            followed.look(&self.folder, self.trimming, now);
        }
        let mut calm = Vec::new();
        for (key, followed) in &mut self.streams {
            if followed.busy {
                followed.bound(self.trimming);
                if followed.quiet_ticks >= CALM_TICKS {
                    calm.push(key.clone());
                }
            }
        }
        for key in calm {
            self.calm(&key);
        }
    }

    /// How many streams the next tick will look at. While it is 0, nothing is missed without ticks until
    /// [`Indexer::writes`] becomes readable.
    pub fn busy(&self) -> usize {
        self.streams.values().filter(|followed| followed.busy).count()
    }

    /// Readable as soon as a calm stream is written to; `None` where there is no inotify.
    pub fn writes(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd())
    }

    /// What does not go as it should, in words: for the daemon's list of troubles.
    pub fn troubles(&self) -> Vec<String> {
        let over = self.streams.values().any(|followed| followed.size > followed.limits.max_size);
        let each =
            self.streams.values().flat_map(|f| [&f.trouble.record, &f.trouble.trim]).flatten().cloned();
        self.trimming.trouble().filter(|_| over).into_iter().chain(each).collect()
    }

    /// Takes in which calm streams were written to.
    fn wake(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        // An error is EAGAIN: no more.
        while let Ok(events) = inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    self.streams.values_mut().for_each(|followed| followed.busy = true);
                }
                if let Some(key) = self.watches.remove(&event.wd)
                    && let Some(followed) = self.streams.get_mut(&key)
                {
                    (followed.busy, followed.watch, followed.quiet_ticks) = (true, None, 0);
                }
            }
        }
    }

    /// Lets a stream wait for its next write, unless that cannot be watched or has come already.
    fn calm(&mut self, key: &(String, Stream)) {
        let (Some(inotify), Some(followed)) = (&self.inotify, self.streams.get_mut(key)) else { return };
        if followed.watch.is_none() {
            let mask = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONESHOT | AddWatchFlags::IN_DONT_FOLLOW;
            let Ok(wd) = inotify.add_watch(&followed.files.live, mask) else { return };
            followed.watch = Some(wd);
            self.watches.insert(wd, key.clone());
        }
        let same =
            followed.stat(&self.folder).is_ok_and(|(size, ino)| (size, ino) == (followed.size, followed.ino));
        if same {
            followed.busy = false;
            followed.index = None;
        }
        followed.quiet_ticks = 0;
    }
}

impl Followed {
    fn new(files: Files, limits: Limits) -> Followed {
        Followed {
            files,
            limits,
            ino: 0,
            base: 0,
            size: 0,
            hole: 0,
            index: None,
            watch: None,
            busy: true,
            quiet_ticks: 0,
            wait_ticks: 0,
            trouble: Troubles::default(),
        }
    }

    fn trimmer(&self, trimming: Trimming) -> Trimmer<'_> {
        Trimmer { files: &self.files, limits: self.limits, trimming }
    }

    /// The live file's size and inode; 0 and 0 where there is none.
    fn stat(&self, folder: &File) -> io::Result<(u64, u64)> {
        let name = self.files.live.file_name().unwrap_or_default();
        let found = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(io::Error::from);
        Ok(if_there(found)?.map_or((0, 0), |stat| (stat.st_size.cast_unsigned(), stat.st_ino)))
    }

    /// The first look: repairs what a crash tore, and marks what nobody watched.
    fn begin(&mut self, folder: &File, trimming: Trimming) -> Result<(), LogError> {
        let index = self.files.index();
        let mut found = Index::open(&index).map_err(LogError::io(&index, "open the index of a log"))?;
        if let Some(index) = &mut found
            && let Err(error) = self.trimmer(trimming).recover(index)
        {
            self.trouble.trim = Some(self.say("finish trimming", &error));
        }
        (self.size, self.ino) =
            self.stat(folder).map_err(LogError::io(&self.files.live, "look at the log"))?;
        let marked = match found {
            None if self.size == 0 => Ok(None),
            None => self.trimmer(trimming).fresh_index(self.size).map(Some),
            Some(index) => mark_gap(index, self.size, &self.trimmer(trimming)).map(Some),
        };
        self.trouble.record = marked.as_ref().err().map(|error| self.say("record the times of", error));
        self.index = marked.unwrap_or(None);
        self.base = self.index.as_ref().map_or(0, |index| index.header.base);
        Ok(())
    }

    /// Looks once, and records how long the stream is if it grew.
    fn look(&mut self, folder: &File, trimming: Trimming, now: SystemTime) {
        // What cannot be looked at now has not grown; the next look will tell.
        let Ok((size, ino)) = self.stat(folder) else { return };
        self.quiet_ticks = self.quiet_ticks.saturating_add(1);
        if (size, ino) == (self.size, self.ino) {
            return;
        }
        // Truncated or exchanged by someone: offsets begin anew, and what is there already has no time.
        let anew = size < self.size || (ino != self.ino && self.ino != 0);
        (self.size, self.ino, self.quiet_ticks) = (size, ino, 0);
        let result = if anew { self.restart(trimming) } else { self.record(trimming, now) };
        self.trouble.record = result.err().map(|error| self.say("record the times of", &error));
    }

    fn open_index(&mut self, trimming: Trimming) -> io::Result<Index> {
        if let Some(index) = self.index.take() {
            return Ok(index);
        }
        let found = Index::open(&self.files.index())?;
        found.map_or_else(|| self.trimmer(trimming).fresh_index(0), Ok)
    }

    fn record(&mut self, trimming: Trimming, now: SystemTime) -> io::Result<()> {
        let mut index = self.open_index(trimming)?;
        let record = Record { time: nanoseconds(now), end: index.header.base + self.size };
        self.base = index.header.base;
        if index.last()?.is_none_or(|last| last.end < record.end) {
            index.append(record)?;
            self.trimmer(trimming).bound_index(&mut index)?;
        }
        self.index = Some(index);
        Ok(())
    }

    fn restart(&mut self, trimming: Trimming) -> io::Result<()> {
        (self.base, self.hole) = (0, 0);
        self.index = Some(self.trimmer(trimming).fresh_index(self.size)?);
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.size.saturating_sub(self.hole) > self.limits.max_size
    }

    /// Trims the stream where it is over its size.
    fn bound(&mut self, trimming: Trimming) {
        self.wait_ticks = self.wait_ticks.saturating_sub(1);
        let able = !matches!(trimming, Trimming::Unable { .. });
        if !able || self.wait_ticks > 0 || !self.is_over() {
            return;
        }
        let result = self.trim(trimming);
        if result.is_err() {
            self.wait_ticks = TRIES_AFTER;
        }
        self.trouble.trim = result.err().map(|error| self.say("trim", &error));
    }

    fn trim(&mut self, trimming: Trimming) -> io::Result<()> {
        let mut index = self.open_index(trimming)?;
        let result = self.trimmer(trimming).trim(&mut index);
        // What the cut took from the live file has gone into the base.
        self.size = self.size.saturating_sub(index.header.base.saturating_sub(self.base));
        self.base = index.header.base;
        self.index = Some(index);
        self.hole = result?;
        Ok(())
    }

    fn say(&self, step: &str, error: &io::Error) -> String {
        format!("logs: cannot {step} {}: {error}", self.files.live.display())
    }
}

/// What is longer than its last record was written while nobody watched.
fn mark_gap(mut index: Index, size: u64, trimmer: &Trimmer<'_>) -> io::Result<Index> {
    let end = index.header.base + size;
    match index.last()? {
        Some(last) if last.end > end => return trimmer.fresh_index(size),
        Some(last) if last.end < end => index.append(Record { time: 0, end })?,
        None if end > 0 => index.append(Record { time: 0, end })?,
        _ => {}
    }
    Ok(index)
}

fn nanoseconds(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
