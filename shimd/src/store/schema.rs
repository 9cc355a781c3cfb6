//! The tables of `state.db`, and how an older schema moves forward.
//!
//! ```text
//! meta      key, value                                    `schema`: the version below
//! service   name, spec_json (verbatim), want (up, down),  one row a registered service; generation counts
//!           restart (JSON or null), rest (ended, failed   its spawns; restart is the open intent
//!           or null), rest_reason, generation
//! instance  service, generation, identity (JSON: pid,     the live instance, from before its exec until
//!           start_ticks, pidfs_ino, boot_id), cgroup,     its tree is gone; spec_json is what it was
//!           spec_json, started (ns since 1970)            spawned with
//! listener  service, path, inode, cookie, boot_id         the kernel socket last seen ok at each path
//! ```

use rusqlite::Connection;

use super::StoreError;

/// The schema this daemon writes.
pub const VERSION: i64 = 1;

const V1: &str = "
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

/// Brings the schema to [`VERSION`], in one transaction. A newer one is refused: it may hold what this
/// daemon would lose.
pub fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let has_meta: bool =
        tx.query_row("SELECT count(*) FROM sqlite_master WHERE name = 'meta'", [], |r| r.get(0))?;
    if !has_meta {
        tx.execute_batch(V1)?;
        return Ok(tx.commit()?);
    }
    let text: String = tx.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |r| r.get(0))?;
    match text.parse::<i64>() {
        Ok(VERSION) => Ok(()),
        Ok(found) if found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
        _ => Err(StoreError::Schema { found: text }),
    }
}
