//! What a document shows, held to what comes: the code blocks of a Markdown file, and a form of a session's output in which
//! numbers, durations, and the widths of columns do not count.

/// A code block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The word behind the opening fence: `nu`, `text`, `console`; may be empty.
    pub language: String,
    /// What is between the fences.
    pub text: String,
    /// The line of the opening fence, from 1.
    pub line: usize,
}

/// All fenced blocks, in order. A fence that is indented, as in a list, counts too.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block {
                    language: language.trim().to_owned(),
                    text: String::new(),
                    line: index + 1,
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// The lines of a session as they are compared.
///
/// - A number is `N`, a duration of any parts `T`.
/// - A table is its columns, each in one line without white space: where words wrap depends on what is beside them.
/// - White space is one blank; blank lines are left out.
pub fn normal(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut columns: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with(['╭', '├']) {
            continue;
        }
        if line.starts_with('│') {
            let cells: Vec<&str> = line.trim_matches('│').split('│').collect();
            columns.resize(columns.len().max(cells.len()), String::new());
            for (column, cell) in columns.iter_mut().zip(cells) {
                column.extend(cell.split_whitespace());
            }
            continue;
        }
        lines.extend(columns.drain(..).map(|column| plain(&column)));
        let line = line.trim_start_matches('╰').trim_matches('─').trim_end_matches('╯');
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.iter().all(|word| word.chars().all(|char| "─┴".contains(char))) {
            lines.push(plain(&words.join(" ")));
        }
    }
    lines.extend(columns.iter().map(|column| plain(column)));
    lines
}

/// Units, the longer first where one begins as another.
const UNITS: [&str; 10] = ["ms", "µs", "us", "ns", "sec", "min", "hr", "day", "wk", "s"];

fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(char) = rest.chars().next() {
        if !char.is_ascii_digit() {
            out.push(char);
            rest = rest.get(char.len_utf8()..).unwrap_or_default();
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        // A full stop that ends a sentence is no part of it.
        let stop = number.ends_with('.');
        let unit = UNITS.into_iter().find(|unit| {
            let behind = after.strip_prefix(unit);
            !stop && behind.is_some_and(|b| !b.starts_with(|c: char| c.is_ascii_alphabetic()))
        });
        match unit {
            Some(unit) => {
                if !out.trim_end().ends_with('T') {
                    out.push('T');
                } else {
                    out.truncate(out.trim_end().len());
                }
                rest = after.get(unit.len()..).unwrap_or_default();
            }
            None => {
                out.push('N');
                out.push_str(if stop { "." } else { "" });
                rest = after;
            }
        }
    }
    out
}

/// The first lines in which two differ, for people; `None` where they are alike.
pub fn difference(shown: &[String], came: &[String]) -> Option<String> {
    let count = shown.len().max(came.len());
    let at = (0..count).find(|&index| shown.get(index) != came.get(index))?;
    let line = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "(nothing more)".to_owned());
    Some(format!("shown: {}\ncame:  {}", line(shown), line(came)))
}
