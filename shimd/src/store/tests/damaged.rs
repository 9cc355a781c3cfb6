//! A torn image of the database: never silently emptied, never changed, and the daemon comes up.

use std::fs;
use std::io::{Seek, SeekFrom, Write as _};

use super::*;

/// Two services and a history of some hundred pages, all in the database itself.
fn filled() -> Base {
    let base = Base::new();
    let (store, _) = base.open();
    register(&store, "db");
    register(&store, "web");
    record(&store, (1..=2_000).map(|id| state(id, now(), "web", "running")));
    list(&store, EventQuery { limit: 1, ..all() });
    drop(store);
    until("the log is taken into the database", || {
        let db = Connection::open(&base.path).unwrap();
        let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        busy == 0
    });
    base
}

fn overwrite(path: &Path, at: u64, with: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(with).unwrap();
}

fn asides(base: &Base) -> Vec<PathBuf> {
    let folder = fs::read_dir(base.path.parent().unwrap()).unwrap();
    let mut found: Vec<PathBuf> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.to_string_lossy().contains("damaged-") && !p.to_string_lossy().ends_with("-wal"))
        .collect();
    found.sort();
    found
}

/// Opens a damaged one: what lay there lies beside, to the byte; gives what was loaded.
fn opened_damaged(base: &Base) -> Loaded {
    let before = fs::read(&base.path).unwrap();
    let (store, loaded) = base.open();
    let aside = asides(base);
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::read(&aside[0]).unwrap(), before, "it is set aside as it was");
    let damage = loaded.damage.clone().unwrap();
    assert!(damage.contains(&aside[0].display().to_string()), "{damage}");
    register(&store, "new");
    assert!(base.count("service") > 0);
    drop(store);
    let again = base.open().1;
    assert!(again.damage.is_none() && again.services.contains_key("new"), "the new one is well");
    loaded
}

#[test]
fn rubbish_is_set_aside() {
    let base = filled();
    let length = fs::metadata(&base.path).unwrap().len() as usize;
    overwrite(&base.path, 0, &vec![0xa5; length]);
    let loaded = opened_damaged(&base);
    assert!(loaded.services.is_empty() && loaded.last_event == 0);
    assert!(loaded.damage.unwrap().contains("nothing of it can be read"));
}

#[test]
fn an_emptied_file_is_set_aside() {
    let base = filled();
    fs::File::create(&base.path).unwrap();
    assert!(opened_damaged(&base).services.is_empty());
}

#[test]
fn what_a_cut_off_image_still_holds_is_carried_over() {
    let base = filled();
    let length = fs::metadata(&base.path).unwrap().len();
    fs::OpenOptions::new().write(true).open(&base.path).unwrap().set_len(length / 2).unwrap();
    let loaded = opened_damaged(&base);
    assert_eq!(loaded.services.keys().collect::<Vec<_>>(), ["db", "web"], "{:?}", loaded.damage);
}

#[test]
fn a_missing_table_is_damage() {
    let base = filled();
    Connection::open(&base.path).unwrap().execute_batch("DROP TABLE instance").unwrap();
    let loaded = opened_damaged(&base);
    assert_eq!(loaded.services.len(), 2);
    assert_eq!(loaded.last_event, 2_000);
}

/// Each page in turn is torn, after an end that was not orderly: the store opens, the specs are there or it is
/// said that not all are.
#[test]
fn any_torn_page_is_survived() {
    let page = 4096;
    let pages = fs::metadata(&filled().path).unwrap().len() / page;
    let (mut noticed, mut whole) = (0, 0);
    for torn in (0..pages).filter(|p| *p < 16 || p % 16 == 0) {
        let base = filled();
        overwrite(&base.path, torn * page, &[0x5a; 4096]);
        fs::File::create(wal(&base.path)).unwrap();
        let (store, loaded) = base.open();
        noticed += usize::from(loaded.damage.is_some());
        let all_there = loaded.services.len() == 2;
        whole += usize::from(all_there);
        assert!(all_there || loaded.damage.is_some(), "page {torn}: silently emptied");
        register(&store, "new");
        drop(store);
        assert!(base.open().1.services.contains_key("new"), "page {torn}");
    }
    assert!(noticed > 0 && whole > noticed / 2, "{noticed} were noticed, of {whole} all specs came over");
}

/// A newer one is no damage: it is refused, and stays.
#[test]
fn a_newer_one_is_not_set_aside() {
    let base = filled();
    Connection::open(&base.path)
        .unwrap()
        .execute("UPDATE meta SET value = '99' WHERE key = 'schema'", [])
        .unwrap();
    assert!(matches!(Store::open(&base.path), Err(StoreError::Newer { found: 99, .. })));
    assert!(asides(&base).is_empty());
}
