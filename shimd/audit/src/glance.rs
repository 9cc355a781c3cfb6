//! A glance: one look at each path and one quick dump, for instances that are on their way.
//!
//! A server that is about to listen is not there yet, or is bound and does not listen yet. That is a suspicion, and to
//! make a verdict of it takes rounds of dumps of everything, and walks over `/proc`; a moment later it would be out of
//! date. So all that a glance tells is who is in order by now. It costs no more than that, however many are not.

use crate::audit::{Auditor, Expect, Finding, findings, plainly_ok};
use crate::inquiry::Inquiry;
use crate::listener::ListenerState;
use crate::verdict::{At, Verdict, decide};

impl Auditor {
    /// A finding for each expectation whose listener is in order, in order; `None` where that is not to be seen at
    /// once, whatever the reason: [`Auditor::audit`] tells.
    pub fn glance(&mut self, expects: &[Expect]) -> Vec<Option<Finding>> {
        self.mounts.refresh();
        let sights: Vec<_> = expects.iter().map(|expect| self.sight(&expect.path)).collect();
        let Ok((snapshot, _)) = self.dump(false, &mut None) else {
            return expects.iter().map(|_| None).collect();
        };
        let mut inquiry = Inquiry::new(self, &snapshot, None, expects);
        let mut found: Vec<Option<Finding>> = Vec::with_capacity(expects.len());
        let mut cases = Vec::new();
        for (index, (expect, sight)) in expects.iter().zip(sights).enumerate() {
            let plain = plainly_ok(expect, &sight, &mut inquiry, index);
            let listens = match sight.at {
                At::Socket | At::Link => sight
                    .vfs()
                    .is_some_and(|vfs| snapshot.at(vfs).any(|found| found.state == ListenerState::Listening)),
                // An abstract name has nothing to look at.
                _ => expect.path.is_relative(),
            };
            if plain.is_none() && listens {
                let case = inquiry.judge(expect, sight);
                if decide(&case.facts) == Verdict::Ok {
                    cases.push((index, expect, case));
                }
            }
            found.push(plain);
        }
        let census = inquiry.into_census();
        for (index, finding) in findings(cases, census, &mut self.mounts) {
            if let Some(place) = found.get_mut(index) {
                // A bridge in its place is none of the service's.
                *place = Some(finding).filter(|finding| finding.verdict == Verdict::Ok);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Owner;
    use std::os::unix::net::UnixListener;

    #[test]
    fn who_is_in_order_is_told_and_of_nobody_else_anything() {
        let folder = std::env::temp_dir().join(format!("socket-audit-glance-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name);
        let me = || Owner::Pids(vec![std::process::id() as i32]);
        let others = || Owner::Pids(vec![1]);
        let well = UnixListener::bind(path("well")).unwrap();
        let _strange = UnixListener::bind(path("strange")).unwrap();
        drop(UnixListener::bind(path("stale")).unwrap());
        let lost = UnixListener::bind(path("lost")).unwrap();
        std::fs::remove_file(path("lost")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        let bound = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let address = nix::sys::socket::UnixAddr::new(&path("bound")).unwrap();
        nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&bound), &address).unwrap();
        let mut auditor = Auditor::new().unwrap();
        let expects = [
            ("well", me()),
            ("well", Owner::Anyone),
            ("strange", others()),
            ("stale", me()),
            ("lost", me()),
            ("file", me()),
            ("bound", me()),
            ("nothing", me()),
        ]
        .map(|(name, owner)| Expect { owner, ..Expect::path(path(name)) });
        let found = auditor.glance(&expects);
        let told: Vec<_> = found.iter().map(|found| found.as_ref().map(|f| f.verdict)).collect();
        assert_eq!(told, [Some(Verdict::Ok), Some(Verdict::Ok), None, None, None, None, None, None]);
        // What it tells is what an audit tells.
        let whole = auditor.audit(&expects[..2]);
        let glanced: Vec<_> = found.into_iter().take(2).flatten().collect();
        assert_eq!(glanced, whole);
        drop((well, lost));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
