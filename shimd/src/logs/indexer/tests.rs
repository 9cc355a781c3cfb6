use super::*;
use crate::logs::{open_for_append, tail};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

const LIMITS: Limits = Limits { max_size: 1_000_000, keep: 2 };

fn at(tenths: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_000_000 + 100 * tenths)
}

/// The lines of service `s` with their times in tenths of a second.
fn lines(folder: &Path) -> Vec<(Option<u64>, String)> {
    let rows = tail(folder, "s", 1000, None).unwrap();
    rows.into_iter()
        .map(|row| {
            let time = row.time.map(|time| humantime::parse_rfc3339(&time).unwrap());
            let tenths = time.map(|time| time.duration_since(at(0)).unwrap().as_millis() as u64 / 100);
            (tenths, format!("{} {}", row.stream, row.line))
        })
        .collect()
}

fn dated(list: &[(Option<u64>, &str)]) -> Vec<(Option<u64>, String)> {
    list.iter().map(|(time, line)| (*time, (*line).to_owned())).collect()
}

#[test]
fn lines_are_dated_by_the_tick_after_them() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, mut err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", LIMITS).unwrap();
    assert_eq!(indexer.busy(), 0);
    writeln!(out, "a").unwrap();
    writeln!(err, "b").unwrap();
    indexer.tick(at(1));
    assert_eq!(indexer.busy(), 2);
    write!(out, "c\nd\nhalf").unwrap();
    indexer.tick(at(2));
    writeln!(err, "e").unwrap();
    writeln!(out, " line").unwrap();
    indexer.tick(at(3));
    write!(out, "f").unwrap();
    indexer.touch("s", at(4));
    let expected = dated(&[
        (Some(1), "out a"),
        (Some(1), "err b"),
        (Some(2), "out c"),
        (Some(2), "out d"),
        (Some(3), "out half line"),
        (Some(3), "err e"),
        (Some(4), "out f"),
    ]);
    assert_eq!(lines(tmp.path()), expected);
    assert_eq!(indexer.troubles(), [""; 0]);
}

#[test]
fn what_nobody_watched_has_no_time() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    writeln!(out, "before any daemon").unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    indexer.follow("s", LIMITS).unwrap();
    writeln!(out, "first").unwrap();
    indexer.tick(at(1));
    writeln!(out, "last").unwrap();
    indexer.forget("s", at(2));
    indexer.tick(at(3));
    drop(indexer);
    writeln!(out, "between").unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    indexer.follow("s", LIMITS).unwrap();
    writeln!(out, "after").unwrap();
    indexer.tick(at(9));
    let expected = dated(&[
        (None, "out before any daemon"),
        (Some(1), "out first"),
        (Some(2), "out last"),
        (None, "out between"),
        (Some(9), "out after"),
    ]);
    assert_eq!(lines(tmp.path()), expected);
}

#[test]
fn a_calm_stream_costs_nothing_until_it_is_written_to() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", LIMITS).unwrap();
    for round in 0..3 {
        writeln!(out, "{round}").unwrap();
        let tick = 100 * (round + 1);
        indexer.tick(at(tick));
        assert_eq!(indexer.busy(), 1);
        for more in 1..=u64::from(CALM_TICKS) {
            indexer.tick(at(tick + more));
        }
        assert_eq!((indexer.busy(), indexer.watches.len()), (0, 2));
    }
    let expected = dated(&[(Some(100), "out 0"), (Some(200), "out 1"), (Some(300), "out 2")]);
    assert_eq!(lines(tmp.path()), expected);
    indexer.forget("s", at(400));
    assert!(indexer.watches.is_empty() && indexer.streams.is_empty());
}

#[test]
fn without_inotify_all_are_looked_at() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    indexer.inotify = None;
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", LIMITS).unwrap();
    for tick in 0..100 {
        indexer.tick(at(tick));
    }
    writeln!(out, "x").unwrap();
    indexer.tick(at(200));
    assert_eq!(lines(tmp.path()), dated(&[(Some(200), "out x")]));
    assert!(indexer.writes().is_none());
}

#[test]
fn a_stream_over_its_size_is_cut_and_its_lines_keep_their_times() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", Limits { max_size: 50_000, keep: 3 }).unwrap();
    for tick in 1..=300 {
        for n in 0..100 {
            writeln!(out, "{tick} {n}").unwrap();
        }
        indexer.tick(at(tick));
        let size = tmp.path().join("s.out").metadata().unwrap().len();
        assert!(size <= 50_000 || !matches!(indexer.trimming(), Trimming::Collapse { .. }));
    }
    assert!(tmp.path().join("s.out.2").exists());
    assert_eq!(indexer.troubles(), [""; 0]);
    let rows = tail(tmp.path(), "s", 15_000, None).unwrap();
    assert_eq!(rows.len(), 15_000);
    for (n, row) in rows.iter().enumerate() {
        let tick = 151 + n as u64 / 100;
        assert_eq!(row.line, format!("{tick} {}", n % 100));
        assert_eq!(row.time, Some(humantime::format_rfc3339_millis(at(tick)).to_string()));
    }
}

