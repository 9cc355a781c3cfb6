//! The tables and views of `state.db`, and how an older schema moves forward. For people: `docs/store.md`.
//!
//! ```text
//! meta      key, value                                    `schema`: the version below; `boot`: the boot id of
//!                                                         the last daemon
//! service   name, spec_json (verbatim), want (up, down),  one row a registered service; generation counts
//!           restart (JSON or null), rest (ended, failed   its spawns; restart is the open intent
//!           or null), rest_reason, generation, current    its spawns; restart is the open intent; current
//!                                                         (since version 3) is the service's own instance
//! instance  service, generation, identity (JSON: pid,     a live instance, from before its exec until its
//!           start_ticks, pidfs_ino, boot_id), cgroup,     tree is gone; spec_json is what it was spawned
//!           spec_json, started (ns since 1970)            with. Two during a gapless restart, since version 3;
//!                                                         begun (since version 4): it was let go
//! listener  service, path, inode, cookie, boot_id         the kernel socket last seen ok at each path
//! event     id, time (ns since 1970), service, kind,      what happened, as shimd_api::event says; since
//!           socket, path, verdict, status, was, lasted    version 2
//!           (ns), reason, pid, culprit_pid, _name,
//!           _exe, _uid
//! history   (a view) one row a spell of a verdict         since version 2
//! events    (a view) event, its time as text              since version 2
//! ```

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// The schema this daemon writes.
pub const VERSION: i64 = STEPS.len() as i64;

/// From nothing to version 1, from 1 to 2, and so on. What was released is never edited.
const STEPS: [&str; 4] = [V1, V2, V3, V4];

pub(super) const V1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE service (
    name TEXT PRIMARY KEY, spec_json TEXT NOT NULL, want TEXT NOT NULL DEFAULT 'down',
    restart TEXT, rest TEXT, rest_reason TEXT, generation INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE instance (
    service TEXT PRIMARY KEY, generation INTEGER NOT NULL, identity TEXT NOT NULL, cgroup TEXT,
    spec_json TEXT NOT NULL, started INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE listener (
    service TEXT NOT NULL, path TEXT NOT NULL, inode INTEGER NOT NULL, cookie INTEGER NOT NULL,
    boot_id TEXT NOT NULL, PRIMARY KEY (service, path)
) WITHOUT ROWID;
INSERT INTO meta VALUES ('schema', '1');
";

// The index of a socket's verdicts serves the window of `history`, the verdicts that are loaded at the start,
// and the pruning, which spares the newest of them. Times are cut to whole milliseconds before SQLite gets
// them, which rounds; lengths keep their microseconds: a dentry that is put back was away for less than one.
pub(super) const V2: &str = "
CREATE TABLE event (
    id INTEGER PRIMARY KEY, time INTEGER NOT NULL, service TEXT, kind TEXT NOT NULL, socket TEXT, path TEXT,
    verdict TEXT, status TEXT, was TEXT, lasted INTEGER, reason TEXT, pid INTEGER,
    culprit_pid INTEGER, culprit_name TEXT, culprit_exe TEXT, culprit_uid INTEGER
);
CREATE INDEX event_time ON event (time);
CREATE INDEX event_service ON event (service, time);
CREATE INDEX event_socket ON event (service, path, id) WHERE kind = 'verdict';
CREATE VIEW history AS
    SELECT service, socket, path, verdict,
        strftime('%Y-%m-%dT%H:%M:%fZ', time / 1000000 / 1000.0, 'unixepoch') AS began,
        strftime('%Y-%m-%dT%H:%M:%fZ', until / 1000000 / 1000.0, 'unixepoch') AS ended,
        (until - time) / 1000 / 1000.0 AS lasted_ms,
        reason, culprit_name, culprit_pid, culprit_exe, culprit_uid
    FROM (
        SELECT *, lead(time) OVER (PARTITION BY service, path ORDER BY id) AS until
        FROM event WHERE kind = 'verdict'
    )
    ORDER BY id;
CREATE VIEW events AS
    SELECT id, strftime('%Y-%m-%dT%H:%M:%fZ', time / 1000000 / 1000.0, 'unixepoch') AS time,
        service, kind, socket, path, verdict, status, was, lasted / 1000 / 1000.0 AS lasted_ms, reason, pid,
        culprit_name, culprit_pid, culprit_exe, culprit_uid
    FROM event
    ORDER BY id;
UPDATE meta SET value = '2' WHERE key = 'schema';
";

// A gapless restart has two instances for a while.
const V3: &str = "
ALTER TABLE instance RENAME TO single;
CREATE TABLE instance (
    service TEXT NOT NULL, generation INTEGER NOT NULL, identity TEXT NOT NULL, cgroup TEXT,
    spec_json TEXT NOT NULL, started INTEGER NOT NULL, PRIMARY KEY (service, generation)
) WITHOUT ROWID;
INSERT INTO instance SELECT service, generation, identity, cgroup, spec_json, started FROM single;
DROP TABLE single;
ALTER TABLE service ADD COLUMN current INTEGER NOT NULL DEFAULT 0;
UPDATE service SET current = coalesce((SELECT generation FROM instance WHERE service = name), generation);
UPDATE meta SET value = '3' WHERE key = 'schema';
";

// A daemon may die between the record of an instance and its exec.
const V4: &str = "
ALTER TABLE instance ADD COLUMN begun INTEGER NOT NULL DEFAULT 1;
UPDATE meta SET value = '4' WHERE key = 'schema';
";

/// Brings the schema to [`VERSION`], in one transaction. A newer one is refused: it may hold what this
/// daemon would lose.
pub fn migrate(db: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let done = version(&tx, path)?.unsigned_abs() as usize;
    for step in STEPS.iter().skip(done) {
        tx.execute_batch(step)?;
    }
    Ok(tx.commit()?)
}

/// The version of a database's schema, 0 for an empty one; an error for one that this daemon does not know.
pub fn version(db: &Connection, path: &Path) -> Result<i64, StoreError> {
    let meta = "SELECT count(*) FROM sqlite_master WHERE name = 'meta'";
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let has_meta: bool = db.query_row(meta, [], |r| r.get(0)).map_err(failed)?;
    if !has_meta {
        return Ok(0);
    }
    let text: String =
        db.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |r| r.get(0)).map_err(failed)?;
    match text.parse::<i64>() {
        Ok(found) if found > VERSION => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION })
        }
        Ok(found) if found >= 1 => Ok(found),
        _ => Err(StoreError::Schema { path: path.to_owned(), found: text }),
    }
}
