//! When a stream was how long: the side file that dates lines.
//!
//! Offsets count from the stream's first byte ever, so they stay true when the front is cut away: offset 0
//! of the live file is the stream's `base` (its *origin*, see [`Header::origin`]).
//!
//! ```text
//! header, 32 B   "shimdix1"; u64 base; u64 upto; u64 collapsing       all numbers little-endian
//! record, 16 B   u64 time; u64 end                                     end never falls
//! ```
//! `time` is in nanoseconds since 1970, and `end` how long the stream was then. A `time` of 0 says that
//! nobody watched: what lies before that `end`, and after the record before it, has no time.
//! `upto` and `collapsing` belong to a cut under way (see `trim`). The file is written by the daemon alone.
//! Whoever reads a stream's files takes a shared `flock` on its index, whoever cuts an exclusive one; a new
//! index is renamed into place only at the end of a cut, so a reader that waited takes the new one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::if_there;

const MAGIC: [u8; 8] = *b"shimdix1";
const HEADER: u64 = 32;
const RECORD: u64 = 16;
/// No stream is as long; a file that says so is no index.
const OFFSET_MAX: u64 = 1 << 60;

/// What the records are relative to, and a cut under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// How many bytes were collapsed from the live file's front, ever.
    pub base: u64,
    /// While a `.cut` exists: it holds the live file's bytes before this offset.
    pub upto: u64,
    /// Not 0: a collapse of so many bytes was begun, and `base` does not count it yet.
    pub collapsing: u64,
}

impl Header {
    /// The stream offset of the live file's offset 0, which begins with a hole of `hole` bytes: a begun
    /// collapse is done if and only if the hole is gone.
    pub fn origin(&self, hole: u64) -> u64 {
        self.base + if hole == 0 { self.collapsing } else { 0 }
    }
}

/// How long the stream was at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// Nanoseconds since 1970, or 0.
    pub time: u64,
    /// Stream offset.
    pub end: u64,
}

/// What `dates` has to match. When a line was written that ends at stream offset `end`: by the first record at or after it. What ends
/// before the stream's count began has a negative offset.
#[cfg(test)]
pub(super) fn date(records: &[Record], end: i64) -> Option<u64> {
    let at = records.partition_point(|record| i64::try_from(record.end).is_ok_and(|e| e < end));
    records.get(at).map(|record| record.time).filter(|time| *time != 0)
}

/// Makes room: of the older half, every second record goes, and its lines take the time of the next one.
/// A record next to a gap stays, since a line may not get into the gap nor out of it.
pub(super) fn thin(records: &[Record]) -> Vec<Record> {
    let half = records.len() / 2;
    let gap = |at: usize| records.get(at).is_none_or(|record| record.time == 0);
    let stays = |at: &usize| *at >= half || at % 2 == 1 || gap(*at) || gap(at + 1);
    (0..records.len()).filter(stays).filter_map(|at| records.get(at).copied()).collect()
}

/// An open index.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    file: File,
    pub header: Header,
    /// How many records it holds.
    pub count: u64,
}

impl Index {
    /// Opens the index at `path` to read and write; `None` where there is none or the file is none.
    pub fn open(path: &Path) -> io::Result<Option<Index>> {
        Index::open_with(path, OpenOptions::new().read(true).write(true))
    }

    /// Opens it to read only: that works on a file system that is read-only, too.
    pub fn open_to_read(path: &Path) -> io::Result<Option<Index>> {
        Index::open_with(path, OpenOptions::new().read(true))
    }

    fn open_with(path: &Path, options: &OpenOptions) -> io::Result<Option<Index>> {
        let Some(file) = if_there(options.open(path))? else { return Ok(None) };
        let mut bytes = [0; HEADER as usize];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let [magic, base, upto, collapsing] = words(&bytes);
        if magic != u64::from_le_bytes(MAGIC) || base.max(upto).max(collapsing) > OFFSET_MAX {
            return Ok(None);
        }
        let count = file.metadata()?.len().saturating_sub(HEADER) / RECORD;
        Ok(Some(Index { path: path.into(), file, header: Header { base, upto, collapsing }, count }))
    }