/// Someone empties or exchanges the file: counting begins anew, older times are given up, nothing is wrong.
#[test]
fn a_truncated_log_is_dated_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", LIMITS).unwrap();
    writeln!(out, "a long first line").unwrap();
    indexer.tick(at(1));
    fs::File::create(tmp.path().join("s.out")).unwrap();
    indexer.tick(at(2));
    writeln!(out, "b").unwrap();
    indexer.tick(at(3));
    assert_eq!(lines(tmp.path()), dated(&[(Some(3), "out b")]));
    fs::remove_file(tmp.path().join("s.out")).unwrap();
    indexer.tick(at(4));
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    writeln!(out, "c").unwrap();
    indexer.tick(at(5));
    assert_eq!(lines(tmp.path()), dated(&[(Some(5), "out c")]));
}

#[test]
fn limits_that_change_take_effect_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    for n in 0..20_000 {
        writeln!(out, "{n}").unwrap();
    }
    let small = Limits { max_size: 20_000, keep: 20 };
    let size = || tmp.path().join("s.out").metadata().unwrap().len();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    if !matches!(indexer.trimming(), Trimming::Collapse { .. }) {
        println!("skipped: nothing can be collapsed here");
        return;
    }
    indexer.follow("s", LIMITS).unwrap();
    indexer.tick(at(1));
    assert!(size() > 100_000);
    indexer.follow("s", small).unwrap();
    indexer.tick(at(2));
    assert!(size() <= 20_000);
    assert_eq!(tail(tmp.path(), "s", 50_000, None).unwrap().len(), 20_000);
}

#[test]
fn a_cut_that_fails_is_said_and_tried_again() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", Limits { max_size: 10_000, keep: 1 }).unwrap();
    let in_the_way = tmp.path().join("s.out.new");
    fs::create_dir(&in_the_way).unwrap();
    out.write_all(&b"x\n".repeat(10_000)).unwrap();
    indexer.tick(at(1));
    let troubles = indexer.troubles();
    assert!(troubles.len() == 1 && troubles[0].starts_with("logs: cannot trim "), "{troubles:?}");
    fs::remove_dir(&in_the_way).unwrap();
    for tick in 2..=2 + u64::from(TRIES_AFTER) {
        writeln!(out, "y").unwrap();
        indexer.tick(at(tick));
    }
    assert_eq!(indexer.troubles(), [""; 0]);
    assert!(tmp.path().join("s.out.1").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// Whatever lies in the files, lines come out and nothing panics.
    #[test]
    fn a_broken_index_does_no_harm(
        header in prop::collection::vec(prop_oneof![0u64..20_000, any::<u64>()], 3),
        records in prop::collection::vec(prop_oneof![0u64..20_000, any::<u64>()], 0..12),
        torn in 0usize..16,
        cut in any::<bool>(),
    ) {
        let tmp = tempfile::tempdir().unwrap();
        let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
        out.write_all(&b"line\n".repeat(4000)).unwrap();
        let words: Vec<u8> = header.iter().chain(&records).flat_map(|word| word.to_le_bytes()).collect();
        let index = [b"shimdix1".to_vec(), words].concat();
        fs::write(tmp.path().join("s.out.idx"), &index[..index.len().saturating_sub(torn)]).unwrap();
        if cut {
            fs::write(tmp.path().join("s.out.cut"), "line\n").unwrap();
        }
        let _ = tail(tmp.path(), "s", 10_000, None);
        let mut indexer = Indexer::new(tmp.path()).unwrap();
        indexer.follow("s", Limits { max_size: 10_000, keep: 2 }).unwrap();
        indexer.tick(at(1));
        writeln!(out, "last").unwrap();
        indexer.tick(at(2));
        let rows = tail(tmp.path(), "s", 10_000, None).unwrap();
        prop_assert_eq!(&rows.last().unwrap().line, "last");
    }
}

/// Prints what a tick costs with 2,000 streams; no bound is asserted on a shared machine.
#[test]
fn two_thousand_streams() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let mut open = Vec::new();
    for n in 0..1000 {
        open.push(open_for_append(tmp.path(), &format!("s{n}")).unwrap());
    }
    let begin = Instant::now();
    for n in 0..1000 {
        indexer.follow(&format!("s{n}"), LIMITS).unwrap();
    }
    println!("2,000 streams followed in {:?}", begin.elapsed());
    let mut measure = |what: &str, write: usize, tick: u64| {
        for (out, err) in &mut open[..write] {
            writeln!(out, "{what}").and_then(|()| writeln!(err, "{what}")).unwrap();
        }
        let begin = Instant::now();
        indexer.tick(at(tick));
        println!("{what}: {:?} (busy now: {})", begin.elapsed(), indexer.busy());
        indexer.busy()
    };
    assert_eq!(measure("all calm", 0, 1), 0);
    assert_eq!(measure("all wake and write", 1000, 2), 2000);
    assert_eq!(measure("all write", 1000, 3), 2000);
    assert_eq!(measure("all busy, none writes", 0, 4), 2000);
    for tick in 5..30 {
        indexer.tick(at(tick));
    }
    assert_eq!(indexer.busy(), 0);
}
