//! Another boot.

use super::*;

#[test]
fn after_a_boot_instances_and_intents_are_void_and_what_was_wanted_stays() {
    let base = Base::new();
    let (store, loaded) = base.open();
    assert!(!loaded.rebooted, "a new store has seen no boot");
    register(&store, "web");
    drop(store);
    let change = |sql: &str| Connection::open(&base.path).unwrap().execute_batch(sql).unwrap();
    change(
        r#"UPDATE service SET want = 'up', rest = 'failed', rest_reason = 'x', generation = 7, current = 7,
               restart = '{"clean": true, "attempt": 1, "leaving": true}';
           INSERT INTO instance (service, generation, identity, cgroup, spec_json, started) VALUES
               ('web', 7, '{"pid": 1, "start_ticks": 2, "pidfs_ino": 3, "boot_id": "b"}', NULL, '{}', 5);
           INSERT INTO listener VALUES ('web', '/run/web/rpc.sock', 1, 2, 'b');"#,
    );
    let web = |loaded: Loaded| loaded.services.into_iter().next().unwrap().1;
    let (_, loaded) = base.open();
    assert!(!loaded.rebooted);
    let same = web(loaded);
    assert!(same.durable.restart.is_some() && same.durable.rest.is_some() && same.instances.len() == 1);

    change("UPDATE meta SET value = 'an earlier boot' WHERE key = 'boot'");
    let (_, loaded) = base.open();
    assert!(loaded.rebooted);
    let after = web(loaded);
    assert!(after.durable.restart.is_none() && after.durable.rest.is_none() && after.rest_reason.is_none());
    assert!(after.instances.is_empty() && after.listeners.is_empty());
    assert!(after.durable.want == crate::core::machine::Want::Up && after.generation == 7);
    assert!(!base.open().1.rebooted, "once");

    // A store of a shimd that did not note the boot.
    change("DELETE FROM meta WHERE key = 'boot'; INSERT INTO listener VALUES ('web', '/x', 1, 2, 'b')");
    assert!(base.open().1.rebooted);
}
