//! A disk that is full, and one that is slow.

use super::*;

/// Long enough to fill a page each.
fn fat(id: u64) -> EventRecord {
    let mut event = state(id, now(), "web", "failed");
    event.detail.reason = Some("x".repeat(4_000));
    event
}

/// Events until the disk refuses one; gives the next id.
fn fill(store: &Store) -> u64 {
    let mut id = 1;
    let end = Instant::now() + Duration::from_secs(30);
    while store.trouble().is_none() {
        assert!(Instant::now() < end, "the disk is never full");
        record(store, (id..id + 100).map(fat));
        id += 100;
        list(store, EventQuery { limit: 1, ..all() });
    }
    id
}

fn full(store: &Store, lift: impl FnOnce()) {
    let mut id = fill(store);
    let (kept, lost) = (list(store, all()).len() as u64, store.lost_events());
    assert_eq!(kept + lost, id - 1);
    let trouble = store.trouble().unwrap();
    assert!(
        trouble.starts_with(&format!("{lost} events are missing")) && trouble.contains("full"),
        "{trouble}"
    );

    // A spec in the midst of events: it says why it failed, and changes nothing.
    record(store, (id..id + 50).map(fat));
    let spec = Write::Spec { name: "db".into(), spec_json: "x".repeat(1 << 20) };
    let spec = store.submit(spec);
    record(store, (id + 50..id + 100).map(fat));
    id += 100;
    let refused = wait(spec.done()).unwrap_err().to_string();
    assert!(refused.contains("full") && refused.contains("free disk space"), "{refused}");
    list(store, all());
    assert!(store.lost_events() > lost);

    lift();
    register(store, "db");
    let seen = store.lost_events();
    record(store, [state(id, now(), "web", "running")]);
    assert_eq!(ids(&list(store, all())).last(), Some(&id));
    assert_eq!((store.trouble(), store.lost_events()), (None, seen));
}

#[test]
fn a_database_that_may_not_grow_drops_events_and_refuses_the_rest() {
    let base = Base::new();
    let db = open_to_write(&base.path).unwrap();
    db.pragma_update(None, "max_page_count", 200).unwrap();
    let (store, _) = Store::on(db, &base.path, Limits::default()).unwrap();
    // Room is made as a user could make it: by another program that deletes rows.
    full(&store, || {
        Connection::open(&base.path).unwrap().execute("DELETE FROM event WHERE id < 50", []).unwrap();
    });
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_drops_events_and_refuses_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (at, none) = (folder.path(), None::<&str>);
    nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=3m"))
        .unwrap();
    let _mounted = Mounted(at.to_owned());
    let (store, _) = Store::open(&at.join("state.db")).unwrap();
    full(&store, || {
        let flags = nix::mount::MsFlags::MS_REMOUNT;
        nix::mount::mount(none, at, none, flags, Some("size=30m")).unwrap();
    });
}

#[test]
fn events_that_wait_for_the_disk_are_bounded() {
    let base = Base::new();
    let (store, _) = base.open_with(Limits { queued: 100, ..Limits::default() });
    // Another program writes for a while; the store waits for it.
    let mut other = Connection::open(&base.path).unwrap();
    let held = other.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    record(&store, (1..=250).map(|id| state(id, now(), "web", "running")));
    let refused = store.submit(Write::Event(Box::new(state(251, now(), "web", "running"))));
    assert!(matches!(wait(refused.done()), Err(StoreError::Write(_))));
    assert_eq!(store.lost_events(), 151);
    assert!(store.trouble().unwrap().contains("wait for the disk"));
    held.commit().unwrap();
    assert!(ids(&list(&store, all())).into_iter().eq(1..=100));
    record(&store, [state(252, now(), "web", "running")]);
    assert_eq!(list(&store, all()).len(), 101);
    assert_eq!((store.trouble(), store.lost_events()), (None, 151));
}

/// Says what an event costs; a figure, not a bound.
#[test]
fn ten_thousand_events_are_submitted_and_committed() {
    let base = Base::new();
    let (store, _) = base.open();
    let events: Vec<Write> = (1..=10_000)
        .map(|id| Write::Event(Box::new(verdict(id, now(), &format!("s{}", id % 1_000), "ok"))))
        .collect();
    let began = Instant::now();
    for event in events {
        let _ = store.submit(event);
    }
    let submitted = began.elapsed();
    list(&store, EventQuery { limit: 1, ..all() });
    let written = began.elapsed();
    let alone = Instant::now();
    wait(store.submit(Write::Event(Box::new(verdict(10_001, now(), "s1", "ok")))).done()).unwrap();
    println!(
        "10000 events: submit {:?} each, committed {:?} each ({:?} a batch of 1024); one alone {:?}",
        submitted / 10_000,
        written / 10_000,
        written * 1024 / 10_000,
        alone.elapsed()
    );
    assert_eq!((store.lost_events(), base.count("event")), (0, 10_001));
}
