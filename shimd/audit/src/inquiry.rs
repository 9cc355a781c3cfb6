//! From one look at a path and one dump to the facts of its verdict: which socket is bound there, whose it is,
//! and whether the service's listener lives on another inode. How it receives its clients: [`crate::reception`].
//!
//! A listener is another inode's but *of* this path if it is the known one, or if its name says so:
//! - it names the same folder and file, however it is spelt, relative names read in the holder's folder;
//! - it is the file's name with an addition (`x.sock.812.tmp`, `.x.sock.new`) in the same folder, and nothing in
//!   that folder leads to it: bound so, renamed into place, and then lost;
//! - it is held by the owner and names the same file in a folder that can no longer be known.
//!
//! Whose a listener is, is read from `/proc/<pid>/fd`. Where this user may not read a process of the owner
//! (another user's, or one that is not dumpable), the listener is the owner's by elimination: no process that
//! can be read holds it, and none that cannot be read, and is not the owner's, is of the user who created it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

use crate::access::Refusal;
use crate::audit::{Auditor, Expect, Owner, abstract_name};
use crate::bearers::bearers;
use crate::dentry::Dentry;
use crate::error::AuditError;
use crate::listener::{Listener, ListenerId, ListenerState, SocketKind, Vfs};
use crate::netns::Abroad;
use crate::procfs::{self, Census, Descriptors, foremost};
use crate::reach::Reach;
use crate::snapshot::Snapshot;
use crate::verdict::{Access, At, Away, Facts, QueueState, Stage, There, Verdict, decide};
use crate::whereabouts::{Place, Whereabouts, is_private, same_view, whereabouts};
use crate::witness::Witness;

/// What one look at a path gave.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) at: At,
    pub(crate) dentry: Option<Dentry>,
    /// The socket that a client reaches.
    pub(crate) target: Option<Dentry>,
    pub(crate) trouble: Option<Box<AuditError>>,
}

impl Sight {
    /// The socket's inode.
    pub(crate) fn vfs(&self) -> Option<Vfs> {
        self.target.map(|target| target.vfs())
    }
}

/// One path's judgement in the making.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) facts: Facts,
    pub(crate) dentry: Option<Dentry>,
    /// The socket bound to the inode at the path.
    pub(crate) there: Option<Listener>,
    /// The service's listener on another inode.
    pub(crate) away: Option<Listener>,
    /// The process of the owner's that holds the service's listener, where one was looked for.
    pub(crate) pid: Option<i32>,
    /// Outsiders that were bound to this path and have lost it.
    pub(crate) outsiders: Vec<Listener>,
    /// The socket at the path lives and is shut down.
    pub(crate) shut: bool,
    /// Whether somebody whom no dump shows is bound to the socket file, where the file may be asked.
    pub(crate) bound: Option<bool>,
    /// Who may not connect, and why.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) trouble: Option<Box<AuditError>>,
}

/// What two rounds have to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Evidence {
    facts: Facts,
    dentry: Option<Dentry>,
    there: Option<ListenerId>,
    away: Option<ListenerId>,
}

impl Case {
    pub(crate) fn new(sight: Sight) -> Case {
        Case {
            facts: Facts {
                at: sight.at,
                there: There::Nobody,
                away: Away::No,
                kind_fits: true,
                access: Access::Open,
                queue: QueueState::Flows,
            },
            dentry: sight.dentry,
            there: None,
            away: None,
            pid: None,
            outsiders: Vec::new(),
            shut: false,
            bound: None,
            refusal: None,
            trouble: sight.trouble,
        }
    }

    /// The case of a path that the kernel gave no answer for.
    pub(crate) fn unanswered(trouble: &AuditError) -> Case {
        Case::new(Sight {
            at: At::Hidden,
            dentry: None,
            target: None,
            trouble: Some(Box::new(trouble.clone())),
        })
    }

    /// The service's own listener.
    pub(crate) fn own(&self) -> Option<&Listener> {
        match self.facts.there {
            There::Own(_) => self.there.as_ref(),
            There::Nobody | There::Others(_) | There::Unclear => self.away.as_ref(),
        }
    }

    /// The socket at the path, if it is not the service's or may not be.
    pub(crate) fn stranger(&self) -> Option<&Listener> {
        self.there.as_ref().filter(|_| !matches!(self.facts.there, There::Own(_)))
    }

    /// Whether the verdict rests on what was seen, so that nothing a dump missed could overturn it.
    pub(crate) fn rests_on_presence(&self) -> bool {
        match decide(&self.facts) {
            Verdict::Ok | Verdict::Dangling | Verdict::Wedged | Verdict::Denied => true,
            Verdict::Replaced => self.facts.at == At::Other || self.there.is_some(),
            Verdict::Unknown => self.facts.at == At::Hidden || self.there.is_some(),
            Verdict::Foreign | Verdict::Stale | Verdict::NotSocket | Verdict::Absent => false,
        }
    }

