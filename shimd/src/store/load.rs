//! What a daemon that starts finds in the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::Connection;

use super::event::{self, LastState, LastVerdict};
use super::write::{InstanceRecord, ListenerRecord};
use crate::core::machine::{Durable, Rest, Restart, Want};

/// Everything that the store holds of one service.
#[derive(Debug)]
pub struct ServiceRecord {
    /// The spec, to the letter.
    pub spec_json: String,
    /// Intent and rest.
    pub durable: Durable,
    /// Why it rests as failed.
    pub rest_reason: Option<String>,
    /// The last generation.
    pub generation: u64,
    /// The generation of its own instance, or of the last.
    pub current: u64,
    /// The instances that lived when this was written.
    pub instances: Vec<InstanceRecord>,
    /// Its sockets.
    pub listeners: Vec<ListenerRecord>,
}

/// What [`Store::open`](super::Store::open) found.
#[derive(Debug)]
pub struct Loaded {
    /// The registered services, by name.
    pub services: BTreeMap<String, ServiceRecord>,
    /// The id of the newest event; 0 before the first. The next event's is one more.
    pub last_event: u64,
    /// The newest verdict of each socket of a registered service, by service and path.
    pub verdicts: BTreeMap<(String, String), LastVerdict>,
    /// The newest state of each registered service.
    pub states: BTreeMap<String, LastState>,
    /// The machine has booted since the last daemon: instances and intents are void.
    pub rebooted: bool,
    /// That the store was damaged, where it lies now, and what was carried over.
    pub damage: Option<String>,
}

pub(super) fn load(db: &Connection) -> rusqlite::Result<Loaded> {
    Ok(Loaded {
        services: services(db)?,
        last_event: event::last_id(db)?,
        verdicts: event::last_verdicts(db)?,
        states: event::last_states(db)?,
        rebooted: false,
        damage: None,
    })
}

fn services(db: &Connection) -> rusqlite::Result<BTreeMap<String, ServiceRecord>> {
    let mut services = BTreeMap::new();
    let mut query = db.prepare(
        "SELECT name, spec_json, want, restart, rest, rest_reason, generation, current FROM service",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let durable = Durable {
            want: if row.get::<_, String>(2)? == "up" { Want::Up } else { Want::Down },
            restart: row.get::<_, Option<String>>(3)?.as_deref().and_then(restart_from),
            rest: match row.get::<_, Option<String>>(4)?.as_deref() {
                Some("ended") => Some(Rest::Ended),
                Some(_) => Some(Rest::Failed),
                None => None,
            },
        };
        services.insert(
            row.get(0)?,
            ServiceRecord {
                spec_json: row.get(1)?,
                durable,
                rest_reason: row.get(5)?,
                generation: row.get::<_, i64>(6)? as u64,
                current: row.get::<_, i64>(7)? as u64,
                instances: Vec::new(),
                listeners: Vec::new(),
            },
        );
    }
    let mut query =
        db.prepare("SELECT service, generation, identity, cgroup, spec_json, started, begun FROM instance")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        // An identity that cannot be read names no process: the mark in the environment still finds one.
        if let (Some(service), Ok(identity)) =
            (services.get_mut(&row.get::<_, String>(0)?), serde_json::from_str(&row.get::<_, String>(2)?))
        {
            service.instances.push(InstanceRecord {
                generation: row.get::<_, i64>(1)? as u64,
                identity,
                cgroup: row.get::<_, Option<String>>(3)?.map(PathBuf::from),
                spec_json: row.get(4)?,
                started: row.get(5)?,
                begun: row.get(6)?,
            });
        }
    }
    let mut query = db.prepare("SELECT service, path, inode, cookie, boot_id FROM listener")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(service) = services.get_mut(&row.get::<_, String>(0)?) {
            service.listeners.push(ListenerRecord {
                path: PathBuf::from(row.get::<_, String>(1)?),
                inode: row.get::<_, i64>(2)? as u64,
                cookie: row.get::<_, i64>(3)? as u64,
                boot_id: row.get(4)?,
            });
        }
    }
    Ok(services)
}

fn restart_from(text: &str) -> Option<Restart> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(Restart {
        clean: value.get("clean")?.as_bool()?,
        attempt: u8::try_from(value.get("attempt")?.as_u64()?).ok()?,
        leaving: value.get("leaving")?.as_bool()?,
        // Not written before schema 3.
        gapless: value.get("gapless").and_then(serde_json::Value::as_bool).unwrap_or(false),
    })
}
