//! Whether the service's own listener, found where it should be, can be reached and takes connections; and whether
//! a folder that may not be searched keeps its own user out.

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::access::{Peers, Refusal};
use crate::audit::{Expect, Owner, abstract_name};
use crate::dentry::Dentry;
use crate::error::AuditError;
use crate::inquiry::{Case, Inquiry, Whose};
use crate::listener::{Listener, ListenerState, SocketKind};
use crate::procfs::{self, Descriptors, foremost};
use crate::verdict::{Access, At, Away, QueueState};
use crate::whereabouts::same_view;

impl Listener {
    /// Whether more connections wait than there is room for. What waits at a datagram socket are bytes.
    pub(crate) fn is_full(&self) -> bool {
        self.kind != SocketKind::Dgram && self.pending > self.backlog
    }

    /// Whether connections wait.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.kind != SocketKind::Dgram && self.pending > 0
    }

    /// Whether the connections that wait can be taken, as far as one look tells.
    pub(crate) fn queue_state(&self, all_stopped: impl FnOnce() -> bool) -> QueueState {
        if self.is_full() {
            QueueState::Full
        } else if self.is_waited_for() && all_stopped() {
            QueueState::Stopped
        } else {
            QueueState::Flows
        }
    }
}

impl Inquiry<'_> {
    /// Puts into the case how the service's listener at the path, `target`, receives its clients.
    pub(crate) fn receive(&mut self, expect: &Expect, case: &mut Case, target: Option<Dentry>) {
        let Some(listener) = &case.there else { return };
        case.facts.queue = listener.queue_state(|| self.all_stopped(listener.inode, expect));
        let Some(target) = target.filter(|_| abstract_name(&expect.path).is_none()) else { return };
        let inode = listener.inode;
        case.refusal = self.refusal(expect, target, case.pid);
        if case.refusal.is_some() && expect.owner == Owner::Anyone && expect.peers == Peers::Owner {
            // Its process may have groups that its user has not.
            let holder = foremost(self.census().holders(inode));
            case.refusal = self.refusal(expect, target, holder);
        }
        case.facts.access = if case.refusal.is_some() { Access::Closed } else { Access::Open };
    }

    fn refusal(&mut self, expect: &Expect, target: Dentry, holder: Option<i32>) -> Option<Refusal> {
        self.reach.refusal(&mut self.auditor.mounts, &expect.path, target, &expect.peers, holder)
    }

    /// Whether every process is stopped that is known to hold a listener, and there are such.
    fn all_stopped(&mut self, inode: u64, expect: &Expect) -> bool {
        let holders = match &expect.owner {
            Owner::Trusted => return false,
            Owner::Anyone => self.census().holders(inode).to_vec(),
            Owner::Pids(pids) => {
                let mut holds = |pid: &i32| matches!(self.descriptors_of(*pid), Descriptors::Sockets(held) if held.contains(&inode));
                let seen: Vec<i32> = pids.iter().copied().filter(|pid| holds(pid)).collect();
                // The owner's by elimination: by any of its processes.
                if seen.is_empty() { pids.clone() } else { seen }
            }
        };
        procfs::all_stopped(&holders)
    }

    /// A path that this user may not look at, though it has bound a listener there: its clients are shut out too.
    pub(crate) fn shut(&mut self, expect: &Expect, case: &mut Case) {
        let forbidden =
            |trouble: &AuditError| matches!(trouble, AuditError::Look { errno: Errno::EACCES, .. });
        if !case.trouble.as_deref().is_some_and(forbidden) {
            return;
        }
        let me = geteuid().as_raw();
        let Some((listener, pid)) = self.bound_to(expect).filter(|(found, _)| found.uid == Some(me)) else {
            return;
        };
        let Some(refusal) = self.reach.own_refusal(&mut self.auditor.mounts, &expect.path) else { return };
        (case.facts.at, case.facts.away) = (At::Shut, Away::Unclear);
        (case.away, case.pid, case.refusal) = (Some(listener), pid, Some(refusal));
    }

    /// The service's listener that is known, or whose name is the path itself.
    fn bound_to(&mut self, expect: &Expect) -> Option<(Listener, Option<i32>)> {
        let known = expect.known.and_then(|known| self.alive(known));
        let base = expect.path.file_name()?;
        let snapshot = self.snapshot;
        let named = snapshot.named_like(base).into_iter().filter(|found| found.path() == Some(&expect.path));
        let candidates: Vec<Listener> = known.into_iter().chain(named.cloned()).collect();
        candidates.into_iter().filter(|found| found.state == ListenerState::Listening).find_map(|found| {
            let Whose::Own(pid) = self.whose(&found, expect) else { return None };
            let holder = pid.or_else(|| match expect.owner {
                Owner::Anyone => foremost(self.census().holders(found.inode)),
                Owner::Trusted | Owner::Pids(_) => None,
            });
            let strange = expect.owner == Owner::Anyone && holder.and_then(same_view) == Some(false);
            (!strange).then_some((found, holder))
        })
    }
}