    pub(crate) fn evidence(&self) -> Evidence {
        Evidence {
            facts: self.facts,
            dentry: self.dentry,
            there: self.there.as_ref().map(Listener::id),
            away: self.away.as_ref().map(Listener::id),
        }
    }
}

/// Whose a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The owner's, and the process that was seen to hold it.
    Own(Option<i32>),
    Others,
    Unclear,
}

/// Whether a listener may be bound in the subvolume of a path: neither a rename nor a hard link leaves it. The
/// folders are compared, since files of an overlay have devices of their own.
fn may_be_at(listener: &Listener, expect: &Expect) -> bool {
    let device = |place: Option<Place>| Some(std::fs::metadata(place?.folder).ok()?.dev());
    let name = listener.path().filter(|name| !is_private(name)).and_then(Place::of);
    let target = std::fs::canonicalize(&expect.path).unwrap_or_else(|_| expect.path.clone());
    match (device(name), device(Place::of(&target))) {
        (Some(bound), Some(wanted)) => bound == wanted,
        _ => true,
    }
}

/// How well a name speaks for a path, the weaker first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// The same file name, in a folder that can no longer be known.
    SameFile,
    /// The file name with an addition, in the same folder.
    Addition,
    /// The same place.
    Same,
}

/// The questions of one round. Each process's descriptors are read once at most, and so is all of `/proc`.
pub(crate) struct Inquiry<'a> {
    pub(crate) auditor: &'a mut Auditor,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) reach: Reach,
    abroad: Option<&'a mut Abroad>,
    pub(crate) expects: &'a [Expect],
    census: Option<Census>,
    descriptors: HashMap<i32, Descriptors>,
}

