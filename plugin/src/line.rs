//! An event as a line of text, for a terminal:
//!
//! ```text
//! 2026-11-23 10:11:12.123  web  verdict  rpc.sock ok -> dangling after 3min 2sec: it was removed [by rm (pid 12, uid 0)]
//! ```
//!
//! The time is local, and `-` stands for the daemon itself. What cannot be printed is escaped: processes choose their
//! names, and a line is to stay one, and to do nothing else to a terminal.

use std::fmt::Write;
use std::time::Duration;

use chrono::{DateTime, Local, TimeZone};
use shimd_api::duration::format_duration;
use shimd_api::event::EventRow;
use shimd_api::wire::Culprit;

use crate::colours::Palette;
use crate::value::readable;

/// The line, with its newline.
pub fn line(event: &EventRow, palette: &Palette) -> String {
    in_zone(event, palette, &Local)
}

fn in_zone<Zone: TimeZone<Offset: std::fmt::Display>>(
    event: &EventRow,
    palette: &Palette,
    zone: &Zone,
) -> String {
    let time = match DateTime::parse_from_rfc3339(&event.time) {
        Ok(time) => time.with_timezone(zone).format("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => event.time.clone(),
    };
    let time = palette.paint_time(&printable(&time));
    let service = printable(event.service.as_deref().unwrap_or("-"));
    format!("{time}  {service}  {}  {}\n", event.kind.as_str(), what(event, palette))
}

/// The text with what cannot be printed escaped.
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, letter| {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
        line
    })
}

/// What happened, as far as it is told.
fn what(event: &EventRow, palette: &Palette) -> String {
    let detail = &event.detail;
    let mut words: Vec<String> = Vec::new();
    words.extend(detail.socket.as_deref().or(detail.path.as_deref()).map(printable));
    let painted = |word: &String| palette.paint(word, &printable(word));
    let now = detail.verdict.as_ref().or(detail.status.as_ref()).map(painted);
    match (detail.was.as_ref().map(painted), now) {
        (Some(was), Some(now)) => words.push(format!("{was} -> {now}")),
        (None, Some(now)) => words.push(now),
        (_, None) => {}
    }
    if let Some(lasted) = detail.lasted {
        let lasted = Duration::from_nanos(readable(lasted).unsigned_abs());
        words.push(format!("after {}", format_duration(lasted)));
    }
    let mut text = words.join(" ");
    if let Some(reason) = &detail.reason {
        let colon = if text.is_empty() { "" } else { ": " };
        let _ = write!(text, "{colon}{}", printable(reason));
    }
    // A reason mostly names the culprit already.
    let named = |by: &str| detail.reason.as_ref().is_some_and(|reason| reason.contains(by));
    if let Some(by) = detail.culprit.as_ref().map(by).filter(|by| !named(by)) {
        let _ = write!(text, " [by {}]", printable(&by));
    }
    text
}

fn by(culprit: &Culprit) -> String {
    let uid = culprit.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
    format!("{} (pid {}{uid})", culprit.name, culprit.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use serde_json::json;

    fn shown(event: serde_json::Value) -> String {
        in_zone(&serde_json::from_value(event).unwrap(), &Palette::default(), &Utc)
    }

    #[test]
    fn states_and_verdicts_have_colours() {
        let event = json!({ "id": 1, "time": "t", "service": "web", "kind": "state",
            "detail": { "status": "failed", "was": "running", "reason": "ok\u{1b}[31m" } });
        let line = in_zone(&serde_json::from_value(event).unwrap(), &Palette::own(), &Utc);
        let expected =
            "t  web  state  \u{1b}[32mrunning\u{1b}[0m -> \u{1b}[31mfailed\u{1b}[0m: ok\\u{1b}[31m\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_line_tells_what_applies() {
        let event = |kind: &str, detail: serde_json::Value| {
            json!({ "id": 1, "time": "2026-11-23T10:11:12.123456Z",
            "service": "web", "kind": kind, "detail": detail })
        };
        let rm = json!({ "pid": 12, "name": "rm", "exe": null, "uid": 0 });
        let verdict = json!({ "socket": "rpc.sock", "path": "/run/web/rpc.sock", "verdict": "dangling", "was": "ok",
            "lasted": 182_345_678_901_i64, "reason": "it was removed", "pid": 7, "culprit": rm });
        assert_eq!(
            shown(event("verdict", verdict)),
            "2026-11-23 10:11:12.123  web  verdict  rpc.sock ok -> dangling after 3min 2sec: it was removed \
             [by rm (pid 12, uid 0)]\n"
        );
        let first = event("state", json!({ "status": "starting" }));
        assert_eq!(shown(first), "2026-11-23 10:11:12.123  web  state  starting\n");
        let gap = json!({ "id": 0, "time": "soon", "service": null, "kind": "gap", "detail": { "reason": "read faster" } });
        assert_eq!(shown(gap), "soon  -  gap  read faster\n");
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        let evil = json!({ "pid": 12, "name": "a\u{1b}[2J\nb", "exe": null, "uid": null });
        let event = json!({ "id": 1, "time": "t", "service": null, "kind": "control",
            "detail": { "path": "/é.sock", "verdict": "dangling", "culprit": evil } });
        assert_eq!(shown(event), "t  -  control  /é.sock dangling [by a\\u{1b}[2J\\nb (pid 12)]\n");
    }
}
