//! Where the store's files lie. SQLite goes on with files that have lost their names, and the next daemon would find nothing: so
//! the database is written anew when it, or its log, is no longer what lies at the path.
//!
//! | step | a crash after it leaves |
//! | --- | --- |
//! | a whole copy beside (`VACUUM INTO`), synced | the copy, which the next attempt removes |
//! | what another has put at the path gets a second name, and so does its log | the other's |
//! | the copy is renamed to the path | a whole store |
//! | it is opened, and the old one closed, without touching the log that lies there now | |

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{StoreError, damaged, open_to_write};

/// Device and inode of a file.
pub(super) type Id = (u64, u64);
/// The database and its log.
type Files = (Option<Id>, Option<Id>);

/// The files that are open, and why they have no place.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    files: Mutex<Files>,
    trouble: Mutex<Option<String>>,
}

impl Place {
    /// Of a database that was just opened and read.
    pub fn of(path: &Path) -> Place {
        Place { path: path.to_owned(), files: Mutex::new(files_at(path)), trouble: Mutex::new(None) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database that is open: another one after it was written anew.
    pub fn database(&self) -> Option<Id> {
        self.files().0
    }

    fn files(&self) -> Files {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is open still lies at the path.
    pub fn is_in_place(&self) -> bool {
        self.files() == files_at(&self.path)
    }

    /// Why it could not be written anew.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes it anew, and goes on with that. What cannot be done is said, and tried again when asked to.
    pub fn write_anew(&self, db: &mut Connection) {
        if self.is_in_place() {
            return;
        }
        let done = self.try_anew(db);
        let path = self.path.display();
        let told = match &done {
            Ok(None) => {
                tracing::warn!("{path} was removed: written anew, nothing is lost");
                None
            }
            Ok(Some(aside)) => {
                tracing::warn!(
                    "{path} was replaced by another file, which is now {}: written anew",
                    aside.display()
                );
                None
            }
            Err(e) => {
                let told = format!(
                    "{path} was removed or replaced, and cannot be written anew: {e}; what is registered now is lost with this daemon"
                );
                // It is tried each period, and said once.
                if self.trouble().as_ref() != Some(&told) {
                    tracing::error!("{told}");
                }
                Some(told)
            }
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    fn try_anew(&self, db: &mut Connection) -> Result<Option<PathBuf>, StoreError> {
        let refused = |e: io::Error| StoreError::Write(e.to_string());
        let beside = damaged::with(&self.path, ".anew");
        for file in [&beside, &damaged::with(&beside, "-journal")] {
            damaged::present(fs::remove_file(file)).map_err(refused)?;
        }
        db.execute("VACUUM INTO ?1", [beside.to_string_lossy()])?;
        File::open(&beside).and_then(|file| file.sync_all()).map_err(refused)?;
        let (ours, there) = (self.files(), files_at(&self.path));
        let aside = match there.0 != ours.0 && there.0.is_some() {
            // Our log may lie there still.
            true => Some(damaged::link_aside(&self.path, "replaced", there.1 != ours.1).map_err(refused)?),
            false => None,
        };
        for end in ["-wal", "-shm"] {
            damaged::present(fs::remove_file(damaged::with(&self.path, end))).map_err(refused)?;
        }
        fs::rename(&beside, &self.path).map_err(refused)?;
        damaged::sync_folder(&self.path).map_err(refused)?;
        let new = open_to_write(&self.path)?;
        // Makes the log.
        new.query_row("SELECT count(*) FROM service", [], |_| Ok(()))?;
        leave_the_log(db)?;
        *db = new;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files_at(&self.path);
        Ok(aside)
    }
}

/// The connection's end removes no log: SQLite does that by name, and what lies there may be another's.
pub(super) fn leave_the_log(db: &Connection) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

fn files_at(path: &Path) -> Files {
    let id = |path: &Path| fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()));
    (id(path), id(&damaged::with(path, "-wal")))
}
