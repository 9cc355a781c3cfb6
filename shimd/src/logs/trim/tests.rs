use super::*;
use crate::logs::{Stream, view::read_all};
use proptest::prelude::*;
use std::cell::Cell;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A folder on each file system that there is to try: the temporary folder's, and tmpfs.
fn folders() -> Vec<tempfile::TempDir> {
    let shm = tempfile::tempdir_in("/dev/shm").map_err(|e| println!("skipped in part: no tmpfs: {e}")).ok();
    [Some(tempfile::tempdir().unwrap()), shm].into_iter().flatten().collect()
}

fn files(folder: &tempfile::TempDir) -> Files {
    Files::new(folder.path(), "s", Stream::Out).unwrap()
}

/// The stream as a reader of the files gets it: a hole is not part of it.
fn stream(files: &Files) -> Vec<u8> {
    let mut all = Vec::new();
    let count = (1..).take_while(|n| files.rotated(*n).exists()).count();
    for n in (1..=u32::try_from(count).unwrap()).rev() {
        all.extend(fs::read(files.rotated(n)).unwrap());
    }
    let live = File::open(&files.live).unwrap();
    let bytes = fs::read(&files.live).unwrap();
    all.extend(&bytes[usize::try_from(hole(&live).unwrap()).unwrap()..]);
    all
}

fn numbered(lines: std::ops::Range<usize>) -> Vec<u8> {
    lines.flat_map(|n| format!("line {n}\n").into_bytes()).collect()
}

fn append(files: &Files, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(&files.live).unwrap().write_all(bytes).unwrap();
}

#[test]
fn plans() {
    let limits = |max_size, keep| Limits { max_size, keep };
    let k = 1024;
    assert_eq!(plan(0, 100 * k, limits(100 * k, 3), 4 * k), None);
    assert_eq!(plan(0, 101 * k, limits(100 * k, 3), 4 * k), Some(Cut::Rotate { upto: 76 * k }));
    assert_eq!(plan(40 * k, 141 * k, limits(100 * k, 3), 4 * k), Some(Cut::Rotate { upto: 116 * k }));
    // Never more than max_size into one file, nor more than all the files would keep.
    assert_eq!(plan(0, 300 * k, limits(100 * k, 3), 4 * k), Some(Cut::Rotate { upto: 100 * k }));
    assert_eq!(plan(0, 500 * k, limits(100 * k, 3), 4 * k), Some(Cut::Discard { upto: 100 * k }));
    assert_eq!(plan(0, 101 * k, limits(100 * k, 0), 4 * k), Some(Cut::Discard { upto: 24 * k }));
    // Less than a block cannot be taken, and never all of it.
    assert_eq!(plan(0, 3 * k, limits(k, 3), 4 * k), None);
    assert_eq!(plan(0, 4 * k, limits(0, 3), 4 * k), None);
    assert_eq!(plan(0, 5 * k, limits(k, 3), 4 * k), Some(Cut::Rotate { upto: 4 * k }));
}

#[test]
fn a_copy_that_does_not_go_with_the_index_covers_nothing() {
    let upto = |upto, copied, hole| copied_upto(Header { upto, ..Header::default() }, copied, hole);
    assert_eq!(upto(8192, 8192, 0), Some(8192));
    assert_eq!(upto(12288, 8192, 4096), Some(12288));
    assert_eq!(upto(8192, 8192, 8192), Some(8192), "already punched");
    assert_eq!(upto(8192, 8192, 4096), Some(8192), "punched in part");
    assert_eq!(upto(0, 8192, 0), None, "the index was lost");
    assert_eq!(upto(20480, 8192, 0), None, "4096 bytes in between were never copied");
    assert_eq!(upto(8192, 0, 0), None);
}

proptest! {
    #[test]
    fn a_plan_is_possible_and_gets_somewhere(
        blocks in 0u64..100, held in 0u64..10_000_000, max_size in 0u64..1_000_000, keep in 0u32..5, wide in any::<bool>(),
    ) {
        let block = if wide { 65536 } else { 4096 };
        let (hole, limits) = (blocks * block, Limits { max_size, keep });
        let size = hole + held;
        match plan(hole, size, limits, block) {
            None => prop_assert!(held <= max_size.saturating_add(block).max(max_size / 4 * 5 + block)),
            Some(cut) => {
                let (Cut::Rotate { upto } | Cut::Discard { upto }) = cut;
                prop_assert!(held > max_size);
                prop_assert!(upto % block == 0 && upto > hole && upto < size);
                match cut {
                    Cut::Rotate { .. } => prop_assert!(upto - hole <= max_size.max(block) && keep > 0),
                    // Only what the rotated files would not have held.
                    Cut::Discard { .. } if keep > 0 => prop_assert!(size - upto >= max_size * u64::from(keep + 1)),
                    Cut::Discard { .. } => prop_assert!(size - upto >= max_size / 4 * 3),
                }
            }
        }
    }
}

