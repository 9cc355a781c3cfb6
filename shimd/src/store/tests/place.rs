//! A database that is removed or replaced while it is open is written anew, whole.

use std::fs;

use super::*;

fn anew(store: &Store) {
    assert!(!store.is_in_place());
    store.write_anew();
    wait(store.flush().done()).unwrap();
    assert!(store.is_in_place());
    assert_eq!(store.trouble(), None);
}

#[test]
fn removed_with_its_folder() {
    let base = Base::new();
    let (store, _) = base.ageless();
    register(&store, "web");
    record(&store, [state(1, now(), "web", "running")]);
    assert_eq!(ids(&list(&store, all())), [1]);
    assert!(store.is_in_place());
    let folder = base.path.parent().unwrap();
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
    anew(&store);
    // Both threads go on with the new one.
    register(&store, "other");
    record(&store, [state(2, now(), "other", "running")]);
    assert_eq!(ids(&list(&store, all())), [1, 2]);
    assert_eq!((base.count("service"), base.count("event")), (2, 2), "as another program sees it");
    drop(store);
    let (_, loaded) = base.open();
    assert_eq!(loaded.services.len(), 2);
    assert_eq!(loaded.damage, None);
}

#[test]
fn its_log_removed() {
    let base = Base::new();
    let (store, _) = base.open();
    register(&store, "web");
    fs::remove_file(wal(&base.path)).unwrap();
    anew(&store);
    register(&store, "other");
    assert_eq!(base.count("service"), 2);
    let left: Vec<_> =
        fs::read_dir(base.path.parent().unwrap()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "the database, its log and its index: {left:?}");
}

/// The end of the old connections must not take the new one's log along: SQLite removes that by its name.
#[test]
fn the_new_log_stays() {
    let base = Base::new();
    let (store, _) = base.open();
    register(&store, "web");
    fs::remove_file(&base.path).unwrap();
    anew(&store);
    register(&store, "other");
    list(&store, all());
    assert!(store.is_in_place(), "the log is the one that is open");
    assert_eq!(base.count("service"), 2);
}

#[test]
fn replaced_by_an_older_one() {
    let base = Base::new();
    let (store, _) = base.open();
    register(&store, "web");
    let backup = base.path.with_extension("backup");
    let copy = Connection::open(&base.path).unwrap();
    copy.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    drop(copy);
    register(&store, "other");
    fs::rename(&backup, &base.path).unwrap();
    anew(&store);
    assert_eq!(base.count("service"), 2);
    let aside = fs::read_dir(base.path.parent().unwrap()).unwrap().flatten().map(|entry| entry.path());
    let aside = aside.into_iter().find(|path| path.to_string_lossy().contains(".replaced-")).unwrap();
    let old = Connection::open(aside).unwrap();
    let services: i64 = old.query_row("SELECT count(*) FROM service", [], |row| row.get(0)).unwrap();
    assert_eq!(services, 1, "what was put there is kept");
}

#[test]
fn what_cannot_be_written_is_told_and_tried_again() {
    let base = Base::new();
    let (store, _) = base.open();
    register(&store, "web");
    fs::remove_file(&base.path).unwrap();
    fs::create_dir(&base.path).unwrap();
    store.write_anew();
    wait(store.flush().done()).unwrap();
    assert!(store.trouble().unwrap().contains("cannot be written anew"));
    fs::remove_dir(&base.path).unwrap();
    anew(&store);
    assert_eq!(base.count("service"), 1);
}
