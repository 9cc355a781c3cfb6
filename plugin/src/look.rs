//! Sockets that this plugin looks at by itself: any path, and the whole machine. No daemon is needed.
//!
//! A look can be repeated. The kernel raises no event when a listener comes, goes or loses its path, so whoever wants to
//! see changes looks again: every half second.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use nu_protocol::{LabeledError, Span};
use shimd_api::wire::SocketRow;
use socket_audit::{AuditError, Auditor, Diag, Expect, Finding, ListenerId, Verdict};

use crate::error;
use crate::stop::Stop;

/// How often changes are looked for.
const AGAIN: Duration = Duration::from_millis(500);

/// Any paths: whoever listens there will do.
pub fn paths(paths: impl Iterator<Item = PathBuf>) -> Vec<SocketRow> {
    audit(&paths.map(Expect::path).collect::<Vec<_>>())
}

fn audit(expects: &[Expect]) -> Vec<SocketRow> {
    if expects.is_empty() {
        return Vec::new();
    }
    match Auditor::new() {
        Ok(mut auditor) => auditor.audit(expects).iter().map(found).collect(),
        // A machine that does not show its sockets: nothing is known, and that is what is said.
        Err(problem) => {
            let unknown = |expect: &Expect| SocketRow {
                verdict: Verdict::Unknown.as_str().into(),
                reason: Some(problem.to_string()),
                ..bare_row(&expect.path)
            };
            expects.iter().map(unknown).collect()
        }
    }
}

/// Every named listener of the machine that is not in order.
pub struct System {
    /// Their rows.
    pub rows: Vec<SocketRow>,
    /// What could not be looked at, in words.
    pub blind: Vec<String>,
    /// The listener of each row.
    listeners: Vec<Option<ListenerId>>,
}

/// Looks at the whole machine.
///
/// # Errors
/// `proc::denied`: the kernel does not let its sockets be seen.
pub fn system(head: Span) -> Result<System, LabeledError> {
    let report = Auditor::new()
        .and_then(|mut auditor| auditor.system())
        .map_err(|problem| error::audit(&problem, head))?;
    Ok(System {
        rows: report.findings.iter().map(found).collect(),
        listeners: report
            .findings
            .iter()
            .map(|finding| finding.listener.as_ref().map(|listener| listener.id()))
            .collect(),
        blind: report.blind,
    })
}

/// Whether sockets can be looked at here.
///
/// # Errors
/// Why not.
pub fn possible() -> Result<(), AuditError> {
    Auditor::new().map(drop)
}

/// The paths' rows, then one for each change of verdict.
pub fn watch_paths(paths: impl Iterator<Item = PathBuf>, stop: &Stop) -> Watched {
    let expects: Vec<Expect> = paths.map(Expect::path).collect();
    let mut verdicts: HashMap<String, String> = HashMap::new();
    let mut first = true;
    let look = move || {
        let mut rows = audit(&expects);
        rows.retain(|row| {
            verdicts.insert(row.path.clone(), row.verdict.clone()).as_ref() != Some(&row.verdict)
        });
        if !std::mem::take(&mut first) {
            rows.iter_mut().for_each(changed_now);
        }
        Ok(rows)
    };
    Watched::new(Box::new(look), stop)
}

/// The rows of what was seen first, then one for each listener that is no longer, or newly, not in order.
pub fn watch_system(seen: System, head: Span, stop: &Stop) -> Watched {
    let mut first = seen.rows.clone();
    let mut known = by_listener(seen);
    let look = move || {
        if !first.is_empty() {
            return Ok(std::mem::take(&mut first));
        }
        let now = by_listener(system(head)?);
        let mut rows: Vec<SocketRow> = now
            .iter()
            .filter(|(key, (row, _))| known.get(*key).is_none_or(|(before, _)| before.verdict != row.verdict))
            .map(|(_, (row, _))| row.clone())
            .collect();
        let gone = known.iter().filter(|(key, _)| !now.contains_key(*key));
        rows.extend(gone.map(|(_, (row, listener))| put_right(row, *listener)));
        known = now;
        rows.iter_mut().for_each(changed_now);
        Ok(rows)
    };
    Watched::new(Box::new(look), stop)
}

type Rows = Vec<SocketRow>;

/// Rows by path and socket: of several listeners that were bound to one path, each counts.
fn by_listener(system: System) -> HashMap<(String, Option<u64>), (SocketRow, Option<ListenerId>)> {
    let rows = system.rows.into_iter().zip(system.listeners);
    rows.map(|(row, listener)| ((row.path.clone(), row.inode), (row, listener))).collect()
}

