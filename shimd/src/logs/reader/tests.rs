use super::*;
use crate::logs::{Indexer, Limits, open_for_append};
use proptest::prelude::*;
use std::fs;
use std::io::Write;

const FOLLOW: Wanted = Wanted { lines: None, since: None, follow: true, raw: false, most: None };

fn at(tick: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_000_000 + 100 * tick)
}

fn open(folder: &Path, wanted: Wanted) -> Reader {
    Reader::open(folder, "s", wanted).unwrap().0
}

/// All that there is now: of rows their stream and line.
fn rows(reader: &mut Reader) -> Vec<String> {
    let mut rows = Vec::new();
    loop {
        let batch = reader.batch().unwrap();
        match batch.lines {
            Some(LogLines::Rows(more)) => {
                rows.extend(more.into_iter().map(|row| format!("{} {}", row.stream, row.line)));
            }
            None => {}
            other => panic!("no rows: {other:?}"),
        }
        if !batch.more {
            return rows;
        }
    }
}

fn bytes(reader: &mut Reader) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let batch = reader.batch().unwrap();
        match batch.lines {
            Some(LogLines::Text(more)) => bytes.extend(more.into_bytes()),
            Some(LogLines::Bytes(more)) => bytes.extend(more),
            None => {}
            other => panic!("no bytes: {other:?}"),
        }
        if !batch.more {
            return bytes;
        }
    }
}

#[test]
fn what_is_written_later_comes_only_to_followers() {
    let tmp = tempfile::tempdir().unwrap();
    let mut early = open(tmp.path(), FOLLOW);
    assert_eq!(rows(&mut early), [""; 0]);
    let (mut out, mut err) = open_for_append(tmp.path(), "s").unwrap();
    writeln!(out, "one").unwrap();
    let (mut past, mut all) = (open(tmp.path(), Wanted::default()), open(tmp.path(), FOLLOW));
    let mut new = open(tmp.path(), Wanted { lines: Some(0), ..FOLLOW });
    writeln!(err, "two").unwrap();
    assert_eq!(rows(&mut past), ["out one"]);
    assert_eq!(rows(&mut new), ["err two"]);
    assert_eq!(
        (rows(&mut all), rows(&mut early)),
        (vec!["out one".into(), "err two".into()], rows(&mut open(tmp.path(), FOLLOW)))
    );
    assert_eq!(rows(&mut all), [""; 0]);
}

#[test]
fn a_line_is_waited_for_until_its_writer_rests() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    let mut reader = open(tmp.path(), FOLLOW);
    write!(out, "pass").unwrap();
    assert_eq!(rows(&mut reader), [""; 0]);
    writeln!(out, "word: ").unwrap();
    assert_eq!(rows(&mut reader), ["out password: "]);
    write!(out, "login: ").unwrap();
    let began = std::time::Instant::now();
    let mut found = rows(&mut reader);
    while found.is_empty() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
        found = rows(&mut reader);
    }
    assert_eq!(found, ["out login: "]);
    assert!(began.elapsed() > Duration::from_millis(900));
    writeln!(out, "root").unwrap();
    assert_eq!(rows(&mut reader), ["out root"]);
}

#[test]
fn a_line_without_an_end_is_cut_but_bytes_are_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut out, mut err) = open_for_append(tmp.path(), "s").unwrap();
    let mut text = open(tmp.path(), FOLLOW);
    let mut raw = open(tmp.path(), Wanted { raw: true, ..FOLLOW });
    let mut got = Vec::new();
    for _ in 0..100 {
        out.write_all(&[b'x'; 1 << 20]).unwrap();
        assert_eq!(rows(&mut text), [""; 0]);
        assert!(text.out.held() < 2 * LINE_MAX, "{} bytes are held", text.out.held());
        got.extend(bytes(&mut raw));
    }
    out.write_all(b"\xff\n").unwrap();
    err.write_all(b"e\n").unwrap();
    got.extend(bytes(&mut raw));
    let expected = [vec![b'x'; 100 << 20], b"\xff\ne\n".to_vec()].concat();
    assert!(got == expected, "{} bytes", got.len());
    let cut = format!("out {} [cut here: the line has {} bytes]", "x".repeat(LINE_MAX), (100 << 20) + 2);
    assert!(rows(&mut text) == [cut, "err e".into()]);
}

#[test]
fn since_some_time_and_the_last_of_it() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, mut err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", Limits { max_size: 1 << 20, keep: 1 }).unwrap();
    let now = SystemTime::now();
    let ago = |seconds: u64| now - Duration::from_secs(seconds);
    for (seconds, line) in [(3600, "old"), (600, "late"), (60, "new"), (1, "last")] {
        writeln!(out, "{line}").unwrap();
        writeln!(err, "{line}").unwrap();
        indexer.tick(ago(seconds));
    }
    let since = |seconds, lines| {
        let since = Some(Duration::from_secs(seconds));
        rows(&mut open(tmp.path(), Wanted { since, lines, ..Wanted::default() }))
    };
    assert_eq!(since(1800, None), ["out late", "err late", "out new", "err new", "out last", "err last"]);
    assert_eq!(since(120, None), ["out new", "err new", "out last", "err last"]);
    assert_eq!(since(120, Some(3)), ["err new", "out last", "err last"]);
    assert_eq!(since(7200, Some(100)).len(), 8);
    assert_eq!(since(0, None), [""; 0]);
    assert_eq!(since(u64::MAX / 2, None).len(), 8);
}

