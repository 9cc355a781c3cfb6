//! The store: specs, intents, instances and the history in SQLite (`state.db`, WAL).
//!
//! One thread owns the connection that writes, off the reactor. It takes what has queued up, writes it in one
//! transaction and then answers: a thousand starts are a handful of commits. A spec is synced to disk
//! (`synchronous=FULL`, survives a power cut); the rest only to the WAL (`NORMAL`, survives SIGKILL): after
//! a boot, instances and intents are void anyway.
//!
//! No event is waited for where it is made, and a disk that is full or too slow may lose some: see [`Store::lost_events`]. A
//! command is answered once its events are kept: see [`Store::settled`].

mod boot;
mod damaged;
mod event;
mod load;
mod look;
mod lost;
mod place;
mod prune;
mod queue;
mod schema;
#[cfg(test)]
mod tests;
mod thread;
mod write;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use shimd_api::event::EventRow;
use tokio::sync::oneshot;

pub use event::{EventQuery, EventRecord, LastState, LastVerdict};
pub use load::{Loaded, ServiceRecord};
pub use look::{Look, look};
pub use lost::QUEUED;
pub use prune::{AGE, EVENTS};
pub use write::{InstanceRecord, ListenerRecord, Write};

use crate::sys::identity::boot_id;
use crate::sys::schedule;
use lost::Lost;
use place::Place;
use prune::{Limits, Pruner};
use queue::Submitter;
use thread::{Answer, Job, Writer};

/// How long an answer, or the daemon's end, waits for the last events: as long as SQLite waits for another program's lock. A
/// disk that hangs longer holds up nobody who does not need it.
pub const FLUSH: Duration = Duration::from_secs(2);

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("cannot open {}: {source}; check that the folder is writable and that the disk is not full", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// A newer daemon wrote it.
    #[error(
        "{} is of schema {found}, and this shimd knows {known} at most: a newer shimd wrote it; run that one, or point SHIMD_HOME elsewhere", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// In the file.
        found: i64,
        /// This daemon's.
        known: i64,
    },
    /// Not a schema version.
    #[error("the schema of {} reads {found:?}: the file is not shimd's, or it is damaged; move it aside", path.display())]
    Schema {
        /// The database.
        path: PathBuf,
        /// In the file.
        found: String,
    },
    /// A page of it is torn; `PRAGMA quick_check`'s words.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It is damaged, and cannot be moved out of the way.
    #[error(
        "{} is damaged ({damage}) and cannot be set aside: {source}; move it away by hand, with its -wal file, and start shimd again", path.display()
    )]
    Aside {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        damage: String,
        /// What the file system says.
        source: std::io::Error,
    },
    /// A write was refused; nothing of it was kept.
    #[error("{0}; nothing was changed: free disk space or make the folder writable, then say it again")]
    Write(String),
    /// The history could not be read.
    #[error("cannot read the history in {}: {source}; ask again, and where that does not help see that the disk is well", path.display())]
    Read {
        /// The database.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// SQLite's answer to anything else.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The store's thread is gone.
    #[error("the store has shut down")]
    Gone,
}

/// A handle on the store's threads. Cheap to clone; the threads end with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: Arc<Submitter>,
    lost: Arc<Lost>,
    place: Arc<Place>,
    /// How many events may wait.
    queued: usize,
}

/// A write that is under way. Dropping it does not stop the write.
#[derive(Debug)]
#[must_use = "an action that a crash could tear waits for this"]
pub struct Ack(oneshot::Receiver<Answer>);

impl Ack {
    /// Waits until the write is in the store.
    pub async fn done(self) -> Answer {
        self.0.await.unwrap_or(Err(StoreError::Gone))
    }
}

impl Store {
    /// Opens the database, brings its schema forward, voids what a boot has ended, reads what a daemon needs and
    /// starts the store's threads. A damaged one is set aside first, and what can be read of it carried over:
    /// [`Loaded::damage`] says so.
    ///
    /// # Errors
    /// A newer schema, one that is none, and whatever the file system refuses: nothing was changed then.
    pub fn open(path: &Path) -> Result<(Store, Loaded), StoreError> {
        let limits = Limits::default();
        let damage = match open_well(path) {
            Ok(db) => match Self::on(db, path, limits) {
                Err(e) if damaged::is_damage(&e) => damaged::words(&e),
                result => return result,
            },
            Err(e) if damaged::is_damage(&e) => damaged::words(&e),
            Err(e) => return Err(e),
        };
        let aside = damaged::set_aside(path).map_err(|source| StoreError::Aside {
            path: path.to_owned(),
            damage: damage.clone(),
            source,
        })?;
        let mut db = opened(path)?;
        schema::migrate(&mut db, path)?;
        let carried = damaged::carry_over(&aside, &mut db);
        let (store, mut loaded) = Self::on(db, path, limits)?;
        let (path, aside) = (path.display(), aside.display());
        loaded.damage =
            Some(format!("{path} was damaged ({damage}); it was set aside as {aside}; {carried}"));
        Ok((store, loaded))
    }

