//! From version 1 forward, and what is refused.

use super::*;
use crate::core::machine::Want;
use crate::store::schema::{V1, V2, VERSION};

fn version(path: &Path) -> String {
    let db = Connection::open(path).unwrap();
    db.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |r| r.get(0)).unwrap()
}

/// A store as shimd 0.1 before the history wrote it.
fn version_1(base: &Base) {
    let db = Connection::open(&base.path).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
    db.execute_batch(V1).unwrap();
    db.execute_batch(
        r#"INSERT INTO service (name, spec_json, want, generation) VALUES ('web', '{"name": "web"}', 'up', 7);
           INSERT INTO instance VALUES ('web', 7, '{"pid": 1, "start_ticks": 2, "pidfs_ino": 3, "boot_id": "b"}',
               NULL, '{"name": "web"}', 5);
           INSERT INTO listener VALUES ('web', '/run/web.sock', 11, 12, 'b');"#,
    )
    .unwrap();
    // Its listener was seen in this boot: after another one, instances are void.
    db.execute("UPDATE listener SET boot_id = ?1", [boot_id()]).unwrap();
}

#[test]
fn a_store_of_version_1_keeps_its_services_and_gains_a_history() {
    let base = Base::new();
    version_1(&base);
    for _ in 0..2 {
        let (store, loaded) = base.open();
        let web = loaded.services.get("web").unwrap();
        assert_eq!(web.spec_json, r#"{"name": "web"}"#);
        assert_eq!((web.durable.want, web.generation), (Want::Up, 7));
        assert_eq!(web.instances.iter().map(|i| i.generation).collect::<Vec<_>>(), [7]);
        assert_eq!(web.current, 7);
        assert_eq!(web.listeners.first().unwrap().cookie, 12);
        record(&store, [state(loaded.last_event + 1, now(), "web", "running")]);
        assert_eq!(list(&store, all()).len() as u64, loaded.last_event + 1);
    }
    assert_eq!(version(&base.path), VERSION.to_string());
}

#[test]
fn a_store_of_version_2_keeps_its_instance_and_takes_a_second_one() {
    let base = Base::new();
    version_1(&base);
    Connection::open(&base.path).unwrap().execute_batch(V2).unwrap();
    let (store, loaded) = base.open();
    let mut record = loaded.services.get("web").unwrap().instances.first().unwrap().clone();
    record.generation = 8;
    let second = Write::Instance { name: "web".into(), record: Box::new(record.clone()), beside: true };
    wait(store.submit(second).done()).unwrap();
    let seen = || {
        let web = base.open().1.services.remove("web").unwrap();
        (web.current, web.generation, web.instances.iter().map(|i| i.generation).collect::<Vec<_>>())
    };
    assert_eq!(seen(), (7, 8, vec![7, 8]));
    let durable = loaded.services.get("web").unwrap().durable;
    let swap = Write::Intent { name: "web".into(), durable, rest_reason: None, current: 8 };
    wait(store.submit(swap).done()).unwrap();
    assert_eq!(seen(), (8, 8, vec![7, 8]));
    wait(store.submit(Write::InstanceGone { name: "web".into(), generation: 7 }).done()).unwrap();
    assert_eq!(seen(), (8, 8, vec![8]));
    // A plain one stands alone.
    record.generation = 9;
    let plain = Write::Instance { name: "web".into(), record: Box::new(record), beside: false };
    wait(store.submit(plain).done()).unwrap();
    assert_eq!(seen(), (9, 9, vec![9]));
}

#[test]
fn a_migration_that_is_torn_leaves_version_1() {
    let base = Base::new();
    version_1(&base);
    // What version 2 makes is there already: its step fails after the table, and takes the table back.
    Connection::open(&base.path).unwrap().execute_batch("CREATE TABLE history (x)").unwrap();
    assert!(matches!(Store::open(&base.path), Err(StoreError::Sqlite(_))));
    assert_eq!(version(&base.path), "1");
    assert_eq!(base.count("sqlite_master WHERE name = 'event'"), 0);
    assert_eq!(base.count("service"), 1);
}

#[test]
fn a_newer_store_and_a_strange_one_are_refused() {
    for (written, newer) in [("5", true), ("0", false), ("-1", false), ("two", false)] {
        let base = Base::new();
        drop(base.open());
        let db = Connection::open(&base.path).unwrap();
        db.execute("UPDATE meta SET value = ?1", [written]).unwrap();
        for refused in [Store::open(&base.path).map(drop), look(&base.path).map(drop)] {
            match refused {
                Err(StoreError::Newer { found: 5, known: VERSION, .. }) => assert!(newer),
                Err(StoreError::Schema { found, .. }) => assert!(!newer && found == written),
                other => panic!("{written}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_look_reads_every_version_and_changes_none() {
    let base = Base::new();
    assert_eq!(look(&base.path).unwrap(), Look::default());
    assert!(!base.path.exists());
    version_1(&base);
    let db = Connection::open(&base.path).unwrap();
    db.execute("UPDATE listener SET boot_id = ?1", [crate::sys::identity::boot_id()]).unwrap();
    let seen = Look { services: 1, listeners: [11].into() };
    assert_eq!(look(&base.path).unwrap(), seen);
    assert_eq!(version(&base.path), "1");
    let (store, _) = base.open();
    assert_eq!(look(&base.path).unwrap(), seen, "while another has it open");
    drop(store);
    std::fs::write(&base.path, [0x5a; 8192]).unwrap();
    assert!(matches!(look(&base.path), Err(StoreError::Open { .. })), "no database at all");
}

#[test]
fn every_table_view_and_column_is_documented() {
    const DOCS: &str = include_str!("../../../../docs/store.md");
    let base = Base::new();
    drop(base.open());
    let db = Connection::open(&base.path).unwrap();
    let columns = "SELECT m.name, c.name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c
        WHERE m.type IN ('table', 'view')";
    let mut query = db.prepare(columns).unwrap();
    let rows = query.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?))).unwrap();
    let mut seen = 0;
    for (table, column) in rows.map(Result::unwrap) {
        // `events` says that its columns are those of `event`.
        let table = if table == "events" && column != "lasted_ms" { "event".into() } else { table };
        let (_, section) = DOCS.split_once(&format!("\n`{table}`: ")).expect(&table);
        let section = section.split("\n`").next().unwrap();
        assert!(section.contains(&format!("`{column}`")), "{table}.{column} is not in docs/store.md");
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
    assert!(DOCS.contains(&format!("the version of all this: {VERSION}.")));
}
