//! Events in, events out.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// 2026-01-01T00:00:00Z
const NEW_YEAR: i64 = 1_767_225_600_000_000_000;

#[test]
fn every_field_comes_back() {
    let base = Base::new();
    let (store, _) = base.ageless();
    let detail = EventDetail {
        socket: Some("rpc.sock".into()),
        path: Some("/run/web/rpc.sock".into()),
        verdict: Some("dangling".into()),
        status: Some("failed".into()),
        was: Some("ok".into()),
        lasted: Some(1_500_000_000),
        reason: Some("removed".into()),
        pid: Some(42),
        culprit: Some(rm()),
    };
    let full = EventRecord { detail: detail.clone(), ..verdict(1, NEW_YEAR + 5_000_001, "web", "dangling") };
    let bare = EventRecord {
        id: 2,
        time: NEW_YEAR,
        service: None,
        kind: EventKind::Control,
        detail: EventDetail::default(),
    };
    let unstored = EventRecord { id: 3, kind: EventKind::Gap, ..bare.clone() };
    let before_1970 = EventRecord { id: 4, time: -1, ..bare.clone() };
    record(&store, [full, bare, unstored, before_1970]);
    let rows = list(&store, all());
    assert_eq!(ids(&rows), [1, 2, 4]);
    let [full, bare, early] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(
        full,
        &EventRow {
            id: 1,
            time: "2026-01-01T00:00:00.005000001Z".into(),
            service: Some("web".into()),
            kind: EventKind::Verdict,
            detail,
        }
    );
    assert_eq!(
        (bare.kind, &bare.service, &bare.detail),
        (EventKind::Control, &None, &EventDetail::default())
    );
    assert_eq!(early.time, "1970-01-01T00:00:00.000000000Z");
}

#[test]
fn each_filter_narrows_and_all_together() {
    let base = Base::new();
    let (store, _) = base.ageless();
    let control = EventRecord { service: None, kind: EventKind::Control, ..verdict(5, 500, "", "absent") };
    record(
        &store,
        [
            state(1, 100, "web", "running"),
            verdict(2, 200, "web", "ok"),
            state(3, 300, "db", "running"),
            verdict(4, 400, "db", "dangling"),
            control,
            state(6, 600, "mail", "failed"),
        ],
    );
    let given = |query: EventQuery| ids(&list(&store, query));
    let of = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(given(all()), [1, 2, 3, 4, 5, 6]);
    assert_eq!(given(EventQuery { services: of(&["db"]), ..all() }), [3, 4]);
    assert_eq!(given(EventQuery { services: of(&["db", "mail", "none"]), ..all() }), [3, 4, 6]);
    assert_eq!(given(EventQuery { services: of(&["it's"]), ..all() }), [0; 0]);
    assert_eq!(given(EventQuery { since: Some(400), ..all() }), [4, 5, 6]);
    assert_eq!(given(EventQuery { after: Some(4), ..all() }), [5, 6]);
    assert_eq!(given(EventQuery { after: Some(u64::MAX), ..all() }), [0; 0]);
    assert_eq!(given(EventQuery { kinds: vec![EventKind::State], ..all() }), [1, 3, 6]);
    assert_eq!(given(EventQuery { kinds: vec![EventKind::Control, EventKind::Verdict], ..all() }), [2, 4, 5]);
    assert_eq!(given(EventQuery { limit: 2, ..all() }), [5, 6]);
    assert_eq!(given(EventQuery { limit: 2, after: Some(1), ..all() }), [2, 3]);
    assert_eq!(given(EventQuery { limit: 0, ..all() }), [0; 0]);
    let narrow = EventQuery {
        services: of(&["web", "db"]),
        since: Some(200),
        after: Some(1),
        kinds: vec![EventKind::Verdict],
        limit: 1,
    };
    assert_eq!(given(narrow.clone()), [2]);
    assert_eq!(given(EventQuery { after: None, ..narrow }), [4]);
}