    /// Makes a new index; over an old one only once it is whole.
    pub fn create(path: &Path, header: Header, records: &[Record]) -> io::Result<Index> {
        let mut bytes = encode_header(header).to_vec();
        bytes.extend(records.iter().flat_map(|record| encode_record(*record)));
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let file = match options.clone().create_new(true).open(path) {
            Ok(file) => {
                file.write_all_at(&bytes, 0)?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let new = path.with_added_extension("new");
                let file = options.create(true).truncate(true).open(&new)?;
                file.write_all_at(&bytes, 0)?;
                fs::rename(&new, path)?;
                file
            }
            Err(error) => return Err(error),
        };
        Ok(Index { path: path.into(), file, header, count: records.len() as u64 })
    }

    /// Appends a record; a torn one is written over by the next.
    pub fn append(&mut self, record: Record) -> io::Result<()> {
        self.file.write_all_at(&encode_record(record), HEADER + self.count * RECORD)?;
        self.count += 1;
        Ok(())
    }

    /// Writes the header as it is now: in one page, which a killed process does not tear.
    pub fn write_header(&self) -> io::Result<()> {
        self.file.write_all_at(&encode_header(self.header), 0)
    }

    /// The last record.
    pub fn last(&self) -> io::Result<Option<Record>> {
        self.count.checked_sub(1).map(|at| self.record(at)).transpose()
    }

    fn record(&self, at: u64) -> io::Result<Record> {
        let mut bytes = [0; RECORD as usize];
        self.file.read_exact_at(&mut bytes, HEADER + at * RECORD)?;
        let [time, end] = words(&bytes);
        Ok(Record { time, end })
    }

    /// The number of the first record that ends at or after `end`; their count where none does.
    pub fn first_at(&self, end: i64) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if i64::try_from(self.record(middle)?.end).is_ok_and(|e| e < end) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// So many records from this one on, or as many as there are.
    pub fn records(&self, from: u64, count: u64) -> io::Result<Vec<Record>> {
        let count = count.min(self.count.saturating_sub(from));
        let mut bytes = vec![0; usize::try_from(count * RECORD).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, HEADER + from * RECORD)?;
        let record = |[time, end]: [u64; 2]| Record { time, end };
        Ok(bytes.chunks_exact(RECORD as usize).map(|chunk| record(words(chunk))).collect())
    }

    /// The records that end at or after `end`: all that date a line from there on.
    pub fn records_from(&self, end: i64) -> io::Result<Vec<Record>> {
        self.records(self.first_at(end)?, u64::MAX)
    }

    /// Holds the index at `path` against a cut, or for one, until the guard is dropped.
    pub fn lock(path: &Path, how: FlockArg) -> io::Result<Option<Flock<File>>> {
        loop {
            let Some(file) = if_there(File::open(path))? else { return Ok(None) };
            let locked = match Flock::lock(file, how) {
                Ok(locked) => locked,
                Err((_, nix::errno::Errno::EINTR)) => continue,
                Err((_, errno)) => return Err(errno.into()),
            };
            // Renamed over while we waited?
            let (ours, there) = (locked.metadata()?, if_there(path.symlink_metadata())?);
            if there.is_some_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Some(locked));
            }
        }
    }

    /// Puts an index with these records in this one's place.
    pub fn replace(&mut self, records: &[Record]) -> io::Result<()> {
        *self = Index::create(&self.path, self.header, records)?;
        Ok(())
    }
}

fn encode_header(header: Header) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    let words = [u64::from_le_bytes(MAGIC), header.base, header.upto, header.collapsing];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn encode_record(record: Record) -> [u8; RECORD as usize] {
    let both = u128::from(record.time) | u128::from(record.end) << 64;
    both.to_le_bytes()
}

