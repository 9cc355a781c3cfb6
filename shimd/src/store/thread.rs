//! The store's two threads.
//!
//! The first owns the connection that writes. It takes all that has queued up into one transaction. Where
//! that fails, each write gets its own, so that one bad write cannot take others down with it; the events
//! among them share one, and are dropped where it fails too.
//!
//! The second reads the history on a connection of its own, so that a list of 100,000 events does not hold up
//! the intent of a restart: in WAL mode, neither waits for the other. A query goes through the first thread's
//! queue, and is passed on once what came before it is committed: it sees all of that.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use shimd_api::event::EventRow;
use tokio::sync::oneshot;

use super::StoreError;
use super::event::{self, EventQuery};
use super::lost::Lost;
use super::place::{Place, leave_the_log};
use super::prune::{Pruner, STEP};
use super::queue::Taker;
use super::write::{Write, apply};

pub(super) type Answer = Result<(), StoreError>;
pub(super) type Rows = Result<Vec<EventRow>, StoreError>;
pub(super) type Question = (EventQuery, oneshot::Sender<Rows>);

#[derive(Debug)]
pub(super) enum Job {
    Write {
        write: Write,
        /// Who is told.
        answer: Option<oneshot::Sender<Answer>>,
        /// It waits for no company.
        hurried: bool,
    },
    Read(Question),
    Flush(oneshot::Sender<Answer>),
    /// The database has lost its place.
    Anew,
    /// The last of all.
    End(oneshot::Sender<Answer>),
}

impl Job {
    /// It can wait a little for what is written with it.
    pub fn is_unhurried(&self) -> bool {
        matches!(self, Job::Write { hurried: false, .. })
    }
}

/// What the first thread owns.
pub(super) struct Writer {
    pub db: Connection,
    pub lost: Arc<Lost>,
    pub place: Arc<Place>,
    pub pruner: Pruner,
    pub questions: mpsc::Sender<Question>,
    /// The second thread.
    pub reader: JoinHandle<()>,
}

impl Writer {
    /// Works until it is told to end, or nobody can submit any more, and all is written.
    pub fn run(mut self, queue: &Taker) {
        let end = loop {
            let Some(jobs) = queue.take(self.pruner.is_due()) else { break None };
            if let Some(end) = self.work(jobs) {
                break Some(end);
            }
        };
        self.close();
        if let Some(told) = end {
            let _ = told.send(Ok(()));
        }
    }

    /// Closes the database. The last connection takes the log with it: so the next daemon sees that this one ended in order.
    fn close(self) {
        let Writer { db, questions, reader, place, .. } = self;
        drop(questions);
        // It has panicked: its connection is closed all the same.
        let _ = reader.join();
        if !place.is_in_place() {
            // What lies there is another's.
            let _ = leave_the_log(&db);
        }
        if let Err((_, e)) = db.close() {
            tracing::warn!("state.db is not closed in order: {e}");
        }
    }

    /// Gives who waits for the end, if this was it.
    fn work(&mut self, jobs: Vec<Job>) -> Option<oneshot::Sender<Answer>> {
        let mut end = None;
        let (mut writes, mut answers) = (Vec::new(), Vec::new());
        let (mut reads, mut flushes) = (Vec::new(), Vec::new());
        let mut anew = false;
        for job in jobs {
            match job {
                Job::Anew => anew = true,
                Job::End(told) => end = Some(told),
                Job::Write { write, answer, .. } => {
                    writes.push(write);
                    answers.push(answer);
                }
                Job::Read(question) => reads.push(question),
                Job::Flush(answer) => flushes.push(answer),
            }
        }
        if anew {
            self.place.write_anew(&mut self.db);
        }
        let events = writes.iter().filter(|w| w.is_history()).count();
        for (result, answer) in self.write(&writes).into_iter().zip(answers) {
            if let Some(answer) = answer {
                let _ = answer.send(result.map_err(StoreError::Write));
            }
        }
        for answer in flushes {
            let _ = answer.send(Ok(()));
        }
        self.lost.leave(events);
        for question in reads {
            // Where the other thread is gone this drops the sender, and who asked is told so.
            let _ = self.questions.send(question);
        }
        // As many steps as keep pace with what is written.
        for _ in 0..=events / STEP as usize {
            if let Err(e) = self.pruner.step(&mut self.db) {
                tracing::warn!("cannot prune the history in state.db: {e}");
            }
        }
        end
    }

    fn write(&mut self, writes: &[Write]) -> Vec<Kept> {
        let writes: Vec<&Write> = writes.iter().collect();
        let results = keep(&mut self.db, &writes);
        let history = writes.iter().zip(&results).filter(|(write, _)| write.is_history());
        let (mut kept, mut lost) = (0, 0);
        for (_, result) in history {
            match result {
                Ok(()) => kept += 1,
                Err(e) => {
                    lost += 1;
                    self.lost.add(1, e);
                }
            }
        }
        if kept > 0 {
            self.pruner.inserted(kept);
            if lost == 0 {
                self.lost.ended();
            }
        }
        results
    }
}

/// Whether a write is in the store; if not, SQLite's answer.
type Kept = Result<(), String>;

fn keep(db: &mut Connection, writes: &[&Write]) -> Vec<Kept> {
    if writes.is_empty() {
        return Vec::new();
    }
    let Err(e) = commit(db, writes) else { return vec![Ok(()); writes.len()] };
    let history: Vec<&Write> = writes.iter().copied().filter(|w| w.is_history()).collect();
    let alone = writes.len() == 1;
    let disk = e.sqlite_error_code() != Some(ErrorCode::ConstraintViolation);
    if alone || (disk && history.len() == writes.len()) {
        return vec![Err(format!("cannot write state.db: {e}")); writes.len()];
    }
    // What services need goes first: a disk may have room for that alone.
    let each = |db: &mut Connection, some: &[&Write]| some.iter().flat_map(|w| keep(db, &[w])).collect();
    let others: Vec<&Write> = writes.iter().copied().filter(|w| !w.is_history()).collect();
    let others: Vec<Kept> = each(db, &others);
    let history = if others.is_empty() { each(db, &history) } else { keep(db, &history) };
    let (mut others, mut history) = (others.into_iter(), history.into_iter());
    writes.iter().filter_map(|w| if w.is_history() { history.next() } else { others.next() }).collect()
}

fn commit(db: &mut Connection, writes: &[&Write]) -> rusqlite::Result<()> {
    let synced = writes.iter().any(|w| w.synced());
    db.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for write in writes {
        apply(&tx, write)?;
    }
    tx.commit()
}

/// The second thread. It opens its connection at once, so that it needs no descriptor when these are short, and anew after
/// an error, and when the database was written anew.
pub(super) fn answer(place: &Place, questions: &mpsc::Receiver<Question>) {
    let path = place.path();
    let mut of = place.database();
    let mut kept: Option<Connection> = open_to_read(path).ok();
    while let Ok((query, rows)) = questions.recv() {
        let now = place.database();
        kept = kept.filter(|_| now == of);
        of = now;
        let result = kept.take().map_or_else(|| open_to_read(path), Ok).and_then(|db| {
            let rows = event::list(&db, &query)?;
            kept = Some(db);
            Ok(rows)
        });
        let _ = rows.send(result.map_err(|source| StoreError::Read { path: path.to_owned(), source }));
    }
}

fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    super::configure(&db)?;
    leave_the_log(&db)?;
    // SQLite opens the log and its index with the first read.
    db.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(db)
}
