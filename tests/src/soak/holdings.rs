//! What a daemon holds, by the kernel's word, the file system's, and its store's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::fault::Context;
use crate::{Result, World};

/// How many events the store keeps, and a little that has not been pruned yet.
const EVENTS: u64 = 101_000;
/// Allocators keep the most that was ever wanted at a time: under churn that settles after many minutes (measured: 6 MiB
/// at first, 10 after a minute, 15 after eleven and 106,000 commands).
const MEMORY: f64 = 1.15;
const MEMORY_KIB: u64 = 6144;

/// What this daemon has open, each with its number: for a report of what has grown.
pub fn open(daemon: i32) -> Result<Vec<String>> {
    let entries = fs::read_dir(Path::new("/proc").join(daemon.to_string()).join("fd"))?.flatten();
    let target = |entry: fs::DirEntry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?));
    let open = entries.filter_map(target);
    Ok(open.map(|(number, to)| format!("{} {}", number.to_string_lossy(), to.display())).collect())
}

/// Amounts by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings(BTreeMap<String, u64>);

impl Holdings {
    /// What this daemon holds now.
    pub fn of(world: &World, daemon: i32) -> Result<Holdings> {
        let mut held = BTreeMap::new();
        let process = Path::new("/proc").join(daemon.to_string());
        for entry in fs::read_dir(process.join("fd"))?.flatten() {
            *held.entry(kind_of(&entry.path())).or_default() += 1;
        }
        for (kind, name) in [("inotify", "inotify watches"), ("fanotify ino", "fanotify marks")] {
            let lines = fs::read_dir(process.join("fdinfo"))?
                .flatten()
                .map(|entry| fs::read_to_string(entry.path()).unwrap_or_default())
                .map(|info| info.lines().filter(|line| line.starts_with(kind)).count() as u64);
            held.insert(name.to_owned(), lines.sum());
        }
        let status = fs::read_to_string(process.join("status"))?;
        for (field, name) in [("RssAnon:", "anonymous memory, KiB"), ("Threads:", "threads")] {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
            let number = line.trim().trim_end_matches(" kB").parse()?;
            held.insert(name.to_owned(), number);
        }
        held.insert("processes".to_owned(), world.processes().len() as u64);
        held.insert("pins".to_owned(), files(&world.sockets().join(".shimd")));
        held.insert("names below the socket root".to_owned(), files(&world.sockets()));
        held.insert("log files".to_owned(), files(&world.home().join("logs")));
        let db =
            Connection::open_with_flags(world.home().join("state.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        for table in ["service", "instance", "listener", "event", "meta"] {
            let rows: i64 = db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
            held.insert(format!("rows of {table}"), rows.unsigned_abs());
        }
        Ok(Holdings(held))
    }

    /// In words, what there is more of than then, and should not.
    pub fn grown_since(&self, before: &Holdings) -> Vec<String> {
        let grown = |(name, now): (&String, &u64)| {
            let then = before.0.get(name).copied().unwrap_or_default();
            let most = match name.as_str() {
                "rows of event" => EVENTS,
                "anonymous memory, KiB" => (then as f64 * MEMORY) as u64 + MEMORY_KIB,
                _ => then,
            };
            (*now > most).then(|| format!("{name}: {then}, then {now}"))
        };
        self.0.iter().filter_map(grown).collect()
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(name, number)| format!("{name} {number}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// What a descriptor is of: sockets, pidfds, files by their folder, …
fn kind_of(descriptor: &Path) -> String {
    let target = fs::read_link(descriptor).unwrap_or_default();
    let kind = match target.to_string_lossy().split_once(":[") {
        Some((kind, _)) if !kind.starts_with('/') => kind.to_owned(),
        _ if target.starts_with("anon_inode:") => target.display().to_string(),
        // The last two parts would be a service's own.
        _ => target.ancestors().nth(2).unwrap_or(&target).display().to_string(),
    };
    format!("descriptors of {kind}")
}

/// All that lies in a folder and those below it.
fn files(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => 1 + files(&entry.path()),
            false => 1,
        })
        .sum()
}
