//! The verdicts of sockets over time, made of events: what each was, from when, and how long. Pure.
//!
//! | events of one socket | make |
//! | --- | --- |
//! | one after another | a spell from the one to the next |
//! | the first, with a `was` | the spell before it too, whose own event is no longer kept |
//! | one whose `was` is not the verdict before it | the spell in between: its event was lost |
//! | the last | a spell that lasts |
//! | one without a verdict | an end: the socket is no longer declared |

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use shimd_api::event::{EventKind, EventRow};
use shimd_api::wire::Culprit;

/// A socket's verdict for a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Spell {
    /// The socket as declared.
    pub socket: String,
    /// Its verdict.
    pub verdict: String,
    /// Since when.
    pub from: DateTime<Utc>,
    /// Until when; of the one that lasts, now.
    pub to: DateTime<Utc>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Who removed or replaced the dentry.
    pub culprit: Option<Culprit>,
}

impl Spell {
    /// Nanoseconds.
    pub fn lasted(&self) -> i64 {
        (self.to - self.from).num_nanoseconds().unwrap_or(i64::MAX)
    }
}

/// The spells of all sockets, in the order of their begin, as far as they reach into the time since `since`.
pub fn spells(events: &[EventRow], since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Vec<Spell> {
    let mut sockets: Vec<(Vec<Spell>, bool)> = Vec::new();
    let mut of: HashMap<&str, usize> = HashMap::new();
    for event in events.iter().filter(|event| event.kind == EventKind::Verdict) {
        let (Some(path), Ok(time)) = (&event.detail.path, DateTime::parse_from_rfc3339(&event.time)) else {
            continue;
        };
        let at = *of.entry(path).or_insert_with(|| {
            sockets.push((Vec::new(), false));
            sockets.len() - 1
        });
        if let Some((spells, lasts)) = sockets.get_mut(at) {
            add(spells, *lasts, event, time.to_utc());
            *lasts = event.detail.verdict.is_some();
        }
    }
    let mut all = Vec::new();
    for (mut spells, lasts) in sockets {
        if let Some(last) = spells.last_mut().filter(|_| lasts) {
            last.to = now.max(last.from);
        }
        all.extend(spells);
    }
    all.retain(|spell| since.is_none_or(|since| spell.to >= since));
    all.sort_by_key(|spell| spell.from);
    all
}

/// Takes in the next event of a socket; `lasts`: the last spell goes on until then.
fn add(spells: &mut Vec<Spell>, lasts: bool, event: &EventRow, time: DateTime<Utc>) {
    let detail = &event.detail;
    let socket = || detail.socket.clone().or_else(|| detail.path.clone()).unwrap_or_default();
    // A clock that was set back makes no time negative.
    let time = spells.last().map_or(time, |last| time.max(last.from));
    let known = spells.last().map(|last| last.verdict.as_str());
    if let Some(was) = detail.was.as_deref().filter(|was| Some(*was) != known) {
        let began = time - TimeDelta::nanoseconds(detail.lasted.unwrap_or(0).max(0));
        let began = spells.last().map_or(began, |last| began.max(last.from));
        if let Some(last) = spells.last_mut() {
            last.to = began;
        }
        let verdict = was.to_owned();
        spells.push(Spell { socket: socket(), verdict, from: began, to: time, reason: None, culprit: None });
    } else if let Some(last) = spells.last_mut().filter(|_| lasts) {
        last.to = time;
    }
    let Some(verdict) = detail.verdict.clone() else { return };
    spells.push(Spell {
        socket: socket(),
        verdict,
        from: time,
        to: time,
        reason: detail.reason.clone(),
        culprit: detail.culprit.clone(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shimd_api::event::EventDetail;

    const NOW: i64 = 1000;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn event(second: i64, socket: &str, verdict: &str, was: Option<(&str, i64)>) -> EventRow {
        let detail = EventDetail {
            socket: Some(socket.into()),
            path: Some(format!("/run/{socket}")),
            verdict: Some(verdict.into()),
            was: was.map(|(was, _)| was.into()),
            lasted: was.map(|(_, seconds)| seconds * 1_000_000_000),
            reason: Some(format!("why {verdict}")),
            ..EventDetail::default()
        };
        EventRow {
            id: 1,
            time: at(second).to_rfc3339(),
            service: Some("web".into()),
            kind: EventKind::Verdict,
            detail,
        }
    }

    fn told(spells: &[Spell]) -> Vec<String> {
        let second = |time: DateTime<Utc>| time.timestamp();
        let tell = |s: &Spell| format!("{} {} {}-{}", s.socket, s.verdict, second(s.from), second(s.to));
        spells.iter().map(tell).collect()
    }

    #[test]
    fn an_event_without_a_verdict_ends_the_spell_and_what_comes_later_begins_anew() {
        let undeclared = |second| {
            let mut end = event(second, "a", "", Some(("ok", 10)));
            (end.detail.verdict, end.detail.reason) = (None, Some("no longer declared".into()));
            end
        };
        let events = [event(10, "a", "ok", None), undeclared(20)];
        assert_eq!(told(&spells(&events, None, at(NOW))), ["a ok 10-20"]);
        let again = [events.as_slice(), &[event(50, "a", "absent", None)]].concat();
        assert_eq!(told(&spells(&again, None, at(NOW))), ["a ok 10-20", "a absent 50-1000"]);
        // Its begin is no longer kept.
        assert_eq!(told(&spells(&[undeclared(20)], None, at(NOW))), ["a ok 10-20"]);
    }

    #[test]
    fn each_event_ends_the_spell_before_it() {
        let events = [
            event(100, "a", "ok", Some(("absent", 40))),
            event(150, "b", "ok", None),
            event(200, "a", "dangling", Some(("ok", 100))),
            event(230, "a", "ok", Some(("dangling", 30))),
        ];
        let all = ["a absent 60-100", "a ok 100-200", "b ok 150-1000", "a dangling 200-230", "a ok 230-1000"];
        assert_eq!(told(&spells(&events, None, at(NOW))), all);
        assert_eq!(told(&spells(&events, Some(at(225)), at(NOW))), all[2..], "what reaches into it is whole");
        assert_eq!(spells(&events, None, at(NOW))[3].reason.as_deref(), Some("why dangling"));
        assert_eq!(spells(&[], None, at(NOW)), []);
    }

    #[test]
    fn a_lost_event_is_made_up_for() {
        let events = [event(100, "a", "ok", None), event(300, "a", "ok", Some(("stale", 50)))];
        assert_eq!(
            told(&spells(&events, None, at(NOW))),
            ["a ok 100-250", "a stale 250-300", "a ok 300-1000"]
        );
    }

    proptest! {
        /// Whatever the events and the clock: of each socket the spells follow one another without a gap until now, and
        /// none is negative.
        #[test]
        fn without_a_gap(
            raw in prop::collection::vec((0i64..NOW, 0..3usize, 0..4usize, prop::option::of((0..4usize, 0i64..500))), 0..40),
            since in prop::option::of(0i64..NOW),
        ) {
            let verdicts = ["ok", "dangling", "stale", "absent"];
            let events: Vec<_> = raw.iter().map(|(second, socket, verdict, was)| {
                let was = was.map(|(was, seconds)| (verdicts[was], seconds));
                event(*second, ["a", "b", "c"][*socket], verdicts[*verdict], was)
            }).collect();
            let found = spells(&events, since.map(at), at(NOW));
            prop_assert!(found.is_sorted_by_key(|spell| spell.from));
            for socket in ["a", "b", "c"] {
                let own: Vec<_> = found.iter().filter(|spell| spell.socket == socket).collect();
                prop_assert_eq!(own.is_empty(), !events.iter().any(|e| e.detail.socket.as_deref() == Some(socket)));
                prop_assert!(own.iter().all(|spell| spell.lasted() >= 0));
                prop_assert!(own.windows(2).all(|pair| pair[0].to == pair[1].from));
                prop_assert!(own.last().is_none_or(|last| last.to == at(NOW)));
            }
        }
    }
}
