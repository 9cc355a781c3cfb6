//! The audit: facts gathered for each expected socket, as few system calls as can be, and the verdict.
//!
//! One dump serves all sockets of a round. What a dump does not show is a suspicion only (it misses live
//! sockets while others come and go): a listener that was known is asked for by itself, an inode that nobody
//! seems to have bound is looked for in further dumps, before either is called gone.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::dentry::{Dentry, DentryKind, Mounts};
use crate::diag::Diag;
use crate::error::AuditError;
use crate::listener::{Listener, ListenerId, ListenerState, Name, SocketKind, Vfs};
use crate::names::{self, Hint};
use crate::procfs::{self, Descriptors, Process};
use crate::reason;
use crate::verdict::{At, Away, Facts, Stage, There, Verdict, decide};

/// How many further dumps look for the listener of an inode before it is called stale.
const CONFIRMING_DUMPS: usize = 3;

/// Whose listener is to be at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Anybody's: the path alone is asked about.
    Anyone,
    /// One of these processes'.
    Pids(Vec<i32>),
    /// The known listener is the service's, and nobody else's: costs no look at processes. What is not `ok`
    /// under it is to be asked again with [`Owner::Pids`].
    Trusted,
}

/// One socket to be audited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The absolute path; or `@name`, abstract.
    pub path: PathBuf,
    /// The type that it is declared with.
    pub kind: Option<SocketKind>,
    /// The listener that was last seen `ok` there.
    pub known: Option<ListenerId>,
    /// Whose it is to be.
    pub owner: Owner,
}

impl Expect {
    /// A path of which nothing else is known.
    pub fn path(path: impl Into<PathBuf>) -> Expect {
        Expect { path: path.into(), kind: None, known: None, owner: Owner::Anyone }
    }
}

/// What the audit says of one socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The path as expected.
    pub path: PathBuf,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in words; empty where all is well.
    pub reason: String,
    /// The service's listener where it lives, else the one at the path.
    pub listener: Option<Listener>,
    /// Its process.
    pub holder: Option<Process>,
    /// Who listens at the path, where that is not the service's listener.
    pub other: Option<Process>,
    /// What lies at the path.
    pub dentry: Option<Dentry>,
    /// The listener is the one at the path.
    pub at_path: bool,
}

impl Finding {
    /// What a look at the folder alone can say of a socket that an instance on its way has not bound.
    pub fn not_bound_yet(path: PathBuf) -> Finding {
        Finding {
            path,
            verdict: Verdict::Absent,
            reason: "nothing lies at the path: not bound yet".into(),
            listener: None,
            holder: None,
            other: None,
            dentry: None,
            at_path: false,
        }
    }
}

/// The listeners of one dump, found by inode.
struct Snapshot {
    listeners: Vec<Listener>,
    by_vfs: HashMap<Vfs, usize>,
}

impl Snapshot {
    fn of(listeners: Vec<Listener>) -> Snapshot {
        let mut by_vfs = HashMap::with_capacity(listeners.len());
        for (i, listener) in listeners.iter().enumerate() {
            if let Some(vfs) = listener.vfs.filter(|_| listener.state != ListenerState::Shut) {
                by_vfs.insert(vfs, i);
            }
        }
        Snapshot { listeners, by_vfs }
    }

    fn at(&self, vfs: Vfs) -> Option<&Listener> {
        self.by_vfs.get(&vfs).and_then(|i| self.listeners.get(*i))
    }
}

/// Audits sockets. Holds a netlink socket and the table of mounts; keep it for the next round.
#[derive(Debug)]
pub struct Auditor {
    diag: Diag,
    mounts: Mounts,
}

impl Auditor {
    /// Opens the way to the kernel.
    ///
    /// # Errors
    /// [`AuditError::Diag`] where the kernel or a sandbox forbids it.
    pub fn new() -> Result<Auditor, AuditError> {
        Ok(Auditor { diag: Diag::open()?, mounts: Mounts::new() })
    }

    /// Audits many sockets with one dump; a finding for each, in order.
    pub fn audit(&mut self, expects: &[Expect]) -> Vec<Finding> {
        self.mounts.refresh();
        let snapshot = self.diag.dump_quick().map(|dump| Snapshot::of(dump.listeners));
        expects.iter().map(|e| self.one(e, snapshot.as_ref().ok())).collect()
    }

    /// Audits one socket: where the known listener lives and is the one at the path, without a dump.
    pub fn confirm(&mut self, expect: &Expect) -> Finding {
        self.mounts.refresh();
        let dentry = self.mounts.look(&expect.path).ok().flatten();
        if let (Owner::Trusted, Some(known), Some(dentry)) = (&expect.owner, expect.known, dentry)
            && let Ok(Some(listener)) = self.diag.query(known.inode, known.cookie)
            && dentry.kind == DentryKind::Socket
            && listener.vfs == Some(dentry.vfs())
            && listener.state == ListenerState::Listening
            && expect.kind.is_none_or(|k| k == listener.kind)
        {
            return Finding {
                path: expect.path.clone(),
                verdict: Verdict::Ok,
                reason: String::new(),
                listener: Some(listener),
                holder: None,
                other: None,
                dentry: Some(dentry),
                at_path: true,
            };
        }
        let snapshot = self.diag.dump_quick().map(|dump| Snapshot::of(dump.listeners));
        self.one(expect, snapshot.as_ref().ok())
    }