#[test]
fn a_daemon_that_starts_again_knows_its_last_event_and_verdicts() {
    let base = Base::new();
    let (store, loaded) = base.ageless();
    assert_eq!((loaded.last_event, loaded.verdicts.len()), (0, 0));
    register(&store, "web");
    register(&store, "db");
    let mut dangling = verdict(4, 40, "web", "dangling");
    dangling.detail.reason = Some("removed".into());
    record(
        &store,
        [
            verdict(1, 10, "web", "absent"),
            verdict(2, 20, "db", "ok"),
            verdict(3, 30, "web", "ok"),
            dangling,
            verdict(5, 50, "forgotten", "ok"),
            state(6, 60, "web", "failed"),
        ],
    );
    let late = store.submit(Write::EventCulprit { id: 4, culprit: rm() });
    // Of an event that is no verdict, and of one that is not there: nothing is changed.
    let _ = store.submit(Write::EventCulprit { id: 6, culprit: rm() });
    let _ = store.submit(Write::EventCulprit { id: 99, culprit: rm() });
    wait(late.done()).unwrap();
    let rows = list(&store, all());
    let blamed: Vec<u64> = rows.iter().filter(|r| r.detail.culprit == Some(rm())).map(|r| r.id).collect();
    assert_eq!(blamed, [4]);
    drop(store);

    let (_, loaded) = base.ageless();
    assert_eq!(loaded.last_event, 6);
    let key = |name: &str| (name.to_owned(), format!("/run/{name}/rpc.sock"));
    let of = |verdict: &str, since_ns| LastVerdict {
        verdict: verdict.into(),
        since_ns,
        culprit: None,
        reason: None,
    };
    let expected = BTreeMap::from([
        (key("db"), of("ok", 20)),
        (
            key("web"),
            LastVerdict { culprit: Some(rm()), reason: Some("removed".into()), ..of("dangling", 40) },
        ),
    ]);
    assert_eq!(loaded.verdicts, expected);
}

#[test]
fn an_id_that_was_given_twice_loses_that_event_alone() {
    let base = Base::new();
    let (store, _) = base.ageless();
    record(&store, [state(1, 1, "a", "running"), state(2, 2, "a", "failed")]);
    let again = store.submit(Write::Event(Box::new(state(2, 3, "b", "running"))));
    record(&store, [state(3, 4, "c", "running")]);
    register(&store, "web");
    assert!(matches!(wait(again.done()), Err(StoreError::Write(_))));
    let rows = list(&store, all());
    assert_eq!(ids(&rows), [1, 2, 3]);
    assert_eq!(rows.get(1).unwrap().service.as_deref(), Some("a"));
    assert_eq!((store.lost_events(), base.count("service")), (1, 1));
}

#[test]
fn views_show_spells_and_readable_times() {
    let base = Base::new();
    let (store, _) = base.ageless();
    let ms = 1_000_000;
    let mut dangling = verdict(2, NEW_YEAR + 1_500 * ms + 999_999, "web", "dangling");
    dangling.detail.culprit = Some(rm());
    record(
        &store,
        [
            verdict(1, NEW_YEAR, "web", "ok"),
            dangling,
            verdict(3, NEW_YEAR + 1_600 * ms, "db", "ok"),
            verdict(4, NEW_YEAR + 1_750 * ms, "web", "ok"),
            state(5, NEW_YEAR + 1_800 * ms, "web", "running"),
        ],
    );
    list(&store, all());
    let db = Connection::open(&base.path).unwrap();
    let mut query =
        db.prepare("SELECT service, verdict, began, ended, lasted_ms, culprit_name FROM history").unwrap();
    let mut rows = query.query([]).unwrap();
    let mut spells = Vec::new();
    while let Some(r) = rows.next().unwrap() {
        let text = |at: usize| r.get::<_, Option<String>>(at).unwrap().unwrap_or_else(|| "-".into());
        let lasted = r.get::<_, Option<f64>>(4).unwrap().map_or("-".into(), |ms| ms.to_string());
        spells.push(format!("{} {} {} {} {lasted} {}", text(0), text(1), text(2), text(3), text(5)));
    }
    assert_eq!(
        spells,
        [
            "web ok 2026-01-01T00:00:00.000Z 2026-01-01T00:00:01.500Z 1500.999 -",
            "web dangling 2026-01-01T00:00:01.500Z 2026-01-01T00:00:01.750Z 249 rm",
            "db ok 2026-01-01T00:00:01.600Z - - -",
            "web ok 2026-01-01T00:00:01.750Z - - -",
        ]
    );
    let last: (i64, String, String) = db
        .query_row("SELECT id, time, status FROM events WHERE kind = 'state'", [], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?))
        })
        .unwrap();
    assert_eq!(last, (5, "2026-01-01T00:00:01.800Z".into(), "running".into()));
}

