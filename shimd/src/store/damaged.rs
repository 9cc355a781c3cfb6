//! A store that is damaged is set aside under a name with its date, and what can still be read of it is carried
//! over into a new one. Nothing of the old one is changed or removed: it lies beside, for whoever can do better.
//!
//! | what is found | what is done |
//! | --- | --- |
//! | no database, a page that is torn, a table that is missing, an empty file | set aside, carried over |
//! | the schema of a newer `shimd`, or one that is none | refused: the file may be well, and somebody else's |
//! | a disk that fails, is full or read-only, a file of another user | refused: nothing could be set aside |

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};

use super::{StoreError, load};

/// What is carried over, each with the order in which its rows lie.
const TABLES: [(&str, &str); 4] =
    [("service", "name"), ("instance", "service"), ("listener", "service"), ("event", "id")];

/// True where an error says that the file itself is damaged.
pub(super) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Damaged(_) => true,
        StoreError::Open { source: rusqlite::Error::SqliteFailure(e, _), .. }
        | StoreError::Sqlite(rusqlite::Error::SqliteFailure(e, _)) => {
            matches!(e.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        _ => false,
    }
}

/// An error of reading what this very schema has: a table, a column or a type that is not there is damage too.
pub(super) fn of_reading(error: rusqlite::Error) -> StoreError {
    use rusqlite::Error::*;
    match &error {
        // Unknown is SQLITE_ERROR: no such table, no such column.
        SqliteFailure(e, _) if e.code != ErrorCode::Unknown => error.into(),
        SqliteFailure(..)
        | SqlInputError { .. }
        | QueryReturnedNoRows
        | InvalidColumnType(..)
        | FromSqlConversionFailure(..)
        | IntegralValueOutOfRange(..) => StoreError::Damaged(error.to_string()),
        _ => error.into(),
    }
}

/// What is wrong with it, without what to do: that has been done.
pub(super) fn words(error: &StoreError) -> String {
    match error {
        StoreError::Open { source, .. } => source.to_string(),
        StoreError::Damaged(what) => what.clone(),
        other => other.to_string(),
    }
}

/// A database that exists and is empty: SQLite would take it for a new one, and drop what lies beside it.
pub(super) fn is_emptied(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == 0)
}

/// After an end that was not orderly (a write-ahead log lies there) every page is looked at once.
pub(super) fn check(db: &Connection) -> Result<(), StoreError> {
    let said: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if said == "ok" { Ok(()) } else { Err(StoreError::Damaged(said)) }
}

/// Moves the database and its log to names with the date; returns the database's. Both have two names before
/// either loses its first, so that a crash in between tears nothing.
///
/// # Errors
/// What the file system says; the first names are there still.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = link_aside(path, "damaged", true)?;
    for name in [with(path, "-wal"), with(path, "-shm"), path.to_owned()] {
        present(fs::remove_file(name))?;
    }
    sync_folder(path)?;
    Ok(aside)
}

/// Gives the database, and `its_log`, second names with the date and why they lie there; returns the database's.
///
/// # Errors
/// What the file system says.
pub(super) fn link_aside(path: &Path, why: &str, its_log: bool) -> io::Result<PathBuf> {
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
    let aside = (0..100)
        .map(|n| match n {
            0 => with(path, &format!(".{why}-{date}")),
            n => with(path, &format!(".{why}-{date}.{n}")),
        })
        .find_map(|aside| match fs::hard_link(path, &aside) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => None,
            done => Some(done.map(|()| aside)),
        })
        .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))?;
    if its_log {
        present(fs::hard_link(with(path, "-wal"), with(&aside, "-wal")))?;
    }
    sync_folder(path)?;
    Ok(aside)
}

/// Copies what can be read, all or nothing of it; says in words what came over.
pub(super) fn carry_over(from: &Path, into: &mut Connection) -> String {
    let carried = try_carry(from, into);
    // Made by the reading; it is no part of what was set aside.
    let _ = fs::remove_file(with(from, "-shm"));
    match carried {
        Ok(words) => words,
        Err(e) => format!("nothing of it can be read ({e})"),
    }
}

fn try_carry(from: &Path, into: &mut Connection) -> rusqlite::Result<String> {
    // Read-only: the old log stays beside its database, untouched.
    let old = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // Else SQLite reads nothing of a file that is shorter than its header says (lockBtree in btree.c).
    old.pragma_update(None, "writable_schema", true)?;
    old.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    let tx = into.transaction()?;
    let mut words = Vec::new();
    for (table, key) in TABLES {
        let whole = copy(&old, &tx, table, &format!("{key} ASC")).is_ok();
        if !whole {
            // From the other end, up to the torn page; what came already is passed over.
            let _ = copy(&old, &tx, table, &format!("{key} DESC"));
        }
        let rows: i64 = tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        words.push(format!("{rows} rows of {table}{}", if whole { "" } else { " (not all)" }));
    }
    // A schema before version 3 had one instance a service.
    tx.execute("UPDATE service SET current = generation WHERE current = 0", [])?;
    load::load(&tx)?;
    tx.commit()?;
    Ok(format!("carried over: {}", words.join(", ")))
}

fn copy(old: &Connection, new: &Connection, table: &str, order: &str) -> rusqlite::Result<()> {
    let mut query = old.prepare(&format!("SELECT * FROM {table} ORDER BY {order}"))?;
    let columns: Vec<String> = query.column_names().into_iter().map(str::to_owned).collect();
    let holes = vec!["?"; columns.len()].join(", ");
    let mut insert =
        new.prepare(&format!("INSERT OR IGNORE INTO {table} ({}) VALUES ({holes})", columns.join(", ")))?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let values: Vec<rusqlite::types::Value> =
            (0..columns.len()).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?;
        insert.execute(params_from_iter(values))?;
    }
    Ok(())
}

/// The path with something added to its last name.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// What is not there need not be moved.
pub(super) fn present(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