    /// Every bound socket of this network namespace, datagram sockets with a peer included.
    ///
    /// # Errors
    /// [`AuditError`], where the kernel does not say.
    pub fn listeners(&mut self) -> Result<Vec<Listener>, AuditError> {
        self.diag.dump()
    }

    /// Whether a listener of a dump still lives.
    pub(crate) fn still(&mut self, listener: &Listener) -> Result<bool, AuditError> {
        self.diag.query(listener.inode, listener.cookie).map(|l| l.is_some())
    }

    /// What lies at a path.
    ///
    /// # Errors
    /// [`AuditError::Look`].
    pub fn look(&mut self, path: &Path) -> Result<Option<Dentry>, AuditError> {
        self.mounts.look(path)
    }

    fn one(&mut self, expect: &Expect, snapshot: Option<&Snapshot>) -> Finding {
        let mut finding = Finding { reason: String::new(), ..Finding::not_bound_yet(expect.path.clone()) };
        let Some(snapshot) = snapshot else {
            finding.verdict = Verdict::Unknown;
            finding.reason = "the kernel does not list its Unix sockets here".into();
            return finding;
        };
        if let Some(name) = abstract_name(&expect.path) {
            self.abstract_one(expect, name, snapshot, &mut finding);
            return finding;
        }
        let (at, vfs) = match self.mounts.look(&expect.path) {
            Err(e) => {
                finding.verdict = Verdict::Unknown;
                finding.reason = e.to_string();
                return finding;
            }
            Ok(None) => (At::Nothing, None),
            Ok(Some(dentry)) => {
                finding.dentry = Some(dentry);
                match dentry.kind {
                    DentryKind::Socket => (At::Socket, Some(dentry.vfs())),
                    DentryKind::Symlink => match self.mounts.follow(&expect.path) {
                        Ok(Some(target)) if target.kind == DentryKind::Socket => {
                            (At::Link, Some(target.vfs()))
                        }
                        _ => (At::Other, None),
                    },
                    _ => (At::Other, None),
                }
            }
        };
        let there = vfs.and_then(|vfs| self.bound_to(vfs, expect, snapshot));
        let owner = there.as_ref().map_or(There::Nobody, |l| self.owner_of(l, expect));
        let own_there = matches!(owner, There::Own(_));
        // Where clients reach the service, an older listener of its own elsewhere plays no part.
        let away = if own_there { None } else { self.elsewhere(vfs, expect, snapshot) };
        let facts = Facts {
            at,
            there: owner,
            away: if away.is_some() { Away::Yes } else { Away::No },
            kind_fits: there.as_ref().is_none_or(|l| expect.kind.is_none_or(|k| k == l.kind)),
        };
        finding.verdict = decide(&facts);
        let describe = |l: &Listener| holder(l, expect);
        if away.is_some() {
            finding.other = there.as_ref().and_then(describe);
        }
        finding.at_path = away.is_none() && there.is_some();
        finding.listener = away.or(there);
        if !(expect.owner == Owner::Trusted && finding.verdict == Verdict::Ok) {
            finding.holder = finding.listener.as_ref().and_then(describe);
        }
        finding.reason = reason::words(&finding, expect);
        finding
    }

    fn abstract_one(&mut self, expect: &Expect, name: &[u8], snapshot: &Snapshot, finding: &mut Finding) {
        let bound = |l: &&Listener| matches!(&l.name, Some(Name::Abstract(n)) if n == name);
        let listener = snapshot.listeners.iter().find(bound).cloned();
        finding.verdict = match listener.as_ref().map(|l| self.owner_of(l, expect)) {
            None => Verdict::Absent,
            Some(There::Own(Stage::Listening)) => Verdict::Ok,
            Some(There::Others(_)) => Verdict::Foreign,
            Some(_) => Verdict::Unknown,
        };
        finding.holder = listener.as_ref().and_then(|l| holder(l, expect));
        finding.listener = listener;
        finding.reason = match finding.verdict {
            Verdict::Absent => "nobody listens on the abstract name".into(),
            _ => reason::words(finding, expect),
        };
    }