#[test]
fn what_is_beyond_keep_goes_and_no_more() {
    for folder in folders() {
        let files = files(&folder);
        let trimming = Trimming::probe(folder.path()).unwrap();
        println!("{}: {trimming:?}", folder.path().display());
        let limits = Limits { max_size: 40_000, keep: 2 };
        let trimmer = Trimmer { files: &files, limits, trimming };
        let mut index = trimmer.fresh_index(0).unwrap();
        let mut all = Vec::new();
        for round in 0..20 {
            let more = numbered(round * 1000..round * 1000 + 1000);
            append(&files, &more);
            all.extend(more);
            trimmer.trim(&mut index).unwrap();
            let kept = stream(&files);
            assert!(all.ends_with(&kept));
            assert_eq!(kept, read_all(&files, index.header));
            let live = kept.len()
                - (1..=2).map(|n| fs::metadata(files.rotated(n)).map_or(0, |m| m.len())).sum::<u64>()
                    as usize;
            assert!(live <= 40_000);
            // Full files of three quarters at the least, and a quarter that is live.
            assert!(
                kept.len() >= all.len().min(70_000 - 3 * 4096) && kept.len() <= 120_000,
                "{}",
                kept.len()
            );
            assert!(!files.rotated(3).exists());
        }
        let on_disk = fs::metadata(&files.live).unwrap();
        assert!(on_disk.blocks() * 512 <= 60_000, "{} blocks", on_disk.blocks());
        if matches!(trimming, Trimming::Collapse { .. }) {
            assert!(on_disk.len() <= 40_000);
        }
    }
}

#[test]
fn far_more_than_is_kept_is_not_copied() {
    for folder in folders() {
        let files = files(&folder);
        for keep in [0, 2] {
            let limits = Limits { max_size: 20_000, keep };
            let trimmer =
                Trimmer { files: &files, limits, trimming: Trimming::probe(folder.path()).unwrap() };
            let all = numbered(0..100_000);
            fs::write(&files.live, &all).unwrap();
            trimmer.trim(&mut trimmer.fresh_index(0).unwrap()).unwrap();
            let kept = stream(&files);
            assert!(all.ends_with(&kept));
            let least = if keep == 0 { 15_000 } else { 40_000 };
            assert!(kept.len() >= least && kept.len() <= 20_000 * (keep as usize + 1), "{}", kept.len());
        }
    }
}

#[test]
fn fewer_files_are_kept_when_keep_falls() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    for n in 1..=5 {
        fs::write(files.rotated(n), format!("{n}\n")).unwrap();
    }
    append(&files, &numbered(0..10_000));
    let trimming = Trimming::probe(folder.path()).unwrap();
    let trimmer = Trimmer { files: &files, limits: Limits { max_size: 90_000, keep: 2 }, trimming };
    trimmer.trim(&mut trimmer.fresh_index(0).unwrap()).unwrap();
    assert_eq!(fs::read_to_string(files.rotated(2)).unwrap(), "1\n");
    assert!(!files.rotated(3).exists() && !files.rotated(5).exists());
}

/// The daemon is killed after each step in turn, with service output going on; the next one finds its way,
/// and so does a reader in between.
#[test]
fn a_crash_at_any_step_loses_nothing_and_repeats_nothing() {
    for folder in folders() {
        let trimming = Trimming::probe(folder.path()).unwrap();
        let mut dies_at = 0;
        let mut seen = Vec::new();
        loop {
            let service = format!("s{dies_at}");
            let files = Files::new(folder.path(), &service, Stream::Out).unwrap();
            let trimmer = Trimmer { files: &files, limits: Limits { max_size: 30_000, keep: 9 }, trimming };
            // Something rotated already, the same line over and over: contents tell nothing.
            let mut all = Vec::new();
            let mut index = trimmer.fresh_index(0).unwrap();
            for _ in 0..3 {
                let more = b"y\n".repeat(17_000);
                append(&files, &more);
                all.extend(more);
                trimmer.trim(&mut index).unwrap();
            }
            append(&files, &numbered(0..9_000));
            all.extend(numbered(0..9_000));

            let (count, last) = (Cell::new(0), Cell::new(None));
            let live = trimmer.open_live().unwrap().unwrap();
            let result = trimmer.trim_at(&live, &mut index, &|step| {
                if count.replace(count.get() + 1) < dies_at {
                    return Ok(());
                }
                last.set(Some(step));
                Err(io::Error::other("killed"))
            });
            drop(index);
            seen.extend(last.take());
            append(&files, b"written while no daemon ran\n");
            all.extend(b"written while no daemon ran\n");

            let mut index = Index::open(&files.index()).unwrap().unwrap();
            assert!(read_all(&files, index.header) == all, "a reader after {:?}", seen.last());
            trimmer.recover(&mut index).unwrap();
            assert!(stream(&files) == all, "after {:?}", seen.last());
            assert!(!files.cut().exists() && !files.new_cut().exists());
            // The count of bytes came through, too: offsets still mean what they did.
            let rotated: u64 =
                (1..=trimmer.last_rotated()).map(|n| fs::metadata(files.rotated(n)).unwrap().len()).sum();
            assert_eq!(index.header.base + hole(&live).unwrap(), rotated, "after {:?}", seen.last());
            trimmer.trim(&mut index).unwrap();
            assert!(stream(&files) == all);
            if result.is_ok() {
                break;
            }
            dies_at += 1;
        }
        let expected = match trimming {
            Trimming::Collapse { .. } => vec![Step::Collapsing, Step::Collapsed],
            _ => vec![],
        };
        for step in [
            Step::Copied,
            Step::Noted,
            Step::Committed,
            Step::Punched,
            Step::Shifting,
            Step::Rotated,
            Step::Done,
        ]
        .into_iter()
        .chain(expected)
        {
            assert!(seen.contains(&step), "never killed after {step:?}");
        }
    }
}