#[test]
fn what_is_cut_off_unread_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", Limits { max_size: 20_000, keep: 0 }).unwrap();
    writeln!(out, "first").unwrap();
    indexer.tick(at(1));
    let mut reader = open(tmp.path(), FOLLOW);
    assert_eq!(rows(&mut reader), ["out first"]);
    for tick in 2..100 {
        out.write_all(&b"a line of twenty byt\n".repeat(100)).unwrap();
        indexer.tick(at(tick));
    }
    let rows = rows(&mut reader);
    assert!(
        rows[0].starts_with("out [") && rows[0].ends_with("were cut off before they were read]"),
        "{}",
        rows[0]
    );
    assert_eq!(rows.last().unwrap(), "out a line of twenty byt");
}

#[test]
fn a_file_that_is_emptied_or_exchanged_is_read_from_its_beginning() {
    let tmp = tempfile::tempdir().unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    let mut reader = open(tmp.path(), FOLLOW);
    writeln!(out, "a long line before").unwrap();
    assert_eq!(rows(&mut reader), ["out a long line before"]);
    out.set_len(0).unwrap();
    writeln!(out, "short").unwrap();
    assert_eq!(rows(&mut reader), ["out short"]);
    fs::write(tmp.path().join("new"), "another file, which is longer\n").unwrap();
    fs::rename(tmp.path().join("new"), tmp.path().join("s.out")).unwrap();
    assert_eq!(rows(&mut reader), ["out another file, which is longer"]);
}

#[test]
fn a_file_that_is_emptied_after_it_was_cut_is_not_told_twice() {
    let tmp = tempfile::tempdir().unwrap();
    let mut indexer = Indexer::new(tmp.path()).unwrap();
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    indexer.follow("s", Limits { max_size: 20_000, keep: 1 }).unwrap();
    out.write_all(&b"a line of twenty byt\n".repeat(1500)).unwrap();
    indexer.tick(at(1));
    let mut reader = open(tmp.path(), FOLLOW);
    assert_eq!(rows(&mut reader).len(), 1500);
    out.set_len(0).unwrap();
    writeln!(out, "one").unwrap();
    assert_eq!(rows(&mut reader), ["out one"]);
    indexer.tick(at(2));
    assert_eq!(rows(&mut reader), [""; 0]);
    writeln!(out, "two").unwrap();
    assert_eq!(rows(&mut reader), ["out two"]);
}

/// What happens to a log between two looks.
#[derive(Debug, Clone)]
enum Step {
    Write { out: bool, text: String },
    Tick,
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), "[a-c\n]{0,40}|[d\n]{3000}").prop_map(|(out, text)| Step::Write { out, text }),
        2 => Just(Step::Tick),
        1 => Just(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// However looks and cuts fall between writes: a follower gets each byte once and in order, and so does who comes
    /// later and asks for the past, as far as it is kept.
    #[test]
    fn each_byte_once(steps in prop::collection::vec(step(), 1..120), last in 1usize..40) {
        let tmp = tempfile::tempdir().unwrap();
        let mut indexer = Indexer::new(tmp.path()).unwrap();
        let (mut out, mut err) = open_for_append(tmp.path(), "s").unwrap();
        // More is kept than is written, and cut all the time.
        indexer.follow("s", Limits { max_size: 9000, keep: 1000 }).unwrap();
        let mut reader = open(tmp.path(), FOLLOW);
        let (mut wrote, mut got) = ([String::new(), String::new()], Vec::new());
        for (tick, step) in (1..).zip(&steps) {
            match step {
                Step::Write { out: true, text } => {
                    out.write_all(text.as_bytes()).unwrap();
                    wrote[0].push_str(text);
                }
                Step::Write { text, .. } => {
                    err.write_all(text.as_bytes()).unwrap();
                    wrote[1].push_str(text);
                }
                Step::Tick => indexer.tick(at(tick)),
                Step::Read => got.extend(rows(&mut reader)),
            }
        }
        for (file, wrote) in [&mut out, &mut err].into_iter().zip(&mut wrote) {
            file.write_all(b"\n").unwrap();
            wrote.push('\n');
        }
        indexer.tick(at(1000));
        got.extend(rows(&mut reader));
        let past = rows(&mut open(tmp.path(), Wanted::default()));
        for rows in [&got, &past] {
            for (stream, wrote) in ["out ", "err "].iter().zip(&wrote) {
                let of = rows.iter().filter_map(|row| row.strip_prefix(stream));
                prop_assert_eq!(of.collect::<Vec<_>>(), wrote.lines().collect::<Vec<_>>());
            }
        }
        let few = rows(&mut open(tmp.path(), Wanted { lines: Some(last), ..Wanted::default() }));
        prop_assert_eq!(&few, &past[past.len().saturating_sub(last)..]);
    }
}