/// The row of a socket that was not in order and now is, or has no listener any more.
fn put_right(row: &SocketRow, listener: Option<ListenerId>) -> SocketRow {
    let alive =
        |id: ListenerId| Diag::open().and_then(|mut diag| diag.query(id.inode, id.cookie)).ok().flatten();
    match listener.and_then(alive) {
        Some(listener) => SocketRow {
            verdict: Verdict::Ok.as_str().into(),
            reason: None,
            pending: Some(listener.pending),
            backlog: Some(listener.backlog),
            ..row.clone()
        },
        // What its end has left behind.
        None => audit(&[Expect::path(&row.path)]).pop().unwrap_or_else(|| row.clone()),
    }
}

fn changed_now(row: &mut SocketRow) {
    row.since = Some(Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true));
}

/// Repeated looks, as long as they are wanted.
pub struct Watched {
    look: Box<dyn FnMut() -> Result<Rows, LabeledError> + Send>,
    rows: VecDeque<SocketRow>,
    looked: bool,
    stop: Stop,
}

impl Watched {
    fn new(look: Box<dyn FnMut() -> Result<Rows, LabeledError> + Send>, stop: &Stop) -> Watched {
        Watched { look, rows: VecDeque::new(), looked: false, stop: stop.clone() }
    }
}

impl Iterator for Watched {
    type Item = Result<SocketRow, LabeledError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Some(Ok(row));
            }
            if self.looked && self.stop.wait(AGAIN) {
                return None;
            }
            self.looked = true;
            match (self.look)() {
                Ok(rows) => self.rows.extend(rows),
                Err(problem) => return Some(Err(problem)),
            }
        }
    }
}

fn found(finding: &Finding) -> SocketRow {
    SocketRow {
        verdict: finding.verdict.as_str().into(),
        reason: (!finding.reason.is_empty()).then(|| finding.reason.to_string()),
        pid: finding.holder.as_ref().map(|holder| holder.pid),
        inode: finding.listener.as_ref().map(|listener| listener.inode),
        pending: finding.listener.as_ref().map(|listener| listener.pending),
        backlog: finding.listener.as_ref().map(|listener| listener.backlog),
        ..bare_row(&finding.path)
    }
}

/// The row of a path of which nothing is known.
pub fn bare_row(path: &Path) -> SocketRow {
    let whole = path.display().to_string();
    SocketRow {
        service: None,
        socket: path.file_name().map_or_else(|| whole.clone(), |name| name.to_string_lossy().into_owned()),
        path: whole,
        verdict: String::new(),
        reason: None,
        pid: None,
        inode: None,
        pending: None,
        backlog: None,
        since: None,
        culprit: None,
        relinked: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use std::os::unix::net::UnixListener;

    /// Set by the test, or else soon: no watch waits for ever.
    fn soon() -> Stop {
        let stop = Stop::default();
        let limit = stop.clone();
        std::thread::spawn(move || {
            limit.wait(Duration::from_secs(30));
            limit.set();
        });
        stop
    }

    fn next(watched: &mut Watched) -> (String, String, bool) {
        let row = watched.next().unwrap().unwrap();
        (row.socket, row.verdict, row.since.is_some())
    }

    fn row(socket: &str, verdict: &str, changed: bool) -> (String, String, bool) {
        (socket.into(), verdict.into(), changed)
    }

    #[test]
    fn each_change_at_a_path_is_one_row() {
        let folder = Folder::new();
        let path = folder.path().join("a.sock");
        let stop = soon();
        let mut watched = watch_paths([path.clone(), folder.path().join("b.sock")].into_iter(), &stop);
        assert_eq!(next(&mut watched), row("a.sock", "absent", false));
        assert_eq!(next(&mut watched), row("b.sock", "absent", false));
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(next(&mut watched), row("a.sock", "ok", true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(next(&mut watched), row("a.sock", "dangling", true));
        drop(listener);
        assert_eq!(next(&mut watched), row("a.sock", "absent", true));
        stop.set();
        assert!(watched.next().is_none());
    }

    #[test]
    fn what_is_in_order_again_on_the_machine_is_told_once() {
        // Another name in the same folder would do for clients.
        let (folder, pins) = (Folder::new(), Folder::new());
        let (path, pin) = (folder.path().join("lost.sock"), pins.path().join("pin"));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::hard_link(&path, &pin).unwrap();
        std::fs::remove_file(&path).unwrap();
        let stop = soon();
        let mut watched = watch_system(system(Span::test_data()).unwrap(), Span::test_data(), &stop);
        // Other tests lose sockets meanwhile.
        let mut mine = || {
            let path = path.display().to_string();
            let row = watched.by_ref().map(Result::unwrap).find(|row| row.path == path).unwrap();
            (row.verdict, row.inode.is_some())
        };
        assert_eq!(mine(), ("dangling".into(), true));
        std::fs::hard_link(&pin, &path).unwrap();
        assert_eq!(mine(), ("ok".into(), true));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mine(), ("dangling".into(), true));
        drop(listener);
        assert_eq!(mine(), ("absent".into(), false));
    }
}
