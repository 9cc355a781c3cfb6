//! Whether the store of a daemon that was killed has what was answered before. It is read before another daemon is started:
//! that one tells anew what it finds, and nothing would be missed.

use std::fs;

use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;

use crate::{Json, Result, World};

/// The history as the killed daemon has left it. It is a copy: whoever closes the store last tidies it up.
pub struct Kept(Connection);

impl Kept {
    /// Of a world whose daemon is dead.
    pub fn of(world: &World) -> Result<Kept> {
        let folder = world.file("kept");
        fs::create_dir_all(&folder)?;
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = fs::remove_file(folder.join(name));
        }
        for name in ["state.db", "state.db-wal"] {
            if world.home().join(name).exists() {
                fs::copy(world.home().join(name), folder.join(name))?;
            }
        }
        Ok(Kept(Connection::open(folder.join("state.db"))?))
    }

    /// What was answered of services and is not in it.
    pub fn lacks(&self, answer: &Value) -> Result<Vec<String>> {
        let mut lacking = Vec::new();
        for row in answer.rows().into_iter().flatten() {
            let Ok(name) = row.text("name") else { continue };
            let status = row.text("status").or_else(|_| row.text("outcome")).unwrap_or_default();
            let is_there = match status {
                "restarted" => self.has_run(name, row.int("new_pid")?)?,
                // A start of what runs tells nothing new.
                "running" | "inactive" => self.last(name)?.as_deref() == Some(status),
                _ => true,
            };
            if !is_there {
                lacking.push(format!("{name}: answered, and not in the history: {row}"));
            }
        }
        Ok(lacking)
    }

    fn has_run(&self, name: &str, pid: i64) -> Result<bool> {
        let query = "SELECT count(*) FROM event WHERE service = ?1 AND status = 'running' AND pid = ?2";
        let count: i64 = self.0.query_row(query, (name, pid), |row| row.get(0))?;
        Ok(count > 0)
    }

    fn last(&self, name: &str) -> Result<Option<String>> {
        let query = "SELECT status FROM event WHERE service = ?1 AND kind = 'state' ORDER BY id DESC LIMIT 1";
        Ok(self.0.query_row(query, [name], |row| row.get(0)).optional()?)
    }
}