/// Ends the process also where the test panics.
struct Kill(Child);

impl Drop for Kill {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process writes numbered lines as fast as it can while they are cut away beneath it.
#[test]
fn a_writer_at_full_speed_is_not_disturbed() {
    const LINES: usize = 3_000_000;
    for folder in folders() {
        let (out, _err) = crate::logs::open_for_append(folder.path(), "s").unwrap();
        let files = files(&folder);
        let trimming = Trimming::probe(folder.path()).unwrap();
        let trimmer = Trimmer { files: &files, limits: Limits { max_size: 300_000, keep: 1000 }, trimming };
        let mut index = trimmer.fresh_index(0).unwrap();
        let seq = Command::new("seq").arg(LINES.to_string()).stdout(Stdio::from(out)).spawn();
        let mut child = Kill(seq.unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        let (begin, mut cuts) = (Instant::now(), 0);
        loop {
            let ended = child.0.try_wait().unwrap();
            trimmer.trim(&mut index).unwrap();
            cuts += 1;
            if let Some(status) = ended {
                assert!(status.success());
                break;
            }
            assert!(Instant::now() < deadline);
        }
        let kept = stream(&files);
        let files = trimmer.last_rotated();
        println!("{trimming:?}: {} bytes, {files} files, {cuts} looks in {:?}", kept.len(), begin.elapsed());
        assert!(files > 5, "it was trimmed while it was written");
        let mut next = 0;
        for line in kept.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
            next += 1;
            assert_eq!(str::from_utf8(line).unwrap(), next.to_string());
        }
        assert_eq!(next, LINES);
    }
}

#[test]
fn nothing_is_touched_where_nothing_can_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    let trimming = Trimming::Unable { errno: Errno::EOPNOTSUPP };
    let trimmer = Trimmer { files: &files, limits: Limits { max_size: 10, keep: 0 }, trimming };
    append(&files, &numbered(0..10_000));
    trimmer.trim(&mut trimmer.fresh_index(0).unwrap()).unwrap();
    assert_eq!(fs::read(&files.live).unwrap(), numbered(0..10_000));
    assert!(trimming.trouble().unwrap().contains("beyond max_size"));
}

/// The index keeps what dates the lines that are kept, and stays small.
#[test]
fn the_index_is_cut_with_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    let trimming = Trimming::probe(folder.path()).unwrap();
    let trimmer = Trimmer { files: &files, limits: Limits { max_size: 20_000, keep: 1 }, trimming };
    let mut index = trimmer.fresh_index(0).unwrap();
    for time in 1..=20_000u64 {
        append(&files, format!("{time}\n").as_bytes());
        let end = index.header.base + fs::metadata(&files.live).unwrap().len();
        index.append(Record { time, end }).unwrap();
        trimmer.bound_index(&mut index).unwrap();
        if time % 1000 == 0 {
            trimmer.trim(&mut index).unwrap();
        }
        assert!(index.count <= 4096 + 1);
    }
    let kept = stream(&files);
    let first = index.header.base + hole(&File::open(&files.live).unwrap()).unwrap()
        - fs::metadata(files.rotated(1)).unwrap().len();
    let records = index.records_from(0).unwrap();
    let mut end = first;
    for (n, line) in kept.split_inclusive(|byte| *byte == b'\n').enumerate() {
        end += line.len() as u64;
        if n == 0 {
            continue; // it may have been cut through
        }
        let time: u64 = str::from_utf8(line).unwrap().trim().parse().unwrap();
        let dated = super::super::index::date(&records, end.cast_signed()).unwrap();
        assert!((time..time + 64).contains(&dated), "{time} was dated {dated}");
    }
}
