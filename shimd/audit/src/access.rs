//! Whether a peer may connect, by the kernel's rule (path_resolution(7), `fs/namei.c`): it needs search (x) on
//! every folder that leads to the socket, and write (w) on the socket.
//!
//! Of one inode one class alone decides: the owner's bits for its owner; else the access list where there is one
//! (and the group bits, which are its mask then, are not all empty); else the group's bits for the members of its
//! group; else the others'. So an owner can be shut out where everybody else gets in.
//!
//! | who is judged                | uid 0                                                        |
//! | ---------------------------- | ------------------------------------------------------------ |
//! | [`Peers::Owner`], by default | gets in where any class has the bit, as root may execute     |
//! | [`Peers::Named`]             | gets in                                                      |
//!
//! The kernel lets root connect whatever the bits are. But a socket with the mode 0000 is meant to be shut, or was
//! shut by mistake, and for the clients of a service of root's the bits are what counts. Security modules (SELinux,
//! AppArmor) and user namespaces are not judged.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::acl::Acl;

/// A user or a group that is to be able to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for reasons.
    pub name: String,
    /// The user; `None` for any member of a group.
    pub uid: Option<u32>,
    /// The user's groups, or the group.
    pub gids: Vec<u32>,
}

/// Who is to be able to connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Peers {
    /// Processes of the user who owns the socket's inode.
    #[default]
    Owner,
    /// These.
    Named(Arc<[Peer]>),
}

/// What the kernel would look at in one inode on the way.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) path: PathBuf,
    /// The socket, which is to be written to; else a folder, which is to be searched.
    pub(crate) is_socket: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its access list, read by `read_acl` once it matters.
    pub(crate) acl: OnceCell<Option<Acl>>,
    pub(crate) read_acl: fn(&Path) -> Option<Acl>,
}

/// Whose bits decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Owner,
    Group,
    Other,
    List,
}

impl Gate {
    /// The bit that is needed, as the others' bit.
    pub(crate) fn want(&self) -> u32 {
        if self.is_socket { libc::S_IWOTH } else { libc::S_IXOTH }
    }

    /// The access list that decides for all but the owner.
    fn acl(&self) -> Option<&Acl> {
        if self.mode & libc::S_IRWXG == 0 {
            return None;
        }
        self.acl.get_or_init(|| (self.read_acl)(&self.path)).as_ref()
    }

    /// Whether any class at all has the bit.
    fn is_open_to_any(&self) -> bool {
        self.mode & (self.want() * 0o111) != 0
    }

    /// Lets a peer through, or says whose bits do not.
    pub(crate) fn admits(&self, peer: &Peer, named: bool) -> Result<(), Class> {
        let admitted = |open: bool, class| if open { Ok(()) } else { Err(class) };
        let class_has = |shift: u32| (self.mode >> shift) & self.want() != 0;
        let in_group = |gid: u32| peer.gids.contains(&gid);
        if peer.uid == Some(0) {
            admitted(named || self.is_open_to_any(), Class::Owner)
        } else if peer.uid == Some(self.uid) {
            admitted(class_has(6), Class::Owner)
        } else if let Some(acl) = self.acl() {
            admitted(acl.allows(peer.uid, in_group, self.gid, self.want()), Class::List)
        } else if in_group(self.gid) {
            admitted(class_has(3), Class::Group)
        } else {
            admitted(class_has(0), Class::Other)
        }
    }
}

/// Who is shut out, and where.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) obstacles: Vec<Obstacle>,
}

/// One inode that lets peers down who got so far.
#[derive(Debug, Clone)]
pub(crate) struct Obstacle {
    pub(crate) gate: Gate,
    pub(crate) peers: Vec<(Peer, Class)>,
}

