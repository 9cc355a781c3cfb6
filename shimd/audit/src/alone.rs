//! Whether anybody else may have lost a path: one quick dump, for a clean that is to come.
//!
//! Who listens at a path is told by its file. Who has bound it once and has lost it is told by a dump alone, and that costs
//! the more the more sockets the machine has. So it is taken while the service still serves, and not in its gap.

use std::path::Path;

use crate::audit::Auditor;
use crate::bearers::bearers;
use crate::listener::ListenerId;

impl Auditor {
    /// Whether no listener bears a name that may speak for one of these paths, save the known ones. False where that cannot
    /// be told. Datagram sockets with a peer and other network namespaces are not looked for.
    pub fn are_alone(&mut self, paths: &[&Path], known: &[ListenerId]) -> bool {
        let Ok((snapshot, _)) = self.dump(false, &mut None) else { return false };
        let strange = |path: &&Path| {
            bearers(&snapshot, path, |found| !known.contains(&found.id()))
                .is_some_and(|(_, found)| !found.is_empty())
        };
        !paths.iter().any(strange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn who_has_lost_the_path_is_seen_and_who_serves_another_is_not() {
        let folder = std::env::temp_dir().join(format!("socket-audit-alone-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("other")).unwrap();
        let path = folder.join("rpc.sock");
        let _namesake = UnixListener::bind(folder.join("other/rpc.sock")).unwrap();
        let mut auditor = Auditor::new().unwrap();
        assert!(auditor.are_alone(&[&path], &[]));
        let own = UnixListener::bind(&path).unwrap();
        assert!(!auditor.are_alone(&[&path], &[]));
        let known = auditor.audit(&[crate::Expect::path(&path)]).pop().unwrap().listener.unwrap().id();
        assert!(auditor.are_alone(&[&path], &[known]));
        std::fs::remove_file(&path).unwrap();
        let newer = UnixListener::bind(&path).unwrap();
        assert!(!auditor.are_alone(&[&path], &[known]), "the newer one is another's");
        std::fs::remove_file(&path).unwrap();
        assert!(!auditor.are_alone(&[&path], &[known]), "also without its file");
        drop(newer);
        assert!(auditor.are_alone(&[&path, &folder.join("none")], &[known]));
        drop(own);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
