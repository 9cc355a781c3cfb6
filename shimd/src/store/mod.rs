//! The store: specs, intents and instances in SQLite (`state.db`, WAL).
//!
//! One thread owns the connection, off the reactor. It takes what has queued up, writes it in one
//! transaction and then answers: a thousand starts are a handful of commits. A spec is synced to disk
//! (`synchronous=FULL`, survives a power cut); the rest only to the WAL (`NORMAL`, survives SIGKILL): after
//! a boot, instances and intents are void anyway.

mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rusqlite::{Connection, Transaction, params};
use tokio::sync::oneshot;

use crate::core::machine::{Durable, Rest, Restart, Want};
use crate::sys::identity::Identity;

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
        "its schema is version {found}, this shimd knows {known}; run the newer shimd, or point SHIMD_HOME elsewhere"
    )]
    Newer {
        /// In the file.
        found: i64,
        /// [`schema::VERSION`].
        known: i64,
    },
    /// Not a schema version.
    #[error("its schema version reads {found:?}; the file is not shimd's, or it is damaged: move it aside")]
    Schema {
        /// In the file.
        found: String,
    },
    /// A write was refused; nothing of it was kept.
    #[error("{0}; nothing was changed: free disk space or make the folder writable, then say it again")]
    Write(String),
    /// SQLite's answer to anything else.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The store's thread is gone.
    #[error("the store has shut down")]
    Gone,
}

/// The live instance of a service, as recorded between the trampoline's fork and its exec.
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
    /// The instance that lived when this was written.
    pub instance: Option<InstanceRecord>,
    /// Its sockets.
    pub listeners: Vec<ListenerRecord>,
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
    },
    /// An instance that is about to exec.
    Instance {
        /// The service.
        name: String,
        /// The instance.
        record: Box<InstanceRecord>,
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
}

impl Write {
    fn synced(&self) -> bool {
        matches!(self, Write::Spec { .. } | Write::Delete { .. })
    }
}

type Answer = Result<(), StoreError>;
type Job = (Write, oneshot::Sender<Answer>);

/// A handle on the store's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

/// A write that is under way.
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
    /// Opens the database, brings its schema forward, reads it whole and starts the store's thread.
    pub fn open(path: &Path) -> Result<(Store, BTreeMap<String, ServiceRecord>), StoreError> {
        let open = || -> rusqlite::Result<Connection> {
            let db = Connection::open(path)?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            // A thousand services are some hundred KiB: the page cache need not be SQLite's 2 MiB.
            db.pragma_update(None, "cache_size", -256)?;
            db.busy_timeout(std::time::Duration::from_secs(2))?;
            Ok(db)
        };
        let mut db = open().map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
        schema::migrate(&mut db)?;
        let services = load(&db)?;
        let (jobs, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".into())
            .stack_size(256 * 1024)
            .spawn(move || serve(&mut db, &queue))
            .map_err(|e| StoreError::Write(format!("cannot start the store's thread: {e}")))?;
        Ok((Store { jobs }, services))
    }

    /// Queues a write. Writes are kept in the order in which they were submitted.
    pub fn submit(&self, write: Write) -> Ack {
        let (tx, rx) = oneshot::channel();
        // A thread that is gone drops the sender, and the Ack says so.
        let _ = self.jobs.send((write, tx));
        Ack(rx)
    }
}

/// Takes all that has queued up into one transaction; where that fails, each write gets its own, so that
/// one bad write cannot take others down with it.
fn serve(db: &mut Connection, queue: &mpsc::Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter().take(1024)).collect();
        let writes: Vec<&Write> = jobs.iter().map(|(write, _)| write).collect();
        let answers: Vec<Answer> = match commit(db, &writes) {
            Ok(()) => writes.iter().map(|_| Ok(())).collect(),
            Err(e) if writes.len() == 1 => vec![Err(e)],
            Err(_) => writes.iter().map(|write| commit(db, &[write])).collect(),
        };
        for ((_, tx), answer) in jobs.into_iter().zip(answers) {
            let _ = tx.send(answer);
        }
    }
}

fn commit(db: &mut Connection, writes: &[&Write]) -> Answer {
    let synced = writes.iter().any(|w| w.synced());
    let all = |db: &mut Connection| -> rusqlite::Result<()> {
        db.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
        let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for write in writes {
            apply(&tx, write)?;
        }
        tx.commit()
    };
    all(db).map_err(|e| StoreError::Write(format!("cannot write state.db: {e}")))
}

fn apply(tx: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
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
        Write::Intent { name, durable, rest_reason } => tx
            .prepare_cached(
                "UPDATE service SET want = ?2, restart = ?3, rest = ?4, rest_reason = ?5 WHERE name = ?1",
            )?
            .execute(params![
                name,
                want_word(durable.want),
                durable.restart.map(restart_json),
                durable.rest.map(rest_word),
                rest_reason
            ])?,
        Write::Instance { name, record } => {
            tx.prepare_cached("UPDATE service SET generation = ?2 WHERE name = ?1")?
                .execute(params![name, record.generation as i64])?;
            let identity = serde_json::to_string(&record.identity)
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            tx.prepare_cached("INSERT OR REPLACE INTO instance VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
                params![
                    name,
                    record.generation as i64,
                    identity,
                    record.cgroup.as_ref().map(|c| c.to_string_lossy().into_owned()),
                    record.spec_json,
                    record.started
                ],
            )?
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
    };
    Ok(())
}

fn load(db: &Connection) -> Result<BTreeMap<String, ServiceRecord>, StoreError> {
    let mut services = BTreeMap::new();
    let mut query =
        db.prepare("SELECT name, spec_json, want, restart, rest, rest_reason, generation FROM service")?;
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
                instance: None,
                listeners: Vec::new(),
            },
        );
    }
    let mut query =
        db.prepare("SELECT service, generation, identity, cgroup, spec_json, started FROM instance")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        // An identity that cannot be read names no process: the mark in the environment still finds one.
        if let (Some(service), Ok(identity)) =
            (services.get_mut(&row.get::<_, String>(0)?), serde_json::from_str(&row.get::<_, String>(2)?))
        {
            service.instance = Some(InstanceRecord {
                generation: row.get::<_, i64>(1)? as u64,
                identity,
                cgroup: row.get::<_, Option<String>>(3)?.map(PathBuf::from),
                spec_json: row.get(4)?,
                started: row.get(5)?,
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
    let Restart { clean, attempt, leaving } = restart;
    serde_json::json!({ "clean": clean, "attempt": attempt, "leaving": leaving }).to_string()
}

fn restart_from(text: &str) -> Option<Restart> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(Restart {
        clean: value.get("clean")?.as_bool()?,
        attempt: u8::try_from(value.get("attempt")?.as_u64()?).ok()?,
        leaving: value.get("leaving")?.as_bool()?,
    })
}
