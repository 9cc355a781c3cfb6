//! Spells as a timeline of text, a line a socket, that fits a width. Pure.
//!
//! ```text
//!           2026-11-24 09:00:00           2026-11-24 10:00:00
//! rpc.sock  aaaa==================D========================
//! = ok, a absent, D dangling, a column: 1min
//! ```
//! A column shows the worst of its time, so that a moment without a file is seen in a chart of a day.

use std::fmt::Display;
use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use shimd_api::duration::format_duration;

use crate::colours::Palette;
use crate::line::printable;
use crate::spells::Spell;
use crate::value::readable;

/// What stands for a verdict, the least bad first.
const SIGNS: [(&str, char); 10] = [
    ("ok", '='),
    ("absent", 'a'),
    ("unknown", '?'),
    ("stale", 'S'),
    ("not-socket", 'N'),
    ("denied", 'X'),
    ("wedged", 'W'),
    ("foreign", 'F'),
    ("replaced", 'R'),
    ("dangling", 'D'),
];
/// The narrowest chart.
const NARROWEST: usize = 20;

/// A column of a line: how bad its worst verdict is, and the sign of it; none where nothing is known.
type Cell = Option<(usize, char)>;

/// How bad a verdict is, and its sign. One that a newer daemon knows is the worst.
fn sign(verdict: &str) -> (usize, char) {
    let known = SIGNS.iter().enumerate().find(|(_, (word, _))| *word == verdict);
    known.map_or((SIGNS.len(), '!'), |(at, (_, sign))| (at, *sign))
}

/// The chart of what was between two times, in so many columns, its times in this zone.
pub fn chart<Zone: TimeZone<Offset: Display>>(
    spells: &[Spell],
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    width: usize,
    palette: &Palette,
    zone: &Zone,
) -> String {
    let width = width.max(NARROWEST);
    let mut sockets: Vec<&str> = Vec::new();
    for spell in spells {
        if !sockets.contains(&spell.socket.as_str()) {
            sockets.push(&spell.socket);
        }
    }
    let names: Vec<String> = sockets.iter().map(|name| shortened(&printable(name), width / 3)).collect();
    let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let columns = width - longest - 2;
    let time = |time: DateTime<Utc>| time.with_timezone(zone).format("%Y-%m-%d %H:%M:%S").to_string();
    let (begin, end) = (time(from), time(to));
    let mut lines = Vec::new();
    match columns.checked_sub(begin.len() + end.len()).filter(|gap| *gap > 0) {
        Some(gap) => lines.push(format!("{:longest$}  {begin}{:gap$}{end}", "", "")),
        None => lines.extend([begin, end]),
    }
    let mut shown: Vec<Cell> = Vec::new();
    for (socket, name) in sockets.iter().zip(&names) {
        let own = spells.iter().filter(|spell| spell.socket == *socket);
        let cells = bar(own, (from, to), columns);
        lines.push(format!("{name:longest$}  {}", painted(&cells, palette)).trim_end().to_owned());
        shown.extend(cells);
    }
    let signs = SIGNS.iter().filter(|(_, sign)| shown.iter().flatten().any(|(_, shown)| shown == sign));
    let mut legend: Vec<String> = signs.map(|(word, sign)| format!("{sign} {word},")).collect();
    let column = readable(nanoseconds(from, to) / columns as i64);
    let column = format!("a column: {}", format_duration(Duration::from_nanos(column.unsigned_abs())));
    legend.extend(column.split(' ').map(str::to_owned));
    lines.extend(wrapped(&legend, width));
    lines.join("\n")
}

fn nanoseconds(from: DateTime<Utc>, to: DateTime<Utc>) -> i64 {
    (to - from).num_nanoseconds().unwrap_or(i64::MAX).max(0)
}

