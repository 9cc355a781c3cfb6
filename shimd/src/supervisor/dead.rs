//! The files that an instance has left, as far as they are proven to be nobody's without a question to each.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use socket_audit::Auditor;

use super::sweep::Past;
use crate::sys::clean::Seen;

/// Files on which nobody listens, nor ever will, by the rule of [`Witness`](socket_audit::Witness): each is held, and the
/// one kernel socket that has ever been bound to it has ended. Another file at the same path is none of these.
#[derive(Default)]
pub struct Dead {
    /// Device and inode.
    files: Vec<(u64, u64)>,
    /// How many listeners have ended.
    ended: usize,
}

impl Dead {
    /// Asks the kernel for each listener; one that it does not tell of has not ended.
    pub fn of(past: &[Past], auditor: &mut Auditor) -> Dead {
        let mut dead = Dead::default();
        for past in past.iter().filter(|past| matches!(auditor.lives(past.listener), Ok(false))) {
            dead.ended += 1;
            let witness = past.witness.as_ref().filter(|held| held.listener() == Some(past.listener));
            dead.files.extend(witness.and_then(|held| held.id()));
        }
        dead
    }

    /// Whether all listeners have ended of which it was made.
    pub fn is_all_of(&self, past: &[Past]) -> bool {
        self.ended == past.len()
    }

    /// Whether one of these files lies at a path.
    pub fn lies_at(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok_and(|found| self.files.contains(&(found.dev(), found.ino())))
    }

    /// Whether this is one of them.
    pub fn is(&self, seen: &Seen) -> bool {
        self.files.contains(&(seen.dev, seen.ino))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use socket_audit::{Expect, SocketKind, Witness};

    use super::*;

    #[test]
    fn a_file_is_dead_once_its_own_listener_has_ended_and_another_at_its_path_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpc.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut auditor = Auditor::new().unwrap();
        let id = auditor.audit(&[Expect::path(&path)]).remove(0).listener.unwrap().id();
        let witness = Arc::new(Witness::of(&path).unwrap());
        let past = |witness: Option<&Arc<Witness>>| {
            [Past { path: path.clone(), kind: SocketKind::Stream, listener: id, witness: witness.cloned() }]
        };
        auditor.vouch(&witness, id);
        let alive = Dead::of(&past(Some(&witness)), &mut auditor);
        assert!(!alive.is_all_of(&past(None)) && !alive.lies_at(&path));

        drop(listener);
        let dead = Dead::of(&past(Some(&witness)), &mut auditor);
        assert!(dead.is_all_of(&past(None)) && dead.lies_at(&path));
        let unheld = Dead::of(&past(None), &mut auditor);
        assert!(
            unheld.is_all_of(&past(None)) && !unheld.lies_at(&path),
            "nothing keeps its number from another"
        );
        let of_nobody_known = Arc::new(Witness::of(&path).unwrap());
        assert!(!Dead::of(&past(Some(&of_nobody_known)), &mut auditor).lies_at(&path));

        std::fs::remove_file(&path).unwrap();
        let _next = UnixListener::bind(&path).unwrap();
        assert!(!dead.lies_at(&path));
    }
}
