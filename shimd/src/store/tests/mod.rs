//! The store, on real files.

mod boot;
mod damaged;
mod disk;
mod ending;
mod history;
mod migration;
mod place;
mod pruning;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use shimd_api::event::{EventDetail, EventKind, EventRow};
use shimd_api::wire::Culprit;

use super::prune::Limits;
use super::*;

/// A database of its own.
struct Base {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Base {
    fn new() -> Base {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        Base { _folder: folder, path }
    }

    fn open(&self) -> (Store, Loaded) {
        Store::open(&self.path).unwrap()
    }

    /// A history of whatever age.
    fn ageless(&self) -> (Store, Loaded) {
        self.open_with(Limits { age: Duration::from_secs(1 << 40), ..Limits::default() })
    }

    fn open_with(&self, limits: Limits) -> (Store, Loaded) {
        Store::on(open_to_write(&self.path).unwrap(), &self.path, limits).unwrap()
    }

    /// What another program sees in it.
    fn count(&self, what: &str) -> u64 {
        let db = Connection::open(&self.path).unwrap();
        configure(&db).unwrap();
        db.query_row(&format!("SELECT count(*) FROM {what}"), [], |r| r.get::<_, i64>(0)).unwrap() as u64
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Waits for what a thread does by itself.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "it did not come to be: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as i64
}

fn state(id: u64, time: i64, service: &str, status: &str) -> EventRecord {
    let detail = EventDetail { status: Some(status.into()), ..EventDetail::default() };
    EventRecord { id, time, service: Some(service.into()), kind: EventKind::State, detail }
}

fn verdict(id: u64, time: i64, service: &str, verdict: &str) -> EventRecord {
    let detail = EventDetail {
        socket: Some("rpc.sock".into()),
        path: Some(format!("/run/{service}/rpc.sock")),
        verdict: Some(verdict.into()),
        ..EventDetail::default()
    };
    EventRecord { id, time, service: Some(service.into()), kind: EventKind::Verdict, detail }
}

fn rm() -> Culprit {
    Culprit { pid: 4711, name: "rm".into(), exe: Some("/usr/bin/rm".into()), uid: Some(0) }
}

fn record(store: &Store, events: impl IntoIterator<Item = EventRecord>) {
    for event in events {
        let _ = store.submit(Write::Event(Box::new(event)));
    }
}

fn register(store: &Store, name: &str) {
    let spec = Write::Spec { name: name.into(), spec_json: format!(r#"{{"name":"{name}"}}"#) };
    wait(store.submit(spec).done()).unwrap();
}

fn list(store: &Store, query: EventQuery) -> Vec<EventRow> {
    wait(store.events(query)).unwrap()
}

fn all() -> EventQuery {
    EventQuery { limit: usize::MAX, ..EventQuery::default() }
}

fn ids(rows: &[EventRow]) -> Vec<u64> {
    rows.iter().map(|row| row.id).collect()
}

/// The path beside which SQLite keeps what is not in the database yet.
fn wal(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}
