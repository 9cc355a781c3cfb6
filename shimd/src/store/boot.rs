//! After a boot (`/proc/sys/kernel/random/boot_id` differs) no process, no kernel socket and no intent of before
//! means anything: they are void, in one transaction with the note of the new boot. What stays is the specs and
//! what was wanted: a service that rested as failed or ended is tried again.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// Notes the boot; true where it is another than the last daemon's. A store of a shimd that did not note it yet
/// tells its boot by any listener it saw.
pub(super) fn note(db: &mut Connection, boot_id: &str) -> rusqlite::Result<bool> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let noted = "SELECT value FROM meta WHERE key = 'boot'
                 UNION ALL SELECT boot_id FROM listener LIMIT 1";
    let before: Option<String> = tx.query_row(noted, [], |row| row.get(0)).optional()?;
    if before.as_deref() == Some(boot_id) {
        return Ok(false);
    }
    tx.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?1)", [boot_id])?;
    if before.is_some() {
        tx.execute_batch(
            "UPDATE service SET restart = NULL, rest = NULL, rest_reason = NULL;
             DELETE FROM instance;
             DELETE FROM listener;",
        )?;
    }
    tx.commit()?;
    Ok(before.is_some())
}
