//! The pure part of watching: which components of a path are watched, and for what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sys::inotify::AddWatchFlags as Mask;

/// What a component of a folder's path is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// The folder itself.
    Target,
    /// The lowest that exists, or its parent.
    Near,
    /// Further up.
    Above,
}

/// How many folders use a component in each role.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Uses {
    target: u32,
    near: u32,
    above: u32,
}

impl Uses {
    fn count(&mut self, role: Role) -> &mut u32 {
        match role {
            Role::Target => &mut self.target,
            Role::Near => &mut self.near,
            Role::Above => &mut self.above,
        }
    }

    pub(super) fn add(&mut self, role: Role) {
        *self.count(role) += 1;
    }

    pub(super) fn remove(&mut self, role: Role) {
        let count = self.count(role);
        *count = count.saturating_sub(1);
    }

    pub(super) fn none(&self) -> bool {
        *self == Uses::default()
    }

    /// What to watch for, all uses together. UNMOUNT, IGNORED and Q_OVERFLOW come unasked.
    pub(super) fn mask(&self) -> Mask {
        let mut mask = Mask::IN_DELETE_SELF | Mask::IN_MOVE_SELF | Mask::IN_ATTRIB;
        if self.near + self.target > 0 {
            mask |= Mask::IN_CREATE | Mask::IN_MOVED_TO | Mask::IN_DELETE | Mask::IN_MOVED_FROM;
        }
        mask
    }
}

/// The components of `folder`'s path to watch while `lowest` is the lowest of them that exists.
pub(super) fn roles(folder: &Path, lowest: &Path) -> Vec<(PathBuf, Role)> {
    let role = |at: usize| match at {
        0 if lowest == folder => Role::Target,
        0 | 1 => Role::Near,
        _ => Role::Above,
    };
    lowest.ancestors().enumerate().map(|(at, component)| (component.into(), role(at))).collect()
}

/// The lowest component of an absolute path that is a folder now (`/` at the least).
pub(super) fn lowest_existing(folder: &Path) -> PathBuf {
    folder.ancestors().find(|component| component.is_dir()).unwrap_or(Path::new("/")).into()
}

/// The entries at `path` and below it.
pub(super) fn below<'a, T>(
    map: &'a BTreeMap<PathBuf, T>,
    path: &'a Path,
) -> impl Iterator<Item = (&'a PathBuf, &'a T)> {
    map.range(path.to_path_buf()..).take_while(move |(key, _)| key.starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_a_folder_that_exists() {
        let roles = roles(Path::new("/a/b/c"), Path::new("/a/b/c"));
        let expected =
            [("/a/b/c", Role::Target), ("/a/b", Role::Near), ("/a", Role::Above), ("/", Role::Above)];
        assert_eq!(roles, expected.map(|(path, role)| (path.into(), role)));
    }

    #[test]
    fn roles_of_one_that_is_missing() {
        let roles = roles(Path::new("/a/b/c"), Path::new("/a"));
        assert_eq!(roles, [("/a", Role::Near), ("/", Role::Near)].map(|(path, role)| (path.into(), role)));
    }

    #[test]
    fn below_takes_components_not_letters() {
        let map: BTreeMap<PathBuf, ()> =
            ["/a", "/a/b", "/a/b/c", "/a/bb", "/a.b", "/b"].map(|path| (path.into(), ())).into();
        let found: Vec<_> = below(&map, Path::new("/a/b")).map(|(path, ())| path.to_str().unwrap()).collect();
        assert_eq!(found, ["/a/b", "/a/b/c"]);
        assert_eq!(below(&map, Path::new("/")).count(), 6);
        assert_eq!(below(&map, Path::new("/a")).count(), 4);
    }
}