    /// Who has bound an inode. Absent from the dump is a suspicion; it is confirmed.
    fn bound_to(&mut self, vfs: Vfs, expect: &Expect, snapshot: &Snapshot) -> Option<Listener> {
        if let Some(listener) = snapshot.at(vfs) {
            return Some(listener.clone());
        }
        if let Some(known) = expect.known
            && let Ok(Some(listener)) = self.diag.query(known.inode, known.cookie)
            && listener.vfs == Some(vfs)
        {
            return Some(listener);
        }
        let mut fingerprint = None;
        for _ in 0..CONFIRMING_DUMPS {
            let Ok(dump) = self.diag.dump_deep() else { continue };
            let again = Some(dump.fingerprint);
            if let Some(listener) = Snapshot::of(dump.listeners).at(vfs) {
                return Some(listener.clone());
            }
            // Two dumps alike: nobody came or went, so none was missed.
            if again == fingerprint {
                break;
            }
            fingerprint = again;
        }
        None
    }

    /// The service's listener on another inode than the path's: the known one, else by what its name hints.
    fn elsewhere(&mut self, at: Option<Vfs>, expect: &Expect, snapshot: &Snapshot) -> Option<Listener> {
        if let Some(known) = expect.known
            && let Ok(Some(listener)) = self.diag.query(known.inode, known.cookie)
            && listener.state != ListenerState::Shut
        {
            return (listener.vfs != at && self.is_own(&listener, expect)).then_some(listener);
        }
        let path = names::normalised(&expect.path);
        let mut best: Option<(Hint, Listener)> = None;
        for listener in &snapshot.listeners {
            if listener.vfs == at || listener.vfs.is_none() || listener.state == ListenerState::Shut {
                continue;
            }
            let Some(hint) = names::hint(listener, &path) else { continue };
            if best.as_ref().is_some_and(|(b, _)| *b == Hint::Exact) && hint != Hint::Exact {
                continue;
            }
            if self.means(listener, hint, &path, expect) {
                best = Some((hint, listener.clone()));
            }
        }
        best.map(|(_, listener)| listener)
    }

    /// Whether a hint holds: the holder is the service's (or anybody, who sees the same files), and a name that is
    /// not the path itself has lost its own file.
    fn means(&mut self, listener: &Listener, hint: Hint, path: &Path, expect: &Expect) -> bool {
        let Some(Name::Path(name)) = &listener.name else { return false };
        let holders = match &expect.owner {
            Owner::Trusted => return false,
            Owner::Pids(pids) => {
                pids.iter().copied().filter(|p| procfs::holds(*p, listener.inode) == Some(true)).collect()
            }
            Owner::Anyone => holders_of(listener.inode),
        };
        let Some(pid) = procfs::foremost(&holders) else {
            // Nobody to ask: the name itself, if it is the very path, is all there is.
            return expect.owner == Owner::Anyone && hint == Hint::Exact;
        };
        if expect.owner == Owner::Anyone && !procfs::same_view(pid) {
            return false;
        }
        match hint {
            Hint::Exact => true,
            Hint::Relative => {
                let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
                cwd.is_ok_and(|cwd| names::resolved(name, &cwd) == path)
            }
            Hint::Temporary => !self.mounts.look(name).is_ok_and(|d| d.map(|d| d.vfs()) == listener.vfs),
        }
    }

    fn is_own(&self, listener: &Listener, expect: &Expect) -> bool {
        matches!(self.owner_of(listener, expect), There::Own(_))
    }

    fn owner_of(&self, listener: &Listener, expect: &Expect) -> There {
        let stage = if listener.state == ListenerState::Bound { Stage::Soon } else { Stage::Listening };
        match &expect.owner {
            Owner::Anyone => There::Own(stage),
            Owner::Trusted if expect.known == Some(listener.id()) => There::Own(stage),
            Owner::Trusted => There::Others(stage),
            Owner::Pids(pids) => {
                let mut unclear = false;
                for pid in pids {
                    match procfs::descriptors(*pid) {
                        Descriptors::Sockets(all) if all.contains(&listener.inode) => {
                            return There::Own(stage);
                        }
                        Descriptors::Sockets(_) => {}
                        Descriptors::Unreadable => unclear = true,
                    }
                }
                if unclear { There::Unclear } else { There::Others(stage) }
            }
        }
    }
}

/// The process to name for a listener: the service's own first.
fn holder(listener: &Listener, expect: &Expect) -> Option<Process> {
    let own: Vec<i32> = match &expect.owner {
        Owner::Pids(pids) => {
            pids.iter().copied().filter(|p| procfs::holds(*p, listener.inode) == Some(true)).collect()
        }
        Owner::Anyone | Owner::Trusted => Vec::new(),
    };
    let pid = procfs::foremost(&own).or_else(|| procfs::foremost(&holders_of(listener.inode)));
    pid.and_then(procfs::describe)
}

fn holders_of(inode: u64) -> Vec<i32> {
    procfs::holders(&HashSet::from([inode])).map(|c| c.holders(inode).to_vec()).unwrap_or_default()
}

fn abstract_name(path: &Path) -> Option<&[u8]> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().strip_prefix(b"@")
}