/// Sends each peer through the gates in their order; `None` if all get in.
pub(crate) fn refusal<'a>(
    peers: &[Peer],
    named: bool,
    gates: impl IntoIterator<Item = &'a Gate>,
) -> Option<Refusal> {
    let mut on_the_way: Vec<&Peer> = peers.iter().collect();
    let mut obstacles = Vec::new();
    for gate in gates {
        let mut refused = Vec::new();
        on_the_way.retain(|peer| match gate.admits(peer, named) {
            Ok(()) => true,
            Err(class) => {
                refused.push(((*peer).clone(), class));
                false
            }
        });
        if !refused.is_empty() {
            obstacles.push(Obstacle { gate: gate.clone(), peers: refused });
        }
    }
    (!obstacles.is_empty()).then_some(Refusal { obstacles })
}

impl Refusal {
    /// In words, with what to do; `user` and `group` name ids.
    pub(crate) fn words(&self, user: impl Fn(u32) -> String, group: impl Fn(u32) -> String) -> String {
        let each = self.obstacles.iter().map(|obstacle| obstacle.words(&user, &group));
        each.collect::<Vec<_>>().join("; ")
    }
}

impl Obstacle {
    fn words(&self, user: impl Fn(u32) -> String, group: impl Fn(u32) -> String) -> String {
        let names = self.peers.iter().map(|(peer, _)| peer.name.as_str()).collect::<Vec<_>>().join(", ");
        let (gate, several) = (&self.gate, self.peers.len() > 1);
        let bits = format!("mode {:04o}", gate.mode & 0o7777);
        let owner = user(gate.uid);
        let clients = if several { "clients " } else { "" };
        let listed =
            if self.peers.iter().any(|(_, class)| *class == Class::List) { ", access list" } else { "" };
        let what = if gate.is_socket {
            let them = if several { "them" } else { "it" };
            format!("the socket's {bits} (owner {owner}{listed}) gives {them} no w")
        } else {
            let them = if several { "them" } else { &names };
            format!("{} ({bits}, owner {owner}{listed}) may not be searched by {them}", gate.path.display())
        };
        format!("{clients}{names} cannot connect: {what}; {}", self.fix(group))
    }