#[test]
fn readers_see_all_that_was_submitted_before_them_while_others_write() {
    let base = Base::new();
    let (store, _) = base.ageless();
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            for name in 0..200 {
                register(&store, &format!("s{name}"));
            }
        })
    };
    let mut answers = Vec::new();
    for id in 1..=2_000 {
        record(&store, [verdict(id, id as i64, "web", "ok")]);
        if id % 100 == 0 {
            answers.push((id, store.events(all())));
        }
    }
    for (id, rows) in answers {
        let seen = ids(&wait(rows).unwrap());
        assert!(seen.len() as u64 >= id && seen.iter().copied().eq(1..=seen.len() as u64), "{id}: {seen:?}");
    }
    writer.join().unwrap();
    assert_eq!((store.lost_events(), base.count("service")), (0, 200));
}

#[test]
fn a_flush_waits_for_what_nobody_waited_for() {
    let base = Base::new();
    let (store, _) = base.ageless();
    record(&store, (1..=3_000).map(|id| state(id, 1, "web", "running")));
    wait(store.flush().done()).unwrap();
    assert_eq!(base.count("event"), 3_000);
}

#[test]
fn a_question_that_fails_or_that_nobody_waits_for_harms_no_other() {
    let base = Base::new();
    let (store, _) = base.ageless();
    let renamed = |sql| rusqlite::Connection::open(&base.path).unwrap().execute_batch(sql).unwrap();
    record(&store, [state(1, 1, "a", "running")]);
    wait(store.flush().done()).unwrap();
    renamed("ALTER TABLE event RENAME TO away");
    let refused = wait(store.events(all())).unwrap_err();
    assert!(matches!(&refused, StoreError::Read { path, .. } if *path == base.path), "{refused}");
    renamed("ALTER TABLE away RENAME TO event");
    drop(store.events(all()));
    assert_eq!(ids(&list(&store, all())), [1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_give_every_event_once(
        gaps in prop::collection::vec((1u64..5, 0usize..3, 0i64..100), 0..80),
        page in 1usize..12,
        wanted in prop::collection::vec(0usize..3, 0..3),
        since in prop::option::of(0i64..100),
    ) {
        const NAMES: [&str; 3] = ["web", "db", "mail"];
        let base = Base::new();
        let (store, _) = base.ageless();
        let mut id = 0;
        let events: Vec<EventRecord> = gaps.iter().map(|(gap, name, time)| {
            id += gap;
            state(id, *time, NAMES[*name], "running")
        }).collect();
        let services: Vec<String> = wanted.iter().map(|n| NAMES[*n].to_owned()).collect();
        let expected: Vec<u64> = events.iter()
            .filter(|e| services.is_empty() || e.service.as_ref().is_some_and(|s| services.contains(s)))
            .filter(|e| since.is_none_or(|since| e.time >= since))
            .map(|e| e.id).collect();
        record(&store, events);
        let mut query = EventQuery { services, since, after: Some(0), limit: page, ..EventQuery::default() };
        let mut seen = Vec::new();
        loop {
            let rows = list(&store, query.clone());
            prop_assert!(rows.len() <= page);
            let Some(last) = rows.last() else { break };
            query.after = Some(last.id);
            seen.extend(ids(&rows));
        }
        prop_assert_eq!(&seen, &expected);
        let newest = ids(&list(&store, EventQuery { after: None, ..query }));
        prop_assert_eq!(newest.as_slice(), &expected[expected.len().saturating_sub(page)..]);
    }
}
