//! The names that sockets were bound to, against a path.
//!
//! The kernel's name is frozen at `bind`: it may be relative to a folder that only the process knows, hold
//! `//` or `..`, or be a temporary name that was renamed into place (haproxy binds `<path>.<pid>.tmp`). So a
//! name is only ever a hint, used where no inode can tell.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::listener::{Listener, Name};

/// How a listener's name speaks for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// It is the path.
    Exact,
    /// It is relative, and ends as the path does: the holder's working folder decides.
    Relative,
    /// It is the path and a suffix: bound under a temporary name, and renamed.
    Temporary,
}

/// Whether the name a listener was bound to may mean `path` (absolute, normalised).
pub(crate) fn hint(listener: &Listener, path: &Path) -> Option<Hint> {
    let Some(Name::Path(name)) = &listener.name else { return None };
    if name.is_relative() {
        return path.ends_with(normalised(name)).then_some(Hint::Relative);
    }
    if name == path {
        return Some(Hint::Exact);
    }
    let name = normalised(name);
    if name == path {
        return Some(Hint::Exact);
    }
    let (own, wanted) = (name.file_name()?.as_bytes(), path.file_name()?.as_bytes());
    let suffixed = own.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(b"."));
    (suffixed && name.parent() == path.parent()).then_some(Hint::Temporary)
}

/// The path that a holder with this working folder meant.
pub(crate) fn resolved(name: &Path, cwd: &Path) -> PathBuf {
    normalised(&cwd.join(name))
}

/// Without `.`, `//` and, as far as names alone can tell, `..`.
pub(crate) fn normalised(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{ListenerState, SocketKind};

    fn bound(name: &str) -> Listener {
        Listener {
            inode: 1,
            cookie: 1,
            kind: SocketKind::Stream,
            state: ListenerState::Listening,
            name: Some(Name::Path(name.into())),
            vfs: None,
            pending: 0,
            backlog: 0,
            uid: None,
        }
    }

    #[test]
    fn a_name_speaks_for_its_path_however_it_was_written() {
        let speaks = |name: &str| hint(&bound(name), Path::new("/run/a/rpc.sock"));
        assert_eq!(speaks("/run/a/rpc.sock"), Some(Hint::Exact));
        assert_eq!(speaks("/run//a/./b/../rpc.sock"), Some(Hint::Exact));
        assert_eq!(speaks("rpc.sock"), Some(Hint::Relative));
        assert_eq!(speaks("./a/rpc.sock"), Some(Hint::Relative));
        assert_eq!(speaks("/run/a/rpc.sock.812.tmp"), Some(Hint::Temporary));
        for other in ["/run/a/rpc.sock2", "/run/b/rpc.sock", "other.sock", "/run/b/rpc.sock.1", "/"] {
            assert_eq!(speaks(other), None, "{other}");
        }
    }
}
