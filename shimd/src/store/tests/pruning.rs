//! The history's bounds.

use super::*;
use crate::store::prune::{EVERY, STEP};

const HOUR: Duration = Duration::from_secs(3_600);

fn small(events: u64) -> Limits {
    Limits { events, age: HOUR, ..Limits::default() }
}

/// Passes the pruning that is due at open: from here on, the next is due after the thousandth event.
fn opened(base: &Base) -> Store {
    let (store, _) = base.open_with(small(300));
    // What is asked second is answered after the step that followed the first.
    for _ in 0..2 {
        list(&store, all());
    }
    store
}

fn old() -> i64 {
    now() - 2 * HOUR.as_nanos() as i64
}

#[test]
fn a_hundred_thousand_events_are_kept_and_no_more() {
    let base = Base::new();
    let (store, _) = base.open();
    let (began, extra) = (now(), 2 * EVERY);
    let mut most = 0;
    for first in (0..EVENTS + extra).step_by(5_000) {
        record(
            &store,
            (first..(first + 5_000).min(EVENTS + extra)).map(|n| {
                verdict(
                    n + 1,
                    began + n as i64,
                    &format!("s{}", n % 100),
                    if n % 200 < 100 { "ok" } else { "stale" },
                )
            }),
        );
        list(&store, EventQuery { limit: 1, ..all() });
        most = most.max(base.count("event"));
    }
    assert!(most <= EVENTS + 4 * EVERY, "{most}");
    // Up to 999 are over until the next pass is due; it is at open.
    assert_eq!(store.lost_events(), 0);
    drop(store);
    let (store, _) = base.open();
    until("a hundred thousand events", || base.count("event") == EVENTS);
    assert!(ids(&list(&store, all())).into_iter().eq(extra + 1..=EVENTS + extra));
    let size = std::fs::metadata(&base.path).unwrap().len();
    println!(
        "{EVENTS} events: {} MiB of state.db, {} MiB of its WAL",
        size >> 20,
        std::fs::metadata(wal(&base.path)).unwrap().len() >> 20
    );
}

#[test]
fn the_oldest_go_first_and_ids_go_on() {
    let base = Base::new();
    let store = opened(&base);
    record(&store, (1..=EVERY).map(|id| state(id, now(), "web", "running")));
    until("300 events", || base.count("event") == 300);
    assert_eq!(ids(&list(&store, all())).first(), Some(&(EVERY - 299)));
    // Not before the next thousand, and then again.
    record(&store, (1..EVERY).map(|n| state(EVERY + n, now(), "web", "running")));
    list(&store, all());
    assert_eq!(base.count("event"), 300 + EVERY - 1);
    record(&store, [state(2 * EVERY, now(), "web", "running")]);
    until("300 events again", || base.count("event") == 300);
    assert_eq!(ids(&list(&store, all())).last(), Some(&(2 * EVERY)));
}

#[test]
fn what_is_too_old_goes_at_open_save_the_newest_event() {
    let base = Base::new();
    let (store, _) = base.open_with(Limits::default());
    let many = 2 * STEP + 10;
    record(&store, (1..=many).map(|id| state(id, old() + id as i64, "web", "running")));
    list(&store, all());
    drop(store);
    let (store, loaded) = base.open_with(small(EVENTS));
    assert_eq!(loaded.last_event, many);
    until("one event", || base.count("event") == 1);
    assert_eq!(ids(&list(&store, all())), [many]);
    drop(store);
    assert_eq!(base.open().1.last_event, many);
}

#[test]
fn the_newest_verdict_of_a_registered_service_outlives_the_bounds() {
    let base = Base::new();
    let store = opened(&base);
    register(&store, "web");
    record(
        &store,
        [verdict(1, old(), "web", "absent"), verdict(2, old(), "web", "ok"), verdict(3, old(), "gone", "ok")],
    );
    // A noisy neighbour, over the bound by itself.
    record(&store, (4..=EVERY).map(|id| state(id, now(), "noisy", "backoff")));
    until("300 events", || base.count("event") == 300);
    let rows = list(&store, all());
    assert_eq!(ids(&rows).into_iter().take(2).collect::<Vec<_>>(), [2, EVERY - 298]);
    drop(store);
    let (_, loaded) = base.open_with(small(300));
    assert_eq!(loaded.verdicts.values().map(|v| v.verdict.as_str()).collect::<Vec<_>>(), ["ok"]);
}

#[test]
fn more_sockets_than_events_are_bounded_all_the_same() {
    let base = Base::new();
    let store = opened(&base);
    register(&store, "web");
    record(
        &store,
        (1..=EVERY).map(|id| {
            let mut event = verdict(id, now(), "web", "ok");
            event.detail.path = Some(format!("/run/{id}.sock"));
            event
        }),
    );
    until("300 events", || base.count("event") == 300);
    assert_eq!(ids(&list(&store, all())).first(), Some(&(EVERY - 299)));
}
