//! Other network namespaces. A path socket can be connected to from any of them, but sock_diag lists only
//! its own: a socket file without a listener here may have one there. The namespaces are found through the
//! processes in them; one that may be entered is asked with sock_diag, and of one that may not be, the names
//! in `/proc/<pid>/net/unix` are read. Processes whose namespace this user may not even know are left out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

use crate::diag::Diag;
use crate::error::AuditError;
use crate::listener::Listener;
use crate::procfs;

/// What the other network namespaces say.
#[derive(Debug, Default)]
pub(crate) struct Abroad {
    diags: Vec<Diag>,
    /// A process of each namespace that could not be entered.
    closed: Vec<i32>,
    /// Processes whose namespace this user may not know.
    unknown: usize,
    /// The path names bound there.
    names: Vec<PathBuf>,
}

impl Abroad {
    /// Finds and enters them. Each stays alive until this value is dropped: do not keep it.
    pub(crate) fn find() -> Abroad {
        let mut abroad = Abroad::default();
        for pid in abroad.namespaces().unwrap_or_default() {
            match enter(pid) {
                Some(diag) => abroad.diags.push(diag),
                None => {
                    abroad.closed.push(pid);
                    abroad.names.extend(names(pid));
                }
            }
        }
        abroad
    }

    /// What these could not tell, in words.
    pub(crate) fn blind(&self) -> Vec<String> {
        let closed =
            self.closed.iter().map(|pid| format!("the network namespace of pid {pid} may not be entered"));
        let unknown = (self.unknown > 0)
            .then(|| format!("processes whose network namespace this user may not know: {}", self.unknown));
        closed.chain(unknown).collect()
    }

    /// The listeners of all that could be entered, added to `listeners`.
    pub(crate) fn dump_into(&mut self, listeners: &mut Vec<Listener>) {
        for diag in &mut self.diags {
            listeners.extend(diag.dump().unwrap_or_default());
        }
    }

    /// As [`Diag::query`].
    pub(crate) fn query(&mut self, inode: u64, cookie: u64) -> Option<Listener> {
        self.diags.iter_mut().find_map(|diag| diag.query(inode, cookie).ok().flatten())
    }

    /// Whether a namespace that could not be entered has a socket whose name ends like this, or as one that is
    /// to be renamed to it.
    pub(crate) fn may_have(&self, base: &OsStr) -> bool {
        self.names.iter().filter_map(|name| name.file_name()).any(|name| {
            let rest = name.as_bytes().strip_prefix(base.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'.'))
        })
    }

    /// One process of each network namespace that is not this thread's.
    fn namespaces(&mut self) -> Result<Vec<i32>, AuditError> {
        let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/net"));
        let here = namespace("thread-self").ok();
        let mut found = HashMap::new();
        for pid in procfs::processes()? {
            match namespace(&pid.to_string()) {
                Ok(there) if Some(&there) != here.as_ref() => {
                    found.entry(there).or_insert(pid);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.unknown += 1,
                Ok(_) | Err(_) => {}
            }
        }
        Ok(found.into_values().collect())
    }
}

/// Opens a conversation from a thread that goes there and ends.
fn enter(pid: i32) -> Option<Diag> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).ok()?;
    let visit = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).ok()?;
        Diag::open_here().ok()
    };
    std::thread::Builder::new().name("netns".into()).spawn(visit).ok()?.join().ok()?
}

/// The path names bound in a process's network namespace.
fn names(pid: i32) -> Vec<PathBuf> {
    let table = fs::read(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    table.split(|byte| *byte == b'\n').skip(1).filter_map(name).collect()
}

/// A line of `/proc/net/unix`: six fields, the inode (padded), and all the rest is the name.
fn name(line: &[u8]) -> Option<PathBuf> {
    let inode_and_name = line.splitn(7, |byte| *byte == b' ').nth(6)?.trim_ascii_start();
    let name = inode_and_name.splitn(2, |byte| *byte == b' ').nth(1)?;
    (!name.is_empty() && name.first() != Some(&b'@')).then(|| OsStr::from_bytes(name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_whole_from_the_table() {
        let line = |rest: &str| {
            name(format!("0000000000000000: 00000002 00000000 00010000 0001 01 {rest}").as_bytes())
        };
        assert_eq!(line("3131746 /run/a b.sock"), Some("/run/a b.sock".into()));
        assert_eq!(line("   12 x.sock"), Some("x.sock".into()));
        assert_eq!(line("3131746"), None);
        assert_eq!(line("3131746 @abstract"), None);
        assert_eq!(name(b""), None);
    }

    #[test]
    fn a_closed_namespace_is_suspected_by_name() {
        let abroad = Abroad { names: vec!["/run/x.sock.7.tmp".into()], ..Abroad::default() };
        assert!(abroad.may_have(OsStr::new("x.sock")));
        assert!(!abroad.may_have(OsStr::new("x.so")));
    }
}