impl<'a> Inquiry<'a> {
    pub(crate) fn new(
        auditor: &'a mut Auditor,
        snapshot: &'a Snapshot,
        abroad: Option<&'a mut Abroad>,
        expects: &'a [Expect],
    ) -> Inquiry<'a> {
        let (reach, descriptors) = (Reach::default(), HashMap::new());
        Inquiry { auditor, snapshot, reach, abroad, expects, census: None, descriptors }
    }

    /// The walk over `/proc`, if one was taken: of all sockets.
    pub(crate) fn into_census(self) -> Option<Census> {
        self.census
    }

    /// The facts about one path.
    pub(crate) fn judge(&mut self, expect: &Expect, sight: Sight) -> Case {
        let (target, vfs) = (sight.target, sight.vfs());
        let ambiguous = target.is_some_and(|target| target.dev != target.stat_dev);
        let mut case = Case::new(sight);
        if case.facts.at == At::Hidden {
            self.shut(expect, &mut case);
            return case;
        }
        let mut there = match abstract_name(&expect.path) {
            Some(name) => self.snapshot.abstract_named(name).cloned(),
            None => vfs.and_then(|vfs| self.there(expect, vfs, ambiguous)),
        };
        let mut away = None;
        if let Some(known) = expect.known
            && there.as_ref().map(Listener::id) != Some(known)
        {
            let alive = self.alive(known);
            match &alive {
                Some(found)
                    if there.is_none() && found.vfs == vfs && (!ambiguous || may_be_at(found, expect)) =>
                {
                    there = alive;
                }
                _ => away = alive.filter(|found| found.state == ListenerState::Listening),
            }
        }
        if let Some(found) = there {
            if found.vfs.is_none() {
                case.facts.at = At::Socket; // abstract: to be listed is to be there
            }
            self.place(expect, &mut case, found);
        }
        if case.facts.there == There::Own(Stage::Listening) && case.facts.kind_fits {
            self.receive(expect, &mut case, target);
        }
        if matches!(case.facts.there, There::Own(_)) || abstract_name(&expect.path).is_some() {
            return case;
        }
        if let Some(found) = away {
            match self.whose(&found, expect) {
                Whose::Own(pid) => {
                    (case.facts.away, case.away, case.pid) = (Away::Yes, Some(found), pid);
                    return case;
                }
                Whose::Unclear => case.facts.away = Away::Unclear,
                Whose::Others => {}
            }
        }
        self.namesakes(expect, vfs, &mut case);
        if case.facts.at == At::Socket && case.facts.there == There::Nobody && !case.shut {
            self.ask_the_file(expect, &mut case);
        }
        case
    }

    /// Nobody in the dump is bound to the file. The file itself says whether anybody is: one whom the dump has missed, or
    /// who is in another network namespace. Where it may not be asked, such a namespace may have a socket of its name.
    fn ask_the_file(&self, expect: &Expect, case: &mut Case) {
        let held = Witness::of(&expect.path).ok();
        let held = held.filter(|held| case.dentry.is_some_and(|dentry| held.is_at(&dentry)));
        case.bound = held.and_then(|held| held.is_bound());
        let base = expect.path.file_name();
        let may_be = || self.abroad.as_ref().zip(base).is_some_and(|(abroad, base)| abroad.may_have(base));
        if case.bound.unwrap_or_else(may_be) {
            case.facts.there = There::Unclear;
        }
    }

    /// The socket bound to an inode: rather the known one, rather one that listens, rather one of this name.
    fn there(&self, expect: &Expect, vfs: Vfs, ambiguous: bool) -> Option<Listener> {
        let mut found = self.snapshot.at(vfs).filter(|found| !ambiguous || may_be_at(found, expect));
        let first = found.next()?;
        let rank = |found: &Listener| {
            let state = match found.state {
                ListenerState::Listening => 2,
                ListenerState::Bound => 1,
                ListenerState::Shut => 0,
            };
            (Some(found.id()) == expect.known, state, found.path() == Some(&expect.path))
        };
        let best = found.fold(first, |best, other| if rank(other) > rank(best) { other } else { best });
        Some(best.clone())
    }

    /// Puts the socket at the path into the case.
    fn place(&mut self, expect: &Expect, case: &mut Case, found: Listener) {
        let stage = match found.state {
            ListenerState::Listening => Stage::Listening,
            ListenerState::Bound => Stage::Soon,
            ListenerState::Shut => {
                case.shut = true;
                return;
            }
        };
        case.facts.kind_fits = expect.kind.is_none_or(|kind| kind == found.kind);
        case.facts.there = match self.whose(&found, expect) {
            Whose::Own(pid) => {
                case.pid = pid;
                There::Own(stage)
            }
            Whose::Others => There::Others(stage),
            Whose::Unclear => There::Unclear,
        };
        case.there = Some(found);
    }

    /// Looks for the service's listener among those whose name speaks for the path, and for outsiders'.
    fn namesakes(&mut self, expect: &Expect, vfs: Option<Vfs>, case: &mut Case) {
        let Some((place, found)) = bearers(self.snapshot, &expect.path, |found| found.vfs != vfs) else {
            return;
        };
        let mut own: Vec<(Likeness, &Listener, Option<i32>)> = Vec::new();
        for listener in found {
            let whose = self.whose(listener, expect);
            let holder = match whose {
                Whose::Own(Some(pid)) => Some(pid),
                _ => foremost(self.census().holders(listener.inode)),
            };
            let Some(likeness) = self.likeness(expect, &place, listener, whose, holder) else { continue };
            match whose {
                Whose::Own(pid) => own.push((likeness, listener, pid)),
                Whose::Others if likeness == Likeness::Same => case.outsiders.push(listener.clone()),
                Whose::Others => {}
                Whose::Unclear => case.facts.away = Away::Unclear,
            }
        }
        own.sort_by_key(|(likeness, listener, _)| (*likeness, listener.inode));
        if let Some((_, listener, pid)) = own.pop() {
            (case.facts.away, case.away, case.pid) = (Away::Yes, Some(listener.clone()), pid);
            let same = own.iter().filter(|(likeness, ..)| *likeness == Likeness::Same);
            case.outsiders.extend(same.map(|(_, listener, _)| (*listener).clone()));
        }
    }

    /// How a listener that is not at the path speaks for it; `None` if it is another path's.
    fn likeness(
        &mut self,
        expect: &Expect,
        place: &Place,
        listener: &Listener,
        whose: Whose,
        holder: Option<i32>,
    ) -> Option<Likeness> {
        let name = listener.path()?;
        let owned = expect.owner != Owner::Anyone && matches!(whose, Whose::Own(_));
        let strange = || !owned && holder.and_then(same_view) == Some(false);
        let bound = Place::of_name(name, holder);
        if bound.as_ref() == Some(place) {
            return (!strange()).then_some(Likeness::Same);
        }
        let claimed = || self.expects.iter().any(|other| other.path == name);
        let likeness = match bound {
            Some(bound) if bound.folder == place.folder && !claimed() && !strange() => Likeness::Addition,
            _ if owned && is_private(name) && name.file_name() == expect.path.file_name() => {
                Likeness::SameFile
            }
            _ => return None,
        };
        match whereabouts(listener, holder, &mut self.auditor.mounts) {
            Whereabouts::Reachable => None,
            Whereabouts::Lost(_) | Whereabouts::Unknown => Some(likeness),
        }
    }

    /// Whether the kernel has said by itself that the path's own listener is gone, and nobody else can be at the path: the
    /// file there was that listener's, or there is none. Of datagram sockets the dumps that look for everybody are wanted
    /// all the same: quick ones leave out those that have a peer.
    pub(crate) fn proves_gone(&mut self, expect: &Expect, case: &Case) -> bool {
        let Some(witness) = expect.witness.as_ref().filter(|_| {
            case.there.is_none()
                && case.away.is_none()
                && !matches!(expect.kind, None | Some(SocketKind::Dgram))
        }) else {
            return false;
        };
        let known = expect.known.filter(|known| witness.listener() == Some(*known));
        let vacant = match (case.facts.at, &case.dentry) {
            (At::Nothing, None) => true,
            (At::Socket, Some(dentry)) => witness.is_at(dentry),
            _ => false,
        };
        // The kernel's own word, where the dump has none.
        vacant
            && known.is_some_and(|known| {
                self.snapshot.id(known).is_none()
                    && matches!(self.auditor.diag.query(known.inode, known.cookie), Ok(None))
            })
    }

    pub(crate) fn whose(&mut self, listener: &Listener, expect: &Expect) -> Whose {
        let pids = match &expect.owner {
            Owner::Anyone => return Whose::Own(None),
            Owner::Trusted if expect.known == Some(listener.id()) => return Whose::Own(None),
            Owner::Trusted => return Whose::Unclear,
            Owner::Pids(pids) => pids,
        };
        let mut unreadable = false;
        for pid in pids {
            match self.descriptors_of(*pid) {
                Descriptors::Sockets(held) if held.contains(&listener.inode) => {
                    return Whose::Own(Some(*pid));
                }
                Descriptors::Sockets(_) => {}
                Descriptors::Unreadable => unreadable = true,
            }
        }
        if !unreadable {
            return Whose::Others;
        }
        let census = self.census();
        if !census.holders(listener.inode).is_empty() {
            return Whose::Others;
        }
        let rival =
            |(pid, uid): &(i32, Option<u32>)| !pids.contains(pid) && (uid.is_none() || *uid == listener.uid);
        let rivals = listener.uid.is_none() || census.unreadable.iter().any(rival);
        if rivals { Whose::Unclear } else { Whose::Own(None) }
    }

    /// A listener by its identity: from the dump, or where that missed it, from the kernel itself.
    pub(crate) fn alive(&mut self, known: ListenerId) -> Option<Listener> {
        if let Some(found) = self.snapshot.id(known) {
            return Some(found.clone());
        }
        let here = self.auditor.diag.query(known.inode, known.cookie).ok().flatten();
        here.or_else(|| self.abroad.as_mut()?.query(known.inode, known.cookie))
    }

    pub(crate) fn descriptors_of(&mut self, pid: i32) -> &Descriptors {
        self.descriptors.entry(pid).or_insert_with(|| procfs::descriptors(pid))
    }

    pub(crate) fn census(&mut self) -> &Census {
        self.census.get_or_insert_with(|| Census::take(None).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What an audit thinks of a path if its dump has missed everything.
    fn judge_blindly(auditor: &mut Auditor, expect: &Expect) -> Case {
        let dentry = auditor.mounts.look(&expect.path).unwrap();
        let at = if dentry.is_some() { At::Socket } else { At::Nothing };
        let sight = Sight { at, dentry, target: dentry, trouble: None };
        Inquiry::new(auditor, &Snapshot::default(), None, &[]).judge(expect, sight)
    }

    #[test]
    fn what_a_dump_misses_is_asked_for_by_itself_and_otherwise_stays_a_suspicion() {
        let path = std::env::temp_dir().join(format!("socket-audit-missed-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let mut auditor = Auditor::new().unwrap();
        let bare = Expect::path(&path);
        let known = auditor.confirm(&bare).listener.map(|found| found.id());
        let expect = Expect { known, owner: Owner::Trusted, ..bare.clone() };
        let case = judge_blindly(&mut auditor, &bare);
        assert_eq!(decide(&case.facts), Verdict::Unknown);
        assert!(!case.rests_on_presence(), "an audit goes on to further rounds");
        assert_eq!(decide(&judge_blindly(&mut auditor, &expect).facts), Verdict::Ok);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(decide(&judge_blindly(&mut auditor, &expect).facts), Verdict::Dangling);
        drop(listener);
        assert_eq!(decide(&judge_blindly(&mut auditor, &expect).facts), Verdict::Absent);
    }
}
