//! The end of the threads, in order.

use super::*;

fn end(store: &Store) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(store.ended());
}

#[test]
fn an_end_in_order_keeps_all_and_takes_the_log_away() {
    let base = Base::new();
    let log = crate::store::damaged::with(&base.path, "-wal");
    for round in 1..3 {
        let (store, loaded) = base.open();
        register(&store, "web");
        store.note(Write::Event(Box::new(state(loaded.last_event + 1, now(), "web", "running"))));
        assert_eq!(list(&store, all()).len() as u64, round, "the second connection is open");
        assert!(log.exists());
        store.note(Write::Event(Box::new(state(loaded.last_event + 2, now(), "web", "failed"))));
        store.note(Write::Delete { name: "web".into() });
        end(&store);
        assert!(!log.exists(), "so the next daemon need not look for damage");
        assert_eq!((base.count("service"), base.count("event")), (0, loaded.last_event + 2));
        // Nobody is left waiting.
        assert!(matches!(wait(store.flush().done()), Err(StoreError::Gone)));
        end(&store);
        Connection::open(&base.path)
            .unwrap()
            .execute("DELETE FROM event WHERE status = 'failed'", [])
            .unwrap();
    }
}

#[test]
fn the_log_of_another_database_at_the_path_stays() {
    let base = Base::new();
    let log = crate::store::damaged::with(&base.path, "-wal");
    let (store, _) = base.open();
    register(&store, "web");
    for file in [&base.path, &log] {
        std::fs::remove_file(file).unwrap();
        std::fs::write(file, "another's").unwrap();
    }
    end(&store);
    assert_eq!(std::fs::read(&log).unwrap(), b"another's");
}
