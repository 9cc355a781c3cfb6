//! When lines were written, looked up in a stream's index, of which only a window is held.

use std::io;

use super::index::{Index, Record};

/// Records that a window holds at most; a long-lived index has millions.
const WINDOW: u64 = 1024;
/// How many records back a line without a time looks for one to be sorted by.
const BACK: u64 = 64;

/// When a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Date {
    /// By then: nanoseconds since 1970.
    By(u64),
    /// Nobody watched.
    Unknown,
    /// After the last record.
    Later,
}

/// The dates of one stream.
#[derive(Debug, Default)]
pub(super) struct Dates {
    index: Option<Index>,
    /// The number of the window's first record.
    from: u64,
    window: Vec<Record>,
}

impl Dates {
    /// Those of an index; without one all is [`Date::Later`].
    pub fn new(index: Option<Index>) -> Dates {
        Dates { index, ..Dates::default() }
    }

    /// When a line was written that ends at this offset: by the first record at or after it.
    pub fn date(&mut self, end: i64) -> io::Result<Date> {
        let at = self.first_at(end)?;
        Ok(match self.record(at)? {
            Some(Record { time: 0, .. }) => Date::Unknown,
            Some(record) => Date::By(record.time),
            None => Date::Later,
        })
    }

    /// What sorts a line that ends at this offset among those of another stream: its time, or else the last one before.
    pub fn key(&mut self, end: i64) -> io::Result<u64> {
        let at = self.first_at(end)?;
        for at in (at.saturating_sub(BACK)..=at).rev() {
            if let Some(record) = self.record(at)?
                && record.time != 0
            {
                return Ok(record.time);
            }
        }
        Ok(0)
    }

    /// The offset after which all lines end that were written at `time` or later, or nobody knows when.
    pub fn since(&mut self, time: u64) -> io::Result<Option<i64>> {
        let count = self.index.as_ref().map_or(0, |index| index.count);
        // From the end: a clock may have been set back, and what was written after that is the later.
        for at in (0..count).rev() {
            if let Some(record) = self.record(at)?
                && record.time != 0
                && record.time < time
            {
                return Ok(Some(offset(&record)));
            }
        }
        Ok(None)
    }

    /// The number of the first record that ends at or after `end`.
    fn first_at(&mut self, end: i64) -> io::Result<u64> {
        let before = |record: &Record| offset(record) < end;
        let last = self.from + self.window.len() as u64;
        let begins = self.from == 0 || self.window.first().is_some_and(before);
        let ends = self.window.last().is_some_and(|record| !before(record));
        if begins && ends {
            return Ok(self.from + self.window.partition_point(before) as u64);
        }
        let Some(index) = &self.index else { return Ok(0) };
        if begins && last == index.count && last > 0 {
            return Ok(last);
        }
        let at = index.first_at(end)?;
        self.load(at)?;
        Ok(at)
    }

    fn record(&mut self, at: u64) -> io::Result<Option<Record>> {
        if self.index.as_ref().is_none_or(|index| at >= index.count) {
            return Ok(None);
        }
        let held = |dates: &Dates| {
            let at = usize::try_from(at.checked_sub(dates.from)?).ok()?;
            dates.window.get(at).copied()
        };
        if let Some(record) = held(self) {
            return Ok(Some(record));
        }
        self.load(at)?;
        Ok(held(self))
    }

    /// Takes the records around this one into the window.
    fn load(&mut self, at: u64) -> io::Result<()> {
        if let Some(index) = &self.index {
            self.from = at.saturating_sub(WINDOW / 2);
            self.window = index.records(self.from, WINDOW)?;
        }
        Ok(())
    }
}

/// A file that is no index may say anything.
fn offset(record: &Record) -> i64 {
    i64::try_from(record.end).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::index::{Header, date};
    use proptest::prelude::*;

    fn dates(records: &[Record]) -> (tempfile::TempDir, Dates) {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::create(&folder.path().join("x.idx"), Header::default(), records).unwrap();
        (folder, Dates::new(Some(index)))
    }

    #[test]
    fn a_line_without_a_time_is_sorted_by_the_last_before_it() {
        let records = [(0, 10), (5, 20), (0, 30), (0, 40), (9, 50)].map(|(time, end)| Record { time, end });
        let (_folder, mut dates) = dates(&records);
        let of = |dates: &mut Dates, end| (dates.date(end).unwrap(), dates.key(end).unwrap());
        assert_eq!(of(&mut dates, 10), (Date::Unknown, 0));
        assert_eq!(of(&mut dates, 11), (Date::By(5), 5));
        assert_eq!(of(&mut dates, 35), (Date::Unknown, 5));
        assert_eq!(of(&mut dates, 50), (Date::By(9), 9));
        assert_eq!(of(&mut dates, 51), (Date::Later, 9));
        assert_eq!([4, 5, 6, 10].map(|time| dates.since(time).unwrap()), [None, None, Some(20), Some(50)]);
        assert_eq!(Dates::new(None).date(5).unwrap(), Date::Later);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The window gives what all records at once would, wherever it is asked next.
        #[test]
        fn a_window_is_as_good_as_all(
            steps in prop::collection::vec((any::<bool>(), 0u64..5), 0..4000),
            asked in prop::collection::vec(-2i64..10_000, 1..60),
        ) {
            let mut end = 0;
            let records: Vec<_> = steps.iter().zip(1..).map(|((timed, step), time)| {
                end += step;
                Record { time: if *timed { time } else { 0 }, end }
            }).collect();
            let (_folder, mut dates) = dates(&records);
            for end in asked {
                let expected = match date(&records, end) {
                    Some(time) => Date::By(time),
                    None if records.last().is_none_or(|last| last.end.cast_signed() < end) => Date::Later,
                    None => Date::Unknown,
                };
                prop_assert_eq!(dates.date(end).unwrap(), expected, "at {}", end);
            }
        }
    }
}
