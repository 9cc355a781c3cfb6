//! One dump, indexed for the questions of an audit. Only the index by inode is built at once; the others
//! serve suspects, and most audits have none.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::listener::{Listener, ListenerId, Name, Vfs};

/// The listeners of one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    listeners: Vec<Listener>,
    /// Sorted. One inode can have several sockets: subvolumes of btrfs share numbers, and only 32 bits show.
    by_vfs: Vec<(Vfs, u32)>,
    by_inode: OnceCell<HashMap<u64, u32>>,
    /// Sorted by the last part of the path name.
    by_base: OnceCell<Vec<u32>>,
    by_abstract: OnceCell<HashMap<Arc<[u8]>, u32>>,
}

impl Snapshot {
    pub(crate) fn new(listeners: Vec<Listener>) -> Snapshot {
        let numbered = (0u32..).zip(&listeners);
        let mut by_vfs: Vec<_> = numbered.filter_map(|(at, listener)| Some((listener.vfs?, at))).collect();
        by_vfs.sort_unstable();
        Snapshot { listeners, by_vfs, ..Snapshot::default() }
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The sockets bound to an inode.
    pub(crate) fn at(&self, vfs: Vfs) -> impl Iterator<Item = &Listener> {
        let from = self.by_vfs.partition_point(|(other, _)| *other < vfs);
        let found = self.by_vfs.get(from..).unwrap_or_default();
        found.iter().take_while(move |(other, _)| *other == vfs).filter_map(|(_, at)| self.get(*at))
    }

    /// The socket with this identity.
    pub(crate) fn id(&self, id: ListenerId) -> Option<&Listener> {
        let index = self
            .by_inode
            .get_or_init(|| (0u32..).zip(&self.listeners).map(|(at, found)| (found.inode, at)).collect());
        self.get(*index.get(&id.inode)?).filter(|found| found.cookie == id.cookie)
    }

    /// The sockets whose path name ends in `base`, `base.<anything>` or `.base.<anything>`.
    pub(crate) fn named_like(&self, base: &OsStr) -> Vec<&Listener> {
        let index = self.by_base.get_or_init(|| {
            let mut index: Vec<u32> = (0u32..)
                .zip(&self.listeners)
                .filter(|(_, found)| base_of(found).is_some())
                .map(|(at, _)| at)
                .collect();
            index.sort_by_key(|at| self.get(*at).and_then(base_of));
            index
        });
        let hidden = [b".", base.as_bytes()].concat();
        let mut found = Vec::new();
        for prefix in [base.as_bytes(), &hidden] {
            let from = index.partition_point(|at| self.get(*at).and_then(base_of) < Some(prefix));
            let listeners = index.get(from..).unwrap_or_default().iter().filter_map(|at| self.get(*at));
            let like =
                listeners.take_while(|found| base_of(found).is_some_and(|base| base.starts_with(prefix)));
            found.extend(like.filter(|found| {
                let rest = base_of(found).and_then(|base| base.get(prefix.len()..)).unwrap_or_default();
                (rest.is_empty() && prefix.len() == base.len()) || rest.first() == Some(&b'.')
            }));
        }
        found
    }

    /// The socket with this abstract name; there is at most one in a network namespace.
    pub(crate) fn abstract_named(&self, name: &[u8]) -> Option<&Listener> {
        let index = self.by_abstract.get_or_init(|| {
            let named = (0u32..).zip(&self.listeners);
            named
                .filter_map(|(at, found)| match &found.name {
                    Some(Name::Abstract(name)) => Some((name.clone(), at)),
                    Some(Name::Path(_)) | None => None,
                })
                .collect()
        });
        self.get(*index.get(name)?)
    }

    fn get(&self, at: u32) -> Option<&Listener> {
        self.listeners.get(at as usize)
    }
}

fn base_of(listener: &Listener) -> Option<&[u8]> {
    listener.path()?.file_name().map(OsStr::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{ListenerState, SocketKind};

    fn listener(inode: u64, name: &str, ino: u32) -> Listener {
        Listener {
            inode,
            cookie: inode,
            kind: SocketKind::Stream,
            state: ListenerState::Listening,
            name: Some(Name::Path(std::path::Path::new(name).into())),
            vfs: Some(Vfs { dev: 1, ino }),
            pending: 0,
            backlog: 0,
            uid: None,
        }
    }

    #[test]
    fn listeners_are_found_by_inode_identity_and_likeness_of_name() {
        let snapshot = Snapshot::new(vec![
            listener(1, "/a/x.sock", 10),
            listener(2, "x.sock.77.tmp", 11),
            listener(3, "/b/.x.sock.new", 11),
            listener(4, "/b/x.sockets", 12),
            listener(5, "/b/.x.sock", 13),
        ]);
        let inodes = |found: Vec<&Listener>| found.iter().map(|found| found.inode).collect::<Vec<_>>();
        assert_eq!(inodes(snapshot.named_like(OsStr::new("x.sock"))), [1, 2, 3]);
        assert_eq!(inodes(snapshot.at(Vfs { dev: 1, ino: 11 }).collect()), [2, 3]);
        assert_eq!(snapshot.at(Vfs { dev: 2, ino: 11 }).count(), 0);
        assert_eq!(snapshot.id(ListenerId { inode: 4, cookie: 4 }).map(|found| found.inode), Some(4));
        assert_eq!(snapshot.id(ListenerId { inode: 4, cookie: 5 }), None);
    }
}