    /// The least that lets all of them in.
    fn fix(&self, group: impl Fn(u32) -> String) -> String {
        let gate = &self.gate;
        let (bit, path) = (if gate.is_socket { 'w' } else { 'x' }, gate.path.display());
        let mut ways = Vec::new();
        let has = |class| self.peers.iter().any(|(_, other)| *other == class);
        let letters: String = [(Class::Owner, 'u'), (Class::Group, 'g'), (Class::Other, 'o')]
            .into_iter()
            .filter_map(|(class, letter)| has(class).then_some(letter))
            .collect();
        if !letters.is_empty() {
            ways.push(format!("chmod {letters}+{bit} {path}"));
        }
        let listed = self.peers.iter().filter(|(_, class)| *class == Class::List);
        let entries: Vec<_> = listed
            .map(|(peer, _)| format!("{}:{}:{bit}", if peer.uid.is_some() { 'u' } else { 'g' }, peer.name))
            .collect();
        if !entries.is_empty() {
            ways.push(format!("setfacl -m {} {path}", entries.join(",")));
        }
        let ways = ways.join(" and ");
        match self.peers.as_slice() {
            [(peer, Class::Other)] if peer.uid.is_some() && gate.mode & (gate.want() << 3) != 0 => {
                format!("{ways} or put {} into group {}", peer.name, group(gate.gid))
            }
            _ => ways,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::tests::attribute;

    fn user(name: &str, uid: u32, gids: &[u32]) -> Peer {
        Peer { name: name.into(), uid: Some(uid), gids: gids.into() }
    }

    fn socket(mode: u32) -> Gate {
        let (path, acl) = ("/run/x/x.sock".into(), OnceCell::new());
        Gate { path, is_socket: true, mode, uid: 500, gid: 50, acl, read_acl: |_| None }
    }

    fn folder(mode: u32) -> Gate {
        Gate { path: "/run/x".into(), is_socket: false, ..socket(mode) }
    }

    #[test]
    fn one_class_alone_decides() {
        let (owner, member, other) = (user("a", 500, &[50]), user("b", 501, &[9, 50]), user("c", 502, &[9]));
        let group = Peer { name: "staff".into(), uid: None, gids: vec![50] };
        for (mode, admitted) in [
            (0o600, [true, false, false, false]),
            (0o660, [true, true, false, true]),
            (0o666, [true, true, true, true]),
            (0o066, [false, true, true, true]),
            (0o602, [true, false, true, false]),
            (0o555, [false, false, false, false]),
        ] {
            let found = [&owner, &member, &other, &group].map(|peer| socket(mode).admits(peer, true).is_ok());
            assert_eq!(found, admitted, "{mode:o}");
        }
        assert_eq!(socket(0o600).admits(&member, true), Err(Class::Group));
        assert_eq!(folder(0o711).admits(&other, true), Ok(()));
        assert_eq!(folder(0o766).admits(&other, true), Err(Class::Other));
    }

    #[test]
    fn root_gets_in_by_name_and_as_the_owner_where_any_class_has_the_bit() {
        let root = user("root", 0, &[0]);
        assert_eq!(socket(0).admits(&root, true), Ok(()));
        assert_eq!(socket(0).admits(&root, false), Err(Class::Owner));
        assert_eq!(socket(0o555).admits(&root, false), Err(Class::Owner));
        assert_eq!(socket(0o200).admits(&root, false), Ok(()), "of another user's");
        assert_eq!(folder(0o700).admits(&root, false), Ok(()));
        assert_eq!(folder(0o600).admits(&root, false), Err(Class::Owner));
    }

    #[test]
    fn an_access_list_decides_for_all_but_the_owner_unless_its_mask_is_empty() {
        let list = attribute(&[(1, 0, 0), (2, 2, 501), (4, 0, 0), (0x10, 2, 0), (0x20, 0, 0)]);
        let with = |mode| Gate { acl: OnceCell::from(Acl::parse(&list)), ..socket(mode) };
        assert_eq!(with(0o620).admits(&user("b", 501, &[]), true), Ok(()));
        assert_eq!(with(0o622).admits(&user("c", 502, &[]), true), Err(Class::List));
        assert_eq!(with(0o020).admits(&user("a", 500, &[]), true), Err(Class::Owner));
        assert_eq!(with(0o602).admits(&user("c", 502, &[]), true), Ok(()), "no group bits: no list");
    }

    #[test]
    fn a_refusal_names_the_peers_the_place_and_the_fix() {
        let words = |peers: &[Peer], gates: &[Gate]| {
            let name = |id| if id == 500 { "redis".to_owned() } else { format!("g{id}") };
            refusal(peers, true, gates).map(|refusal| refusal.words(name, |id| format!("g{id}")))
        };
        let (bob, eve) = (user("bob", 501, &[9]), user("eve", 502, &[50]));
        assert_eq!(words(std::slice::from_ref(&bob), &[folder(0o755), socket(0o666)]), None);
        assert_eq!(words(&[], &[socket(0)]), None);
        assert_eq!(
            words(std::slice::from_ref(&bob), &[folder(0o710), socket(0o600)]).unwrap(),
            "bob cannot connect: /run/x (mode 0710, owner redis) may not be searched by bob; chmod o+x /run/x or put bob into group g50"
        );
        assert_eq!(
            words(&[bob.clone(), eve.clone()], &[folder(0o755), socket(0o600)]).unwrap(),
            "clients bob, eve cannot connect: the socket's mode 0600 (owner redis) gives them no w; chmod go+w /run/x/x.sock"
        );
        assert_eq!(
            words(&[bob.clone(), eve], &[folder(0o750), socket(0o606)]).unwrap(),
            "bob cannot connect: /run/x (mode 0750, owner redis) may not be searched by bob; chmod o+x /run/x or put bob into group g50; \
             eve cannot connect: the socket's mode 0606 (owner redis) gives it no w; chmod g+w /run/x/x.sock"
        );
        let list = attribute(&[(1, 0, 0), (4, 0, 0), (0x10, 2, 0), (0x20, 0, 0)]);
        assert_eq!(
            words(&[bob], &[Gate { acl: OnceCell::from(Acl::parse(&list)), ..socket(0o620) }]).unwrap(),
            "bob cannot connect: the socket's mode 0620 (owner redis, access list) gives it no w; setfacl -m u:bob:w /run/x/x.sock"
        );
    }
}
