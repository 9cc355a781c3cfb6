use super::*;
use crate::logs::lines::LINE_MAX;
use crate::logs::open_for_append;
use crate::logs::view::CHUNK;
use proptest::prelude::*;
use std::fs;
use std::io::Write;

fn texts(folder: &Path, lines: usize) -> Vec<String> {
    tail(folder, "s", lines, None)
        .unwrap()
        .into_iter()
        .map(|row| format!("{} {}", row.stream, row.line))
        .collect()
}

#[test]
fn the_last_lines_of_what_is_there() {
    let tmp = tempfile::tempdir().unwrap();
    assert_eq!(texts(tmp.path(), 10), [""; 0]);
    let (mut out, _err) = open_for_append(tmp.path(), "s").unwrap();
    assert_eq!(texts(tmp.path(), 10), [""; 0]);
    out.write_all(b"\none\n\ntwo\n").unwrap();
    assert_eq!(texts(tmp.path(), 10), ["out ", "out one", "out ", "out two"]);
    assert_eq!(texts(tmp.path(), 2), ["out ", "out two"]);
    assert_eq!(texts(tmp.path(), 0), [""; 0]);
    out.write_all(b"three, no end").unwrap();
    assert_eq!(texts(tmp.path(), 2), ["out two", "out three, no end"]);
    assert!(matches!(tail(tmp.path(), "../s", 1, None), Err(LogError::Name { .. })));
}

#[test]
fn a_line_goes_on_from_file_to_file() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, text) in [("s.out.2", "a\nb"), ("s.out.1", "b"), ("s.out", "b\nc\n")] {
        fs::write(tmp.path().join(name), text).unwrap();
    }
    assert_eq!(texts(tmp.path(), 10), ["out a", "out bbb", "out c"]);
    // Moved out of the way in the middle of a shift.
    fs::rename(tmp.path().join("s.out.2"), tmp.path().join("s.out.3")).unwrap();
    assert_eq!(texts(tmp.path(), 10), ["out a", "out bbb", "out c"]);
}

#[test]
fn what_is_no_text_is_replaced() {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("s.err"), b"a\xff\0b\r\n\xe2\x82").unwrap();
    assert_eq!(texts(tmp.path(), 10), ["err a\u{fffd}\0b\r", "err \u{fffd}"]);
}

#[test]
fn a_huge_line_is_cut_and_said() {
    let tmp = tempfile::tempdir().unwrap();
    let mut text = b"before\n".to_vec();
    text.extend("é".repeat(50 << 20).into_bytes());
    text.extend(b"\nafter\n");
    fs::write(tmp.path().join("s.out"), &text).unwrap();
    let rows = tail(tmp.path(), "s", 3, None).unwrap();
    assert_eq!((rows[0].line.as_str(), rows[2].line.as_str()), ("before", "after"));
    let expected = format!("{} [cut here: the line has {} bytes]", "é".repeat(32 << 10), (100 << 20) + 1);
    assert!(rows[1].line == expected, "{} bytes", rows[1].line.len());
}

#[test]
fn an_answer_is_bounded_and_says_so() {
    let tmp = tempfile::tempdir().unwrap();
    let line = ["x".repeat(60_000), "\n".into()].concat();
    fs::write(tmp.path().join("s.out"), line.repeat(400)).unwrap();
    let rows = tail(tmp.path(), "s", 1000, None).unwrap();
    let bytes: usize = rows.iter().map(|row| row.line.len()).sum();
    assert!(bytes > (15 << 20) && bytes < (17 << 20));
    assert!(rows[0].line.contains("left out"), "{}", rows[0].line);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the bytes, and however they are spread over the files: the same lines as by splitting all of them.
    #[test]
    fn as_many_lines_as_there_are(
        pieces in prop::collection::vec("[a\n]{0,9}|[b\n]{100}", 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 3),
        big in 0usize..3,
        lines in 0usize..60,
    ) {
        let mut text = pieces.concat();
        // Some texts reach over a chunk.
        text.insert_str(0, &"c".repeat(big * CHUNK / 2));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let tmp = tempfile::tempdir().unwrap();
        let bounds = [vec![0], cuts, vec![text.len()]].concat();
        for (bounds, name) in bounds.windows(2).zip(["s.out.3", "s.out.2", "s.out.1", "s.out"]) {
            fs::write(tmp.path().join(name), &text[bounds[0]..bounds[1]]).unwrap();
        }
        let all: Vec<_> = text.lines().map(|line| match line.len() as u64 {
            // No newline ends the last line, if it is that one.
            length if length >= LINE_MAX as u64 => None,
            _ => Some(format!("out {line}")),
        }).collect();
        let got = texts(tmp.path(), lines);
        prop_assert_eq!(got.len(), lines.min(all.len()));
        for (got, expected) in got.iter().zip(&all[all.len() - got.len()..]) {
            match expected {
                Some(expected) => prop_assert_eq!(got, expected),
                None => prop_assert!(got.starts_with("out cccc")),
            }
        }
    }
}