/// The numbers in `bytes`, of which there are at least `N`; 0 for those that are not there.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(list: &[(u64, u64)]) -> Vec<Record> {
        list.iter().map(|(time, end)| Record { time: *time, end: *end }).collect()
    }

    #[test]
    fn a_line_takes_the_first_record_at_or_after_its_end() {
        let list = records(&[(0, 100), (5, 200), (6, 300), (0, 400), (9, 500)]);
        for (end, time) in [
            (-7, None),
            (100, None),
            (101, Some(5)),
            (200, Some(5)),
            (201, Some(6)),
            (301, None),
            (400, None),
            (401, Some(9)),
            (501, None),
        ] {
            assert_eq!(date(&list, end), time, "a line that ends at {end}");
        }
        assert_eq!(date(&[], 1), None);
    }

    #[test]
    fn an_index_is_read_back_and_a_broken_one_is_none() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x.idx");
        assert!(Index::open(&path).unwrap().is_none());
        let header = Header { base: 4096, upto: 7, collapsing: 9 };
        let mut index = Index::create(&path, header, &records(&[(1, 10), (2, 20)])).unwrap();
        index.append(Record { time: 3, end: 30 }).unwrap();
        index.header.base = 8192;
        index.write_header().unwrap();
        // A torn record at the end is not read, and written over.
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut f| io::Write::write_all(&mut f, b"torn"))
            .unwrap();
        let mut index = Index::open(&path).unwrap().unwrap();
        assert_eq!(index.header, Header { base: 8192, ..header });
        index.append(Record { time: 4, end: 40 }).unwrap();
        assert_eq!(index.last().unwrap(), Some(Record { time: 4, end: 40 }));
        assert_eq!(index.records_from(11).unwrap(), records(&[(2, 20), (3, 30), (4, 40)]));
        assert_eq!(index.records_from(-5).unwrap().len(), 4);
        assert_eq!(index.records_from(41).unwrap(), []);
        for broken in [&b"short"[..], &[7; 64]] {
            fs::write(&path, broken).unwrap();
            assert!(Index::open(&path).unwrap().is_none());
        }
    }

    #[test]
    fn a_reader_that_waited_holds_the_index_that_lies_there_now() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("x.idx");
        assert!(Index::lock(&path, FlockArg::LockShared).unwrap().is_none());
        let mut index = Index::create(&path, Header::default(), &[]).unwrap();
        let writer = Index::lock(&path, FlockArg::LockExclusive).unwrap().unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| Index::lock(&path, FlockArg::LockShared).unwrap().unwrap());
            index.replace(&records(&[(1, 1)])).unwrap();
            drop(writer);
            let held = reader.join().unwrap();
            assert_eq!(held.metadata().unwrap().ino(), path.metadata().unwrap().ino());
        });
    }

    proptest! {
        /// Thinning makes times coarser, never wrong: a line keeps its time or takes a later record's that no
        /// gap lies before; a line without a time gets none, and one with a time keeps one.
        #[test]
        fn thinning_keeps_gaps(steps in prop::collection::vec((any::<bool>(), 1u64..50), 0..200)) {
            let mut end = 0;
            let list: Vec<_> = steps.iter().enumerate().map(|(at, (timed, step))| {
                end += step;
                Record { time: if *timed { at as u64 + 1 } else { 0 }, end }
            }).collect();
            let thinned = thin(&list);
            prop_assert!(thinned.is_sorted_by_key(|record| record.end));
            prop_assert_eq!(thinned.last(), list.last());
            for line in 0..=end.cast_signed() + 1 {
                let (before, after) = (date(&list, line), date(&thinned, line));
                prop_assert_eq!(before.is_some(), after.is_some());
                if let (Some(before), Some(after)) = (before, after) {
                    prop_assert!(before <= after && after <= before + 1);
                }
            }
            if steps.iter().all(|(timed, _)| *timed) && list.len() >= 8 {
                prop_assert!(thinned.len() <= list.len() * 4 / 5);
            }
        }
    }
}
