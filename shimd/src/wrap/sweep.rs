//! What comes before a spawn: the way to each socket's path is cleared.
//!
//! | at the path | done |
//! | --- | --- |
//! | nothing | nothing |
//! | a socket that nobody listens on | removed |
//! | a socket of processes that a dead wrap of these sockets has left | they are ended, it is removed |
//! | a socket of any other process, also one that is about to listen | refused, with its pid |
//! | a file, a folder, a link | refused: never removed |
//!
//! Private names that a killed wrap has left beside the path are removed if nobody listens there.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket_audit::{AuditError, Auditor, Expect, Finding, Owner, Party, Verdict};

use super::args::{Declared, Plan};
use crate::supervisor::ending::{end_processes, hold};
use crate::supervisor::pins::nobody_listens;
use crate::sys::clean::{self, CleanError};
use crate::sys::pidfd::PidFd;
use crate::sys::tree::environ_mark;

/// Who is ended may have forked meanwhile: so often it is looked again.
const ROUNDS: u32 = 4;
/// A socket that is bound and does not listen yet may do so within this time.
const SOON: Duration = Duration::from_millis(500);

/// Why the way is not free.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// Somebody else serves the path.
    #[error("{}: foreign: {who} listens here; stop it first, or wrap another socket", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// The process, in words.
        who: String,
    },
    /// What lies there stays.
    #[error(transparent)]
    Dentry(#[from] CleanError),
    /// The kernel could not be asked.
    #[error("cannot ask the kernel who listens: {0}")]
    Audit(#[from] AuditError),
    /// Whether somebody listens cannot be told.
    #[error("{}: cannot tell whether anybody listens here: {reason}; run shimd check on it as root", path.display())]
    Unclear {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Clears the way to every socket; gives the paths that were removed.
///
/// # Errors
/// The first that is not free.
pub fn sweep(plan: &Plan, auditor: &mut Auditor) -> Result<Vec<PathBuf>, SweepError> {
    let mut removed = Vec::new();
    for socket in plan.sockets.iter().filter(|socket| !socket.is_abstract()) {
        clear(plan, socket, auditor)?;
        let auditor = RefCell::new(&mut *auditor);
        // Asked before and after it is moved aside: nobody may have begun to listen.
        let dead = |seen: &clean::Seen| nobody_listens(*auditor.borrow_mut(), &seen.path);
        for path in private_names(socket).into_iter().chain([socket.path.clone()]) {
            match clean::remove_socket(&path, &dead) {
                Ok(clean::Cleaned::Removed(_)) => removed.push(path),
                Ok(clean::Cleaned::Nothing) => {}
                // Another wrap's, that lives.
                Err(CleanError::InUse { .. }) if path != socket.path => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(removed)
}

/// Removes what a published socket leaves: the service knows its private name only.
pub fn remove_dead(path: &Path, auditor: &mut Auditor) {
    let auditor = RefCell::new(auditor);
    // What stays is cleaned before the next start.
    let _ = clean::remove_socket(path, &|seen| nobody_listens(*auditor.borrow_mut(), &seen.path));
}

fn clear(plan: &Plan, socket: &Declared, auditor: &mut Auditor) -> Result<(), SweepError> {
    if socket.path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
        return Ok(()); // most starts: no audit of what is not there
    }
    let expect = Expect { owner: Owner::Pids(Vec::new()), ..Expect::path(&socket.path) };
    let mut finding = auditor.confirm(&expect);
    for _ in 0..ROUNDS {
        let left: Vec<i32> = finding.others.iter().flat_map(|party| leftovers(plan, party)).collect();
        if left.is_empty() {
            break;
        }
        end_processes(&hold(&left), libc::SIGTERM, plan.stop_timeout);
        finding = auditor.confirm(&expect);
    }
    let began = std::time::Instant::now();
    while finding.bound_not_listening && began.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(5));
        finding = auditor.confirm(&expect);
    }
    match finding.verdict {
        Verdict::Foreign => Err(SweepError::Foreign { path: socket.path.clone(), who: who(&finding) }),
        Verdict::Unknown => {
            Err(SweepError::Unclear { path: socket.path.clone(), reason: finding.reason.into_owned() })
        }
        _ => Ok(()),
    }
}

fn who(finding: &Finding) -> String {
    let holder = finding.others.first().and_then(|party| party.holder.as_ref());
    holder.map_or_else(|| "a process that cannot be seen from here".to_owned(), ToString::to_string)
}

/// Those processes of a dead wrap of the same sockets that hold a listener.
fn leftovers(plan: &Plan, party: &Party) -> Vec<i32> {
    let left = |pid: &i32| environ_mark(*pid).is_some_and(|mark| is_left(plan, &mark));
    party.pids.iter().copied().filter(left).collect()
}

/// Whether a mark is that of a wrap of these sockets that lives no more.
fn is_left(plan: &Plan, mark: &str) -> bool {
    let (Some((ours, _)), Some((theirs, wrap))) = (plan.mark.rsplit_once('/'), mark.rsplit_once('/')) else {
        return false;
    };
    let Ok(wrap) = wrap.parse::<i32>() else { return false };
    ours == theirs && (wrap == plan.wrap || !PidFd::open(wrap).is_ok_and(|process| process.is_alive()))
}

/// Names beside a published socket that some wrap has made.
fn private_names(socket: &Declared) -> Vec<PathBuf> {
    let (Some(_), Some(folder), Some(name)) =
        (&socket.private, socket.path.parent(), socket.path.file_name())
    else {
        return Vec::new();
    };
    let prefix = [b".", name.as_encoded_bytes(), b"."].concat();
    let is_private = |found: &[u8]| {
        let rest = found.strip_prefix(prefix.as_slice()).and_then(|rest| std::str::from_utf8(rest).ok());
        let numbers = rest.and_then(|rest| rest.split_once('-'));
        numbers.is_some_and(|(wrap, generation)| {
            wrap.parse::<u32>().is_ok() && generation.parse::<u32>().is_ok()
        })
    };
    let list = std::fs::read_dir(folder).into_iter().flatten().flatten();
    list.filter(|entry| is_private(entry.file_name().as_encoded_bytes())).map(|entry| entry.path()).collect()
}
