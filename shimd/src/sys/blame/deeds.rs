//! From an event to deeds, and the ring that keeps the latest of them. Pure.
//!
//! | event | deed | on |
//! | --- | --- | --- |
//! | DELETE | removed | the name |
//! | RENAME (Linux 5.17), else MOVED_FROM | moved away | the old name |
//! | RENAME, else MOVED_TO | moved in: what had this name is replaced | the new name |
//! | CREATE: bind, open, link, mkdir | created | the name |
//! | ATTRIB: chmod, chown, utimes | attributes | the name, or `.` for the folder itself |
//!
//! The kernel merges what one process does to one name before it is read; the deeds then come in the order of this
//! table, which need not be that of the process.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use super::event::{End, Entry, Event};
use super::marks::Marks;
use super::{Deed, DeedKind, Who};

/// How many deeds are kept.
pub(super) const KEPT: usize = 4096;

/// A deed whose doer is not yet known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    kind: DeedKind,
    folder: PathBuf,
    name: OsString,
}

impl Claim {
    pub(super) fn by(self, who: Who, at: Instant) -> Deed {
        Deed { at, kind: self.kind, folder: self.folder, name: self.name, who }
    }
}

/// What `event` did to names that matter; nothing for almost all events of a busy folder.
pub(super) fn claims(marks: &Marks, event: &Event) -> Vec<Claim> {
    let place = |end| {
        let entry = event.entries.iter().find(|entry| entry.end == end)?;
        Some((marks.path_of(&entry.folder)?.to_owned(), entry.name.clone()))
    };
    let has = |bit| event.mask & bit != 0;
    let mut claims = Vec::new();
    for entry in &event.entries {
        let mut claim = |entry: &Entry, kind: DeedKind| {
            claims.extend(marks.wanting(&entry.folder, &entry.name).map(|folder| Claim {
                kind: kind.clone(),
                folder: folder.to_owned(),
                name: entry.name.clone(),
            }));
        };
        match entry.end {
            End::Old => claim(entry, DeedKind::MovedAway { to: place(End::New) }),
            End::New => claim(entry, DeedKind::MovedIn { from: place(End::Old) }),
            End::Here => {
                for (bit, kind) in [
                    (libc::FAN_DELETE, DeedKind::Removed),
                    (libc::FAN_MOVED_FROM, DeedKind::MovedAway { to: None }),
                    (libc::FAN_MOVED_TO, DeedKind::MovedIn { from: None }),
                    (libc::FAN_CREATE, DeedKind::Created),
                    (libc::FAN_ATTRIB, DeedKind::Attributes),
                ] {
                    if has(bit) {
                        claim(entry, kind);
                    }
                }
            }
        }
    }
    claims
}

/// The latest deeds, the newest last.
#[derive(Debug, Default)]
pub(super) struct Ring(VecDeque<Deed>);

impl Ring {
    pub(super) fn add(&mut self, deeds: impl IntoIterator<Item = Deed>) {
        for deed in deeds {
            if self.0.len() >= KEPT {
                self.0.pop_front();
            }
            self.0.push_back(deed);
        }
    }

    /// Those not older than `since`, the newest first.
    pub(super) fn newest(&self, since: Instant) -> impl DoubleEndedIterator<Item = &Deed> {
        let old = self.0.partition_point(|deed| deed.at < since);
        self.0.range(old..).rev()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::time::Duration;

    use super::super::event::FileId;
    use super::super::marks::Known;
    use super::*;

    fn id(folder: u8) -> FileId {
        FileId { fsid: [0, 0], kind: 1, handle: vec![folder] }
    }

    fn entry(end: End, folder: u8, name: &str) -> Entry {
        Entry { end, folder: id(folder), name: name.into() }
    }

    /// `/a` and `/b`, each with `x` wanted; the folders 3 and up are not known.
    fn marks() -> Marks {
        let mut marks = Marks::default();
        let names = BTreeSet::from(["x".into(), ".".into()]);
        marks.enter(Path::new("/a"), &Known::of(id(1)), &names);
        marks.enter(Path::new("/b"), &Known::of(id(2)), &names);
        marks
    }

    fn told(mask: u64, entries: Vec<Entry>) -> Vec<(DeedKind, String)> {
        let claims = claims(&marks(), &Event { mask, pid: 1, pidfd: None, entries });
        claims.into_iter().map(|c| (c.kind, c.folder.join(c.name).display().to_string())).collect()
    }

    fn place(folder: &str, name: &str) -> Option<(PathBuf, OsString)> {
        Some((folder.into(), name.into()))
    }

    #[test]
    fn other_names_and_folders_are_nothing() {
        assert!(told(libc::FAN_DELETE, vec![entry(End::Here, 1, "y")]).is_empty());
        assert!(told(libc::FAN_DELETE, vec![entry(End::Here, 3, "x")]).is_empty());
        assert!(told(libc::FAN_RENAME, vec![entry(End::Old, 1, "y"), entry(End::New, 3, "x")]).is_empty());
        assert!(told(libc::FAN_Q_OVERFLOW, Vec::new()).is_empty());
    }

    #[test]
    fn what_was_merged_is_taken_apart() {
        let all = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_ATTRIB;
        let path = "/a/x".to_owned();
        assert_eq!(
            told(all, vec![entry(End::Here, 1, "x")]),
            [
                (DeedKind::Removed, path.clone()),
                (DeedKind::Created, path.clone()),
                (DeedKind::Attributes, path)
            ]
        );
    }

    #[test]
    fn rename_is_told_at_each_end_that_matters() {
        let both = vec![entry(End::Old, 1, "x"), entry(End::New, 2, "x")];
        assert_eq!(
            told(libc::FAN_RENAME, both),
            [
                (DeedKind::MovedAway { to: place("/b", "x") }, "/a/x".to_owned()),
                (DeedKind::MovedIn { from: place("/a", "x") }, "/b/x".to_owned()),
            ]
        );
        let over = vec![entry(End::Old, 2, "temporary"), entry(End::New, 2, "x")];
        let moved_in = DeedKind::MovedIn { from: place("/b", "temporary") };
        assert_eq!(told(libc::FAN_RENAME, over), [(moved_in, "/b/x".to_owned())]);
        let away = vec![entry(End::Old, 1, "x"), entry(End::New, 3, "x")];
        assert_eq!(told(libc::FAN_RENAME, away), [(DeedKind::MovedAway { to: None }, "/a/x".to_owned())]);
        let old_kernel = told(libc::FAN_MOVED_TO, vec![entry(End::Here, 1, "x")]);
        assert_eq!(old_kernel, [(DeedKind::MovedIn { from: None }, "/a/x".to_owned())]);
    }

    #[test]
    fn ring_keeps_the_newest_and_finds_by_time() {
        let start = Instant::now();
        let at = |n: u64| start + Duration::from_millis(n);
        let who = Who { pid: 1, name: String::new(), exe: None, uid: None, mark: None };
        let claim = Claim { kind: DeedKind::Removed, folder: "/a".into(), name: "x".into() };
        let mut ring = Ring::default();
        let count = KEPT as u64 + 10;
        ring.add((0..count).map(|n| claim.clone().by(who.clone(), at(n))));
        assert_eq!(ring.newest(start).count(), KEPT);
        assert_eq!(ring.newest(start).next_back().unwrap().at, at(10));
        let late: Vec<_> = ring.newest(at(count - 2)).map(|deed| deed.at).collect();
        assert_eq!(late, [at(count - 1), at(count - 2)]);
    }
}
