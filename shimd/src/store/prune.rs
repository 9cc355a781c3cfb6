//! How much history is kept, and how it is cut down to that.
//!
//! | bound | |
//! | --- | --- |
//! | [`EVENTS`] | the oldest go first |
//! | [`AGE`] | counted from the time of the pruning |
//!
//! The newest verdict of each socket of a registered service outlives both, so that a socket that was `ok` for
//! a year still has its `since`; only where there were more of those than [`EVENTS`] do they go too. So does
//! the newest event of all: ids never begin anew.
//!
//! A pass is due at open and after every [`EVERY`] events. It goes through the oldest events in steps of at
//! most [`STEP`], each a transaction of its own, and the thread writes what has queued up in between.

use std::time::{Duration, SystemTime};

use rusqlite::{Connection, params};

/// How many events are kept.
pub const EVENTS: u64 = 100_000;
/// How long an event is kept.
pub const AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// A pass is due after so many events.
pub const EVERY: u64 = 1_000;
/// How many events one transaction looks at.
pub const STEP: u64 = 500;

/// The newest verdict of a socket of a registered service.
const SPARED: &str = "kind = 'verdict' AND path NOT NULL AND service IN (SELECT name FROM service)
    AND NOT EXISTS (SELECT 1 FROM event AS newer WHERE newer.kind = 'verdict' AND newer.service = event.service
        AND newer.path = event.path AND newer.id > event.id)";

/// The bounds, so that tests can have small ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub events: u64,
    pub age: Duration,
    /// How many events may wait for the disk.
    pub queued: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { events: EVENTS, age: AGE, queued: super::lost::QUEUED }
    }
}

/// Counts events, and does what is due.
#[derive(Debug)]
pub(super) struct Pruner {
    limits: Limits,
    since_last: u64,
    pass: Option<Pass>,
}

#[derive(Debug)]
struct Pass {
    /// Ids up to this one are done.
    cursor: i64,
    /// Events over the bound.
    surplus: u64,
    /// Nanoseconds since 1970: what is older is to go.
    cutoff: i64,
    /// No event with a greater id is too old.
    oldest_to: i64,
    /// The event before the newest.
    end: i64,
    sparing: bool,
}

impl Pruner {
    pub fn new(limits: Limits) -> Pruner {
        Pruner { limits, since_last: EVERY, pass: None }
    }

    pub fn inserted(&mut self, events: u64) {
        self.since_last += events;
    }

    pub fn is_due(&self) -> bool {
        self.pass.is_some() || self.since_last >= EVERY
    }

    /// One step, where one is due. A pass that failed begins anew after the next event that could be written.
    pub fn step(&mut self, db: &mut Connection) -> rusqlite::Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        let pass = match self.pass.take() {
            Some(pass) => Ok(pass),
            None => {
                self.since_last = 0;
                Pass::new(db, self.limits)
            }
        };
        self.pass = pass.and_then(|pass| pass.step(db)).inspect_err(|_| self.since_last = EVERY - 1)?;
        Ok(())
    }
}

impl Pass {
    fn new(db: &Connection, limits: Limits) -> rusqlite::Result<Pass> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let cutoff = i64::try_from(now.saturating_sub(limits.age).as_nanos()).unwrap_or(i64::MAX);
        let (count, newest): (i64, i64) =
            db.query_row("SELECT count(*), coalesce(max(id), 0) FROM event", [], |r| {
                Ok((r.get(0)?, r.get(1)?))
            })?;
        // By itself SQLite would walk back from the newest event, through all that are young.
        let oldest_to: i64 = db.query_row(
            "SELECT coalesce(max(id), 0) FROM event INDEXED BY event_time WHERE time < ?1",
            [cutoff],
            |r| r.get(0),
        )?;
        let surplus = count.unsigned_abs().saturating_sub(limits.events);
        Ok(Pass { cursor: i64::MIN, surplus, cutoff, oldest_to, end: newest - 1, sparing: true })
    }

    /// What is left to do, if anything.
    fn step(mut self, db: &mut Connection) -> rusqlite::Result<Option<Pass>> {
        let (to, rows) = if self.surplus > 0 {
            (self.end, STEP.min(self.surplus))
        } else {
            (self.oldest_to.min(self.end), STEP)
        };
        db.pragma_update(None, "synchronous", "NORMAL")?;
        let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let last: Option<i64> = tx
            .prepare_cached(
                "SELECT max(id) FROM (SELECT id FROM event WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)",
            )?
            .query_row(params![self.cursor, to, rows as i64], |r| r.get(0))?;
        let Some(last) = last else {
            // All there is was looked at. What is still too much is newest verdicts.
            let again = self.surplus > 0 && self.sparing;
            return Ok(again.then_some(Pass { cursor: i64::MIN, sparing: false, ..self }));
        };
        let condition = match (self.surplus > 0, self.sparing) {
            (true, true) => format!("({SPARED}) IS NOT TRUE"),
            (true, false) => "TRUE".into(),
            (false, _) => format!("time < ?3 AND ({SPARED}) IS NOT TRUE"),
        };
        let sql = format!("DELETE FROM event WHERE id > ?1 AND id <= ?2 AND {condition}");
        let mut statement = tx.prepare_cached(&sql)?;
        let gone = match self.surplus {
            0 => statement.execute(params![self.cursor, last, self.cutoff])?,
            _ => statement.execute(params![self.cursor, last])?,
        };
        drop(statement);
        tx.commit()?;
        self.cursor = last;
        self.surplus = self.surplus.saturating_sub(gone as u64);
        Ok(Some(self))
    }
}