    fn on(mut db: Connection, path: &Path, limits: Limits) -> Result<(Store, Loaded), StoreError> {
        schema::migrate(&mut db, path)?;
        let rebooted = boot::note(&mut db, boot_id()).map_err(damaged::of_reading)?;
        let loaded = Loaded { rebooted, ..load::load(&db).map_err(damaged::of_reading)? };
        let lost = Arc::new(Lost::default());
        let (jobs, queue) = queue::queue();
        let (questions, asked) = mpsc::channel();
        let place = Arc::new(Place::of(path));
        let read = place.clone();
        let reader = start("store-read", move || thread::answer(&read, &asked))?;
        let pruner = Pruner::new(limits);
        let writer = Writer { db, lost: lost.clone(), place: place.clone(), pruner, questions, reader };
        start("store", move || writer.run(&queue))?;
        Ok((Store { jobs: Arc::new(jobs), lost, place, queued: limits.queued }, loaded))
    }

    /// Queues a write. Writes are kept in the order in which they were submitted; only where the disk refuses
    /// some do events come after what services need.
    pub fn submit(&self, write: Write) -> Ack {
        let (tx, rx) = oneshot::channel();
        self.queue(write, Some(tx), true);
        Ack(rx)
    }

    /// As [`submit`](Store::submit), of what is followed at once by another write that is waited for: both are one commit.
    pub fn submit_with_the_next(&self, write: Write) -> Ack {
        let (tx, rx) = oneshot::channel();
        self.queue(write, Some(tx), false);
        Ack(rx)
    }

    /// Queues a write for which nobody waits, in the order of all writes: it is in the store some milliseconds later, or with
    /// the next that somebody waits for.
    pub fn note(&self, write: Write) {
        self.queue(write, None, false);
    }

    fn queue(&self, write: Write, answer: Option<oneshot::Sender<Answer>>, hurried: bool) {
        if !write.is_history() || self.lost.enter(self.queued) {
            // A thread that is gone drops the sender, and the Ack says so.
            return self.jobs.push(Job::Write { write, answer, hurried });
        }
        let why = format!("{} events wait for the disk already", self.queued);
        self.lost.add(1, &why);
        if let Some(answer) = answer {
            let _ = answer.send(Err(StoreError::Write(why)));
        }
    }

    /// Done when all that was submitted before is written, or refused, or when [`FLUSH`] is over: for an answer that is not to be
    /// given before, and for a daemon that ends.
    pub async fn settled(&self) {
        // What the disk refused was counted, and is told by `trouble`; a thread that is gone writes nothing more.
        let _ = tokio::time::timeout(FLUSH, self.flush().done()).await;
    }

    /// Done when all that was submitted before is written, or refused, and the database is closed; or when [`FLUSH`] is over. What
    /// is submitted later is lost.
    pub async fn ended(&self) {
        let (tx, rx) = oneshot::channel();
        self.jobs.push(Job::End(tx));
        let _ = tokio::time::timeout(FLUSH, rx).await;
    }

    /// Done when all that was submitted before is written, or refused. It ends the events' wait for company.
    pub fn flush(&self) -> Ack {
        let (tx, rx) = oneshot::channel();
        self.jobs.push(Job::Flush(tx));
        Ack(rx)
    }

    /// Asks for events; the question is put at once, whenever the answer is waited for. Every event that was
    /// submitted before is seen, unless it was lost.
    pub fn events(
        &self,
        query: EventQuery,
    ) -> impl Future<Output = Result<Vec<EventRow>, StoreError>> + Send + use<> {
        let (tx, rx) = oneshot::channel();
        self.jobs.push(Job::Read((query, tx)));
        async { rx.await.unwrap_or(Err(StoreError::Gone)) }
    }

    /// Whether the files that are open are still those at their path: two lstat(2).
    pub fn is_in_place(&self) -> bool {
        self.place.is_in_place()
    }

    /// Has the database written anew at its path, from what is open. Only for who holds the home's lock. What fails is told
    /// by [`trouble`](Store::trouble).
    pub fn write_anew(&self) {
        // A thread that is gone writes nothing more.
        self.jobs.push(Job::Anew);
    }

    /// How many events could not be kept since the store was opened.
    pub fn lost_events(&self) -> u64 {
        self.lost.count()
    }

    /// For `shim.info`: that the store or some events are being lost, and why; `None` once they are kept again.
    pub fn trouble(&self) -> Option<String> {
        self.place.trouble().or_else(|| self.lost.trouble())
    }
}

/// The database, each page of which was looked at if the last daemon did not end in order.
fn open_well(path: &Path) -> Result<Connection, StoreError> {
    if damaged::is_emptied(path) {
        return Err(StoreError::Damaged("the file is empty".into()));
    }
    let torn = damaged::with(path, "-wal").exists();
    let db = opened(path)?;
    if torn {
        damaged::check(&db)?;
    }
    Ok(db)
}

fn opened(path: &Path) -> Result<Connection, StoreError> {
    open_to_write(path).map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

fn open_to_write(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    configure(&db)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    // The WAL can grow while somebody reads for long; it need not stay so large.
    db.pragma_update(None, "journal_size_limit", 4 << 20)?;
    Ok(db)
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(FLUSH)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // A thousand services are some hundred KiB: the page cache need not be SQLite's 2 MiB.
    db.pragma_update(None, "cache_size", -256)
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name(name.into()).stack_size(256 * 1024);
    thread
        .spawn(move || {
            schedule::soon();
            work();
        })
        .map_err(|e| StoreError::Write(format!("cannot start the store's thread: {e}")))
}
