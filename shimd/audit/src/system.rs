//! Every named listener of the machine that is not in order, whoever started it.
//!
//! Judged from each listener's side: does the path that it was bound to still lead to it? One dump, one look
//! a listener; only for suspects are processes walked, for their programs, their working folders (relative
//! names), their roots and mounts (a container's path is not ours), and their folders (a temporary name that
//! was renamed into place).

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::audit::{Auditor, Finding};
use crate::dentry::{Dentry, DentryKind, Mounts};
use crate::error::AuditError;
use crate::listener::{Listener, ListenerState, Name};
use crate::names;
use crate::procfs::{self, Census};
use crate::verdict::Verdict;

/// What a look at the whole machine gave.
#[derive(Debug, Clone, Default)]
pub struct SystemReport {
    /// The listeners that clients do not reach at their names.
    pub findings: Vec<Finding>,
    /// What could not be seen, in words.
    pub blind: Vec<String>,
}

impl Auditor {
    /// Looks at every named listener of this network namespace. Works as any user; what that user may not see is
    /// said in `blind`.
    ///
    /// # Errors
    /// [`AuditError`], where the kernel does not list its sockets or `/proc` cannot be read.
    pub fn system(&mut self) -> Result<SystemReport, AuditError> {
        let listeners = self.listeners()?;
        let mut mounts = Mounts::new();
        let named =
            |l: &&Listener| l.state == ListenerState::Listening && matches!(l.name, Some(Name::Path(_)));
        let suspects: Vec<&Listener> =
            listeners.iter().filter(named).filter(|l| !leads_here(l, l.path(), &mut mounts)).collect();
        let mut report = SystemReport::default();
        if suspects.is_empty() {
            return Ok(report);
        }
        let census = procfs::holders(&suspects.iter().map(|l| l.inode).collect::<HashSet<_>>())?;
        for listener in suspects {
            self.suspect(listener, &census, &mut mounts, &mut report);
        }
        if !census.unreadable.is_empty() {
            report.blind.push(format!(
                "the open files of {} processes of other users could not be read: their listeners have no pid here (ask as root)",
                census.unreadable.len()
            ));
        }
        report.blind.push(
            "listeners in other network namespaces (containers) are not listed by the kernel here".into(),
        );
        Ok(report)
    }

    fn suspect(
        &mut self,
        listener: &Listener,
        census: &Census,
        mounts: &mut Mounts,
        report: &mut SystemReport,
    ) {
        let Some(name) = listener.path() else { return };
        let pid = procfs::foremost(census.holders(listener.inode));
        let path = match (name.is_relative(), pid.and_then(cwd)) {
            (false, _) => names::normalised(name),
            (true, Some(cwd)) => names::resolved(name, &cwd),
            (true, None) => {
                let why = format!(
                    "{}: bound by a relative name, by a process whose folder is not known",
                    name.display()
                );
                return report.blind.push(why);
            }
        };
        if let Some(pid) = pid.filter(|p| !procfs::same_view(*p)) {
            // Judged with its own eyes, where we may.
            let seen = PathBuf::from(format!("/proc/{pid}/root{}", path.display()));
            let mut theirs = Mounts::of_process(pid);
            match theirs.look(&seen) {
                Ok(_) if leads_here(listener, Some(&seen), &mut theirs) => return,
                Ok(_) => {}
                Err(_) => {
                    return report
                        .blind
                        .push(format!("{}: in a root or mount namespace of its own", path.display()));
                }
            }
        }
        if leads_here(listener, Some(&path), mounts) || renamed_nearby(listener, &path, mounts) {
            return;
        }
        // Gone meanwhile: not a suspect but a listener that came and went.
        if !matches!(self.still(listener), Ok(true)) {
            return;
        }
        let dentry = mounts.look(&path).ok().flatten();
        report.findings.push(finding(listener, path, dentry, pid));
    }
}

fn finding(listener: &Listener, path: PathBuf, dentry: Option<Dentry>, pid: Option<i32>) -> Finding {
    let holder = pid.and_then(procfs::describe);
    let who = holder.as_ref().map_or_else(|| "a process that cannot be seen".to_owned(), ToString::to_string);
    let (verdict, reason) = match dentry {
        None => (
            Verdict::Dangling,
            format!("nothing lies at the path, but {who} still listens on the socket that was there"),
        ),
        Some(d) => (
            Verdict::Replaced,
            format!(
                "{} lies at the path, and {who} still listens on the socket that was there before",
                d.kind.words()
            ),
        ),
    };
    Finding {
        path,
        verdict,
        reason,
        listener: Some(listener.clone()),
        holder,
        other: None,
        dentry,
        at_path: false,
    }
}

fn cwd(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Whether a path leads to the listener's inode.
fn leads_here(listener: &Listener, path: Option<&Path>, mounts: &mut Mounts) -> bool {
    let Some(path) = path.filter(|p| p.is_absolute()) else { return false };
    let here = |found: Result<Option<Dentry>, AuditError>| {
        found.is_ok_and(|d| d.is_some_and(|d| d.kind == DentryKind::Socket && listener.vfs == Some(d.vfs())))
    };
    here(mounts.look(path)) || here(mounts.follow(path))
}

/// Whether the inode lies in the same folder under another name: bound under a temporary one, and renamed.
fn renamed_nearby(listener: &Listener, path: &Path, mounts: &mut Mounts) -> bool {
    let Some(entries) = path.parent().and_then(|p| std::fs::read_dir(p).ok()) else { return false };
    entries.flatten().any(|entry| {
        entry.file_type().is_ok_and(|t| std::os::unix::fs::FileTypeExt::is_socket(&t))
            && leads_here(listener, Some(&entry.path()), mounts)
    })
}
