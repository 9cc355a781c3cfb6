//! The listeners whose names may speak for a path: those that bear its file's name, or that with an addition, in its folder.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::listener::{Listener, ListenerState};
use crate::snapshot::Snapshot;
use crate::whereabouts::{Place, is_private};

/// What tells a folder from others, where it exists.
struct FolderId(Option<(u64, u64)>);

impl FolderId {
    fn of(folder: &Path) -> FolderId {
        FolderId(std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino())))
    }

    /// Whether the two may be one folder: where one is gone, their names must tell.
    fn may_be(&self, other: Option<&Path>) -> bool {
        let other = other.map_or(FolderId(None), FolderId::of);
        self.0.zip(other.0).is_none_or(|(one, other)| one == other)
    }
}

/// The listeners whose names may speak for a path, in another folder's place left out; of those that are asked for. With the
/// path's own place, `None` where there is no such listener.
pub(crate) fn bearers<'a>(
    snapshot: &'a Snapshot,
    path: &Path,
    asked: impl Fn(&Listener) -> bool,
) -> Option<(Place, Vec<&'a Listener>)> {
    let mut found = snapshot.named_like(path.file_name()?);
    found.retain(|found| found.vfs.is_some() && found.state == ListenerState::Listening && asked(found));
    found.sort_by_key(|found| found.inode);
    found.dedup_by_key(|found| found.inode);
    let place = (!found.is_empty()).then(|| Place::of(path)).flatten()?;
    // A hundred services have an rpc.sock each: whose theirs are does not matter, nor where their links lead.
    let folder = FolderId::of(&place.folder);
    found.retain(|found| found.path().is_some_and(|name| is_private(name) || folder.may_be(name.parent())));
    Some((place, found))
}
