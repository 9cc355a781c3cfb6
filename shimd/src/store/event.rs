//! The history: its rows in the table `event`, and how they are asked for.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, params, params_from_iter};
use shimd_api::event::{EventDetail, EventKind, EventRow};
use shimd_api::wire::{Culprit, Status};

/// An event as the daemon hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Given by the daemon, each one more than the last; [`super::Loaded::last_event`] says where it stands.
    pub id: u64,
    /// When: nanoseconds since 1970.
    pub time: i64,
    /// The service; `None` for the daemon itself.
    pub service: Option<String>,
    /// What kind. A `gap` is about one follower, and is not stored.
    pub kind: EventKind,
    /// The rest.
    pub detail: EventDetail,
}

/// Which events are wanted. What is left at its default does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Of these services; empty: of all, and of the daemon itself.
    pub services: Vec<String>,
    /// From this time on: nanoseconds since 1970.
    pub since: Option<i64>,
    /// After this id: then the *oldest* `limit` of them are given, so that the last id given, asked for as
    /// `after`, gives the next page and each event comes once.
    pub after: Option<u64>,
    /// Of these kinds; empty: of all.
    pub kinds: Vec<EventKind>,
    /// How many at most: without `after` the newest. In either case the oldest of them comes first.
    pub limit: usize,
}

/// The newest verdict event of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastVerdict {
    /// The verdict.
    pub verdict: String,
    /// Since when: nanoseconds since 1970.
    pub since_ns: i64,
    /// Who removed or replaced the dentry.
    pub culprit: Option<Culprit>,
    /// Why, in words.
    pub reason: Option<String>,
}

/// The newest state event of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastState {
    /// The state.
    pub status: Status,
    /// Since when: nanoseconds since 1970.
    pub since_ns: i64,
}

pub(super) fn insert(tx: &Transaction<'_>, record: &EventRecord) -> rusqlite::Result<usize> {
    if record.kind == EventKind::Gap {
        return Ok(0);
    }
    let EventDetail { socket, path, verdict, status, was, lasted, reason, pid, culprit } = &record.detail;
    let culprit = culprit.as_ref();
    tx.prepare_cached(
        "INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?
    .execute(params![
        record.id as i64,
        record.time,
        record.service,
        record.kind.as_str(),
        socket,
        path,
        verdict,
        status,
        was,
        lasted,
        reason,
        pid,
        culprit.map(|c| c.pid),
        culprit.map(|c| &c.name),
        culprit.and_then(|c| c.exe.as_ref()),
        culprit.and_then(|c| c.uid),
    ])
}

pub(super) fn blame(tx: &Transaction<'_>, id: u64, culprit: &Culprit) -> rusqlite::Result<usize> {
    tx.prepare_cached(
        "UPDATE event SET culprit_pid = ?2, culprit_name = ?3, culprit_exe = ?4, culprit_uid = ?5
         WHERE id = ?1 AND kind = 'verdict'",
    )?
    .execute(params![id as i64, culprit.pid, culprit.name, culprit.exe, culprit.uid])
}

pub(super) fn last_id(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT coalesce(max(id), 0) FROM event", [], |r| r.get::<_, i64>(0)).map(i64::unsigned_abs)
}

pub(super) fn last_verdicts(db: &Connection) -> rusqlite::Result<BTreeMap<(String, String), LastVerdict>> {
    let mut query = db.prepare(
        "SELECT service, path, verdict, time, reason, culprit_pid, culprit_name, culprit_exe, culprit_uid
         FROM event WHERE id IN (
             SELECT max(id) FROM event
             WHERE kind = 'verdict' AND path NOT NULL AND service IN (SELECT name FROM service)
             GROUP BY service, path
         ) AND verdict NOT NULL",
    )?;
    let rows = query.query_map([], |row| {
        let last = LastVerdict {
            verdict: row.get(2)?,
            since_ns: row.get(3)?,
            reason: row.get(4)?,
            culprit: culprit(row, 5)?,
        };
        Ok(((row.get(0)?, row.get(1)?), last))
    })?;
    rows.collect()
}

pub(super) fn last_states(db: &Connection) -> rusqlite::Result<BTreeMap<String, LastState>> {
    // Each by the index of its service, from its newest event back.
    let mut query = db.prepare(
        "SELECT name, status, time FROM service JOIN event ON event.id = (
             SELECT id FROM event WHERE service = name AND kind = 'state' ORDER BY time DESC, id DESC LIMIT 1
         ) WHERE status NOT NULL",
    )?;
    let mut states = BTreeMap::new();
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        // A word of another version's is as good as none.
        if let Ok(status) = serde_json::from_value(serde_json::Value::String(row.get(1)?)) {
            states.insert(row.get(0)?, LastState { status, since_ns: row.get(2)? });
        }
    }
    Ok(states)
}

pub(super) fn list(db: &Connection, query: &EventQuery) -> rusqlite::Result<Vec<EventRow>> {
    let mut sql = String::from(
        "SELECT id, time, service, kind, socket, path, verdict, status, was, lasted, reason, pid,
             culprit_pid, culprit_name, culprit_exe, culprit_uid
         FROM event WHERE TRUE",
    );
    let mut values = Vec::new();
    if !query.services.is_empty() {
        sql.push_str(" AND service IN (SELECT value FROM json_each(?))");
        values.push(Value::Text(serde_json::json!(query.services).to_string()));
    }
    if let Some(since) = query.since {
        sql.push_str(" AND time >= ?");
        values.push(Value::Integer(since));
    }
    if let Some(after) = query.after {
        sql.push_str(" AND id > ?");
        values.push(Value::Integer(i64::try_from(after).unwrap_or(i64::MAX)));
    }
    if !query.kinds.is_empty() {
        sql.push_str(" AND kind IN (SELECT value FROM json_each(?))");
        values.push(Value::Text(serde_json::json!(query.kinds).to_string()));
    }
    sql.push_str(if query.after.is_some() { " ORDER BY id LIMIT ?" } else { " ORDER BY id DESC LIMIT ?" });
    values.push(Value::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), event)?;
    let mut rows: Vec<EventRow> = rows.collect::<rusqlite::Result<_>>()?;
    if query.after.is_none() {
        rows.reverse();
    }
    Ok(rows)
}

fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    Ok(EventRow {
        id: row.get::<_, i64>(0)?.unsigned_abs(),
        time: rfc3339(row.get(1)?),
        service: row.get(2)?,
        kind: serde_json::from_value(serde_json::Value::String(row.get(3)?)).map_err(|e| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(e))
        })?,
        detail: EventDetail {
            socket: row.get(4)?,
            path: row.get(5)?,
            verdict: row.get(6)?,
            status: row.get(7)?,
            was: row.get(8)?,
            lasted: row.get(9)?,
            reason: row.get(10)?,
            pid: row.get(11)?,
            culprit: culprit(row, 12)?,
        },
    })
}

/// The culprit in four columns: pid, name, exe, uid.
fn culprit(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Culprit>> {
    let (pid, name): (Option<i32>, Option<String>) = (row.get(at)?, row.get(at + 1)?);
    let (exe, uid) = (row.get(at + 2)?, row.get(at + 3)?);
    Ok(pid.zip(name).map(|(pid, name)| Culprit { pid, name, exe, uid }))
}

/// As the wire has times; none is before 1970.
fn rfc3339(ns: i64) -> String {
    let since = Duration::from_nanos(ns.max(0).unsigned_abs());
    humantime::format_rfc3339_nanos(SystemTime::UNIX_EPOCH + since).to_string()
}
