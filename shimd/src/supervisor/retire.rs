//! An old instance that is no longer found goes when nobody needs it: its listeners' queues are empty, and no connection
//! that it accepted is open. `stop.timeout` bounds the wait, and the machine keeps the time.
//!
//! An accepted connection bears its listener's inode for as long as it lives, and each generation's listener has one of
//! its own: so the kernel tells an old one's connections from the new one's, whoever's process has them. An `activate`
//! socket that is shared by both is not waited for: what waits in its queue is the new instance's as well, and what the old one
//! has accepted it ends as its stop signal lets it. One that the new instance has in the mode `publish` is the old one's alone.

use std::sync::Arc;
use std::time::Duration;

use socket_audit::{AuditError, Auditor, Diag, Expect, ListenerId, Owner, Vfs};

use super::Supervisor;
use super::effects::Outcome;
use super::socket::Socket;

/// A client that has found the old socket by the public name, just before this led elsewhere, connects within.
const GRACE: Duration = Duration::from_millis(50);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(25);
/// So many looks in a row have to find nobody: a dump can miss a connection.
const SURE: u32 = 2;

/// A listener that is to be drained.
#[derive(Debug, Clone, Copy)]
struct Old {
    id: ListenerId,
    vfs: Vfs,
}

impl Supervisor {
    /// Waits beside the task until nobody needs the second instance.
    pub(super) fn drain(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let Some(instance) = &service.second.instance else { return };
        let generation = instance.generation;
        let pids = instance.tree.pids_now();
        let sockets = &service.second.sockets;
        let shared = |s: &Socket| {
            s.own.is_none() && service.sockets.iter().any(|new| new.own.is_none() && new.path == s.path)
        };
        let own = |s: &Socket| Some(s.own.as_ref()?.path.clone());
        let paths: Vec<_> = sockets.iter().filter_map(own).collect();
        let known: Vec<_> = sockets.iter().filter(|s| !shared(s)).filter_map(|s| s.known).collect();
        let limit = instance.spec.stop.timeout;
        self.effect(name, generation, async move {
            // A limit only for the task: the machine has gone on by then.
            let _ = tokio::time::timeout(limit, async {
                let find = move || listeners(&paths, &known, &pids);
                let Ok(Ok(old)) = tokio::task::spawn_blocking(find).await else { return };
                let mut wait = GRACE;
                let mut empty = 0;
                while empty < SURE && !old.is_empty() {
                    tokio::time::sleep(wait).await;
                    let old = old.clone();
                    let looked = tokio::task::spawn_blocking(move || is_needed(&old)).await;
                    empty = if matches!(looked, Ok(Ok(false))) { empty + 1 } else { 0 };
                    wait = AGAIN;
                }
            })
            .await;
            Outcome::Drained
        });
    }
}

/// The old instance's listeners: those that were known, and, after the daemon's own start, those at its own paths.
fn listeners(
    paths: &[std::path::PathBuf],
    known: &[ListenerId],
    pids: &[i32],
) -> Result<Vec<Old>, AuditError> {
    let mut diag = Diag::open()?;
    let mut found = Vec::new();
    for id in known {
        found.extend(diag.query(id.inode, id.cookie)?);
    }
    if known.len() < paths.len() {
        let mut auditor = Auditor::new()?;
        for path in paths {
            let expect = Expect { owner: Owner::Pids(pids.to_vec()), ..Expect::path(path) };
            found.extend(auditor.confirm(&expect).listener);
        }
    }
    Ok(found.iter().filter_map(|l| Some(Old { id: l.id(), vfs: l.vfs? })).collect())
}

/// Whether a client waits for one of these, or is connected to it.
fn is_needed(old: &[Old]) -> Result<bool, AuditError> {
    let mut diag = Diag::open()?;
    for Old { id, .. } in old {
        if diag.query(id.inode, id.cookie)?.is_some_and(|listener| listener.pending > 0) {
            return Ok(true);
        }
    }
    let inodes: Vec<Vfs> = old.iter().map(|old| old.vfs).collect();
    Ok(diag.connections(&inodes)? > 0)
}
