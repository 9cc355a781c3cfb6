//! What can be written, and the statements that write it.

use std::path::PathBuf;

use rusqlite::{Transaction, params};
use shimd_api::wire::Culprit;

use super::event::{self, EventRecord};
use crate::core::machine::{Durable, Rest, Restart, Want};
use crate::sys::identity::Identity;

/// A live instance of a service, as recorded between the trampoline's fork and its exec.
#[derive(Debug, Clone)]
pub struct InstanceRecord {
    /// Counts the spawns of the service.
    pub generation: u64,
    /// Its main process, told apart from any other that may get its pid.
    pub identity: Identity,
    /// Its cgroup, where one could be made.
    pub cgroup: Option<PathBuf>,
    /// The spec that it was spawned with.
    pub spec_json: String,
    /// Nanoseconds since 1970.
    pub started: i64,
    /// It was let go. One that is not there and never was, because the daemon died before its exec, has not ended.
    pub begun: bool,
}

/// The kernel socket last seen `ok` at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerRecord {
    /// The declared path.
    pub path: PathBuf,
    /// The kernel socket's inode.
    pub inode: u64,
    /// Its cookie: never used twice within a boot.
    pub cookie: u64,
    /// The boot in which both mean something.
    pub boot_id: String,
}

/// One change, whole or not at all.
#[derive(Debug)]
pub enum Write {
    /// Creates or updates the spec of a service. Synced to disk.
    Spec {
        /// The service.
        name: String,
        /// Verbatim.
        spec_json: String,
    },
    /// Forgets a service. Synced to disk.
    Delete {
        /// The service.
        name: String,
    },
    /// What the machine wants kept.
    Intent {
        /// The service.
        name: String,
        /// The machine's durable part.
        durable: Durable,
        /// Why it rests as failed.
        rest_reason: Option<String>,
        /// The generation of its own instance: of two, which is which.
        current: u64,
    },
    /// An instance that is about to exec.
    Instance {
        /// The service.
        name: String,
        /// The instance.
        record: Box<InstanceRecord>,
        /// It comes beside the service's own instance, and does not take its place, or not yet.
        beside: bool,
    },
    /// The instance was let go: it executes its program.
    Begun {
        /// The service.
        name: String,
        /// The instance.
        generation: u64,
        /// Nanoseconds since 1970.
        started: i64,
        /// It came beside the service's own instance; else it is that from now on, and there is no other.
        beside: bool,
    },
    /// The instance's tree is gone.
    InstanceGone {
        /// The service.
        name: String,
        /// A later instance's record stays.
        generation: u64,
    },
    /// The sockets last seen ok.
    Listeners {
        /// The service.
        name: String,
        /// All of them.
        listeners: Vec<ListenerRecord>,
    },
    /// Something happened. Nobody waits for it: where the disk is full it is dropped, and counted.
    Event(Box<EventRecord>),
    /// Who did it became known after the verdict's event was written.
    EventCulprit {
        /// The verdict's event.
        id: u64,
        /// Who did it.
        culprit: Culprit,
    },
}

impl Write {
    pub(super) fn synced(&self) -> bool {
        matches!(self, Write::Spec { .. } | Write::Delete { .. })
    }

    /// Whether it is of the history, which may be lost, and not of the services, which may not.
    pub(super) fn is_history(&self) -> bool {
        matches!(self, Write::Event(_) | Write::EventCulprit { .. })
    }
}

pub(super) fn apply(tx: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Spec { name, spec_json } => tx
            .prepare_cached(
                "INSERT INTO service (name, spec_json) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET spec_json = ?2",
            )?
            .execute(params![name, spec_json])?,
        Write::Delete { name } => {
            tx.prepare_cached("DELETE FROM instance WHERE service = ?1")?.execute([name])?;
            tx.prepare_cached("DELETE FROM listener WHERE service = ?1")?.execute([name])?;
            tx.prepare_cached("DELETE FROM service WHERE name = ?1")?.execute([name])?
        }
        Write::Intent { name, durable, rest_reason, current } => tx
            .prepare_cached(
                "UPDATE service SET want = ?2, restart = ?3, rest = ?4, rest_reason = ?5, current = ?6
                 WHERE name = ?1",
            )?
            .execute(params![
                name,
                want_word(durable.want),
                durable.restart.map(restart_json),
                durable.rest.map(rest_word),
                rest_reason,
                *current as i64
            ])?,
        Write::Instance { name, record, beside } => {
            let generation = record.generation as i64;
            tx.prepare_cached("UPDATE service SET generation = ?2 WHERE name = ?1")?
                .execute(params![name, generation])?;
            if !beside {
                tx.prepare_cached("UPDATE service SET current = ?2 WHERE name = ?1")?
                    .execute(params![name, generation])?;
                tx.prepare_cached("DELETE FROM instance WHERE service = ?1")?.execute([name])?;
            }
            let identity = serde_json::to_string(&record.identity)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            tx.prepare_cached("INSERT OR REPLACE INTO instance VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                    name,
                    generation,
                    identity,
                    record.cgroup.as_ref().map(|c| c.to_string_lossy().into_owned()),
                    record.spec_json,
                    record.started,
                    record.begun
                ])?
        }
        Write::Begun { name, generation, started, beside } => {
            let generation = *generation as i64;
            if !beside {
                tx.prepare_cached("UPDATE service SET current = ?2 WHERE name = ?1")?
                    .execute(params![name, generation])?;
                tx.prepare_cached("DELETE FROM instance WHERE service = ?1 AND generation <> ?2")?
                    .execute(params![name, generation])?;
            }
            tx.prepare_cached(
                "UPDATE instance SET begun = 1, started = ?3 WHERE service = ?1 AND generation = ?2",
            )?
            .execute(params![name, generation, started])?
        }
        Write::InstanceGone { name, generation } => tx
            .prepare_cached("DELETE FROM instance WHERE service = ?1 AND generation = ?2")?
            .execute(params![name, *generation as i64])?,
        Write::Listeners { name, listeners } => {
            tx.prepare_cached("DELETE FROM listener WHERE service = ?1")?.execute([name])?;
            for l in listeners {
                tx.prepare_cached("INSERT OR REPLACE INTO listener VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
                    params![name, l.path.to_string_lossy(), l.inode as i64, l.cookie as i64, l.boot_id],
                )?;
            }
            0
        }
        Write::Event(record) => event::insert(tx, record)?,
        Write::EventCulprit { id, culprit } => event::blame(tx, *id, culprit)?,
    };
    Ok(())
}

fn want_word(want: Want) -> &'static str {
    match want {
        Want::Up => "up",
        Want::Down => "down",
    }
}

fn rest_word(rest: Rest) -> &'static str {
    match rest {
        Rest::Ended => "ended",
        Rest::Failed => "failed",
    }
}

fn restart_json(restart: Restart) -> String {
    let Restart { clean, attempt, leaving, gapless } = restart;
    serde_json::json!({ "clean": clean, "attempt": attempt, "leaving": leaving, "gapless": gapless })
        .to_string()
}
