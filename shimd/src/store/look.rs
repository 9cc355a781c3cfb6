//! A look at a store that another daemon has open: whether this daemon could open it. Nothing is written.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, configure, load, schema};
use crate::sys::identity::boot_id;

/// What a daemon that is about to take over wants to know.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// How many services are registered.
    pub services: usize,
    /// The kernel sockets, by inode, that were last seen `ok` in this boot.
    pub listeners: BTreeSet<u64>,
}

/// Looks whether a store can be read, and is of a version that this daemon knows. One that is missing will be made.
///
/// # Errors
/// [`StoreError`], as [`Store::open`](super::Store::open) would give it.
pub fn look(path: &Path) -> Result<Look, StoreError> {
    if !path.exists() {
        return Ok(Look::default());
    }
    let failed = |source| StoreError::Open { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    configure(&db).map_err(failed)?;
    match schema::version(&db, path)? {
        0 => Ok(Look::default()),
        schema::VERSION => {
            let loaded = load::load(&db).map_err(failed)?;
            let known = loaded.services.values().flat_map(|service| &service.listeners);
            let listeners = known.filter(|l| l.boot_id == boot_id()).map(|l| l.inode).collect();
            Ok(Look { services: loaded.services.len(), listeners })
        }
        // Its tables are not yet as they will be.
        _ => {
            let services: i64 =
                db.query_row("SELECT count(*) FROM service", [], |row| row.get(0)).map_err(failed)?;
            let mut query = db.prepare("SELECT inode FROM listener WHERE boot_id = ?1").map_err(failed)?;
            let rows = query.query_map([boot_id()], |row| row.get::<_, i64>(0)).map_err(failed)?;
            let listeners = rows.map(|inode| Ok(inode?.cast_unsigned())).collect::<Result<_, _>>();
            Ok(Look { services: services.unsigned_abs() as usize, listeners: listeners.map_err(failed)? })
        }
    }
}