/// One socket's line: each column its worst verdict.
fn bar<'a>(
    spells: impl Iterator<Item = &'a Spell>,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    columns: usize,
) -> Vec<Cell> {
    let whole = i128::from(nanoseconds(from, to)).max(1);
    let column = |time: DateTime<Utc>| {
        let at = i128::from((time - from).num_nanoseconds().unwrap_or(0)) * columns as i128 / whole;
        usize::try_from(at).unwrap_or(0).min(columns - 1)
    };
    let mut worst: Vec<Cell> = vec![None; columns];
    for spell in spells.filter(|spell| spell.to >= from && spell.from <= to) {
        let (first, last) = (column(spell.from), column(spell.to));
        // A spell ends where the next begins: in a column of its own it does not show there, too.
        let last = if last > first && spell.to < to { last - 1 } else { last };
        for cell in worst.get_mut(first..=last).unwrap_or_default() {
            *cell = (*cell).max(Some(sign(&spell.verdict)));
        }
    }
    worst
}

/// A line's cells as text, what is alike in one colour.
fn painted(cells: &[Cell], palette: &Palette) -> String {
    let alike = cells.chunk_by(|one, other| one == other);
    let run = |run: &[Cell]| {
        let text: String = run.iter().map(|cell| cell.map_or(' ', |(_, sign)| sign)).collect();
        let word =
            run.first().copied().flatten().and_then(|(at, _)| SIGNS.get(at)).map_or("", |(word, _)| word);
        palette.paint(word, &text)
    };
    alike.map(run).collect()
}

fn shortened(name: &str, most: usize) -> String {
    match name.chars().count() > most {
        true => name.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

/// Words in lines of a width.
fn wrapped(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap()
    }

    fn spell(socket: &str, verdict: &str, from: i64, to: i64) -> Spell {
        let (socket, verdict) = (socket.into(), verdict.into());
        Spell { socket, verdict, from: at(from), to: at(to), reason: None, culprit: None }
    }

    fn drawn(spells: &[Spell], width: usize) -> String {
        chart(spells, (at(0), at(3600)), width, &Palette::default(), &Utc)
    }

    #[test]
    fn a_moment_is_seen_in_an_hour() {
        let spells = [
            spell("rpc.sock", "absent", 0, 600),
            spell("rpc.sock", "ok", 600, 1800),
            spell("rpc.sock", "dangling", 1800, 1801),
            spell("rpc.sock", "ok", 1801, 3600),
            spell("ui.sock", "ok", 1800, 3600),
        ];
        let expected = [
            "          2026-01-01 00:00:00           2026-01-01 01:00:00",
            "rpc.sock  aaaaaaaa================D========================",
            "ui.sock                           =========================",
            "= ok, a absent, D dangling, a column: 1min 13sec",
        ];
        assert_eq!(drawn(&spells, 59).lines().collect::<Vec<_>>(), expected);
        let narrow = drawn(&spells, 20);
        assert!(narrow.lines().all(|line| line.chars().count() <= 20), "{narrow}");
        assert!(narrow.contains('D') && narrow.contains("rpc.s…"), "{narrow}");
    }

    #[test]
    fn what_is_alike_has_one_colour() {
        let spells = [spell("a", "ok", 0, 3600), spell("a", "dangling", 1800, 1801)];
        let drawn = chart(&spells, (at(0), at(3600)), 23, &Palette::own(), &Utc);
        let green = |cells: &str| format!("\u{1b}[32m{cells}\u{1b}[0m");
        let line = format!("a  {}\u{1b}[31mD\u{1b}[0m{}", green(&"=".repeat(10)), green(&"=".repeat(9)));
        assert_eq!(drawn.lines().nth(2), Some(line.as_str()), "{drawn}");
    }

    proptest! {
        /// Whatever is drawn: it fits, and what was bad at any time shows.
        #[test]
        fn it_fits_and_hides_nothing(
            raw in prop::collection::vec((0i64..3600, 0i64..3600, 0..SIGNS.len(), "[a-z\\PC]{1,30}"), 0..12),
            width in 0usize..200,
        ) {
            let spells: Vec<_> = raw.iter().map(|(a, b, verdict, socket)| {
                spell(socket, SIGNS[*verdict].0, *a.min(b), *a.max(b))
            }).collect();
            let chart = drawn(&spells, width);
            for line in chart.lines() {
                prop_assert!(line.chars().count() <= width.max(NARROWEST), "{line}");
            }
            for spell in &spells {
                let worst = spells.iter().filter(|other| other.socket == spell.socket).map(|s| sign(&s.verdict)).max();
                prop_assert!(chart.contains(worst.unwrap().1), "{}", chart);
            }
        }
    }
}
