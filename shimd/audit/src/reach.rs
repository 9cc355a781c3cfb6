//! Looks at what a client passes on its way to a socket, for [`crate::access`] to judge.
//!
//! The way is walked as the kernel walks it: a link on the way is followed, and the folders that hold it and that it
//! leads through count too. Each folder is looked at once in a round. What cannot be looked at is not judged: then
//! nobody is called shut out.
//!
//! Whom the socket's owner stands for is not known beyond its user. So before it is called shut out of a folder, the
//! groups that the user has by the group database, and those that the listening process has, are taken in too.
#![allow(unsafe_code)] // getxattr: nix has no wrapper

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::NixPath;
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups};

use crate::access::{Class, Gate, Obstacle, Peer, Peers, Refusal, refusal};
use crate::acl::{self, Acl};
use crate::dentry::{Dentry, DentryKind, Mounts};
use crate::error::AuditError;
use crate::procfs;

/// As many links as the kernel follows in one path.
const LINKS: u32 = 40;
/// More entries than a file system keeps in one list.
const ACL_ROOM: usize = 4 + 8 * 512;

/// A folder, and everything that was searched to get there.
#[derive(Debug)]
struct Way {
    /// The folder without links.
    end: PathBuf,
    /// Without repetition, the root first; the folder itself is the last.
    gates: Vec<Rc<Gate>>,
}

/// Why a folder was not reached.
#[derive(Debug, Clone)]
enum Lost {
    /// This process may not search this one.
    Shut(Rc<Gate>),
    /// It is not there, is no folder, or something failed.
    Otherwise,
}

/// The folders of one round.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// By the folder's path as it was asked for: a text, which is quicker to compare than its parts.
    ways: HashMap<OsString, Result<Rc<Way>, Lost>>,
    me: Option<Uid>,
}

impl Reach {
    /// Who of `peers` cannot connect to the socket `target` at `path`. `holder` is a process that listens.
    pub(crate) fn refusal(
        &mut self,
        mounts: &mut Mounts,
        path: &Path,
        target: Dentry,
        peers: &Peers,
        holder: Option<i32>,
    ) -> Option<Refusal> {
        let named = match peers {
            Peers::Owner => return self.owners_refusal(mounts, path, target, holder),
            Peers::Named(named) => named,
        };
        let way = self.way_to(mounts, path).unwrap_or_default();
        let socket = gate(path, target, true);
        refusal(named, true, way.iter().map(Rc::as_ref).chain([&socket]))
    }

    /// Whether nothing shuts the owner of the socket out at first sight.
    pub(crate) fn is_plainly_open(&mut self, mounts: &mut Mounts, path: &Path, target: &Dentry) -> bool {
        if !is_writable(target) {
            return false;
        }
        if !self.may_be_shut_out_on_the_way(target) {
            return true;
        }
        let owner = Peer { name: String::new(), uid: Some(target.uid), gids: vec![target.gid] };
        let folder = path.parent().unwrap_or(Path::new("/"));
        if folder.is_relative() {
            return false; // to be looked at closely
        }
        let Ok(way) = self.way(mounts, folder, LINKS) else { return true };
        way.gates.iter().all(|gate| gate.admits(&owner, false).is_ok())
    }

    /// A user's own look went the same way.
    fn may_be_shut_out_on_the_way(&mut self, target: &Dentry) -> bool {
        let me = *self.me.get_or_insert_with(geteuid);
        me.is_root() || me.as_raw() != target.uid
    }

    fn owners_refusal(
        &mut self,
        mounts: &mut Mounts,
        path: &Path,
        target: Dentry,
        holder: Option<i32>,
    ) -> Option<Refusal> {
        let mut gates = Vec::new();
        if self.may_be_shut_out_on_the_way(&target) {
            gates = self.way_to(mounts, path).unwrap_or_default();
        }
        gates.push(Rc::new(gate(path, target, true)));
        let judge = |peer: &Peer| refusal(std::slice::from_ref(peer), false, gates.iter().map(Rc::as_ref));
        let mut owner = Peer { name: String::new(), uid: Some(target.uid), gids: vec![target.gid] };
        judge(&owner)?;
        owner.name = user_name(target.uid);
        owner.gids.extend(groups_of(target.uid));
        owner.gids.extend(holder.map(procfs::groups).unwrap_or_default());
        judge(&owner)
    }

    /// Who this process is, and the folder on the way to `path` that it may not search.
    pub(crate) fn own_refusal(&mut self, mounts: &mut Mounts, path: &Path) -> Option<Refusal> {
        let gate = match self.way_to(mounts, path) {
            Err(Lost::Shut(gate)) => gate,
            // The last folder could be looked at, and what is in it could not.
            Ok(way) => way.last().cloned()?,
            Err(Lost::Otherwise) => return None,
        };
        let uid = geteuid().as_raw();
        let mut gids = vec![getegid().as_raw()];
        gids.extend(getgroups().unwrap_or_default().into_iter().map(Gid::as_raw));
        let me = Peer { name: user_name(uid), uid: Some(uid), gids };
        let class = gate.admits(&me, false).err().unwrap_or(Class::Owner);
        Some(Refusal { obstacles: vec![Obstacle { gate: (*gate).clone(), peers: vec![(me, class)] }] })
    }

    /// Everything that is searched on the way to what a path leads to.
    fn way_to(&mut self, mounts: &mut Mounts, path: &Path) -> Result<Vec<Rc<Gate>>, Lost> {
        let mut path = absolute(path);
        let mut gates = Vec::new();
        for _ in 0..LINKS {
            let way = self.way(mounts, path.parent().unwrap_or(Path::new("/")), LINKS)?;
            add(&mut gates, &way.gates);
            let Some(base) = path.file_name() else { break };
            let at = way.end.join(base);
            match fs::read_link(&at) {
                Ok(target) => path = way.end.join(target),
                Err(_) => break,
            }
        }
        Ok(gates)
    }

    /// The way to a folder.
    fn way(&mut self, mounts: &mut Mounts, folder: &Path, links: u32) -> Result<Rc<Way>, Lost> {
        if let Some(found) = self.ways.get(folder.as_os_str()) {
            return found.clone();
        }
        let found = self.walk(mounts, folder, links);
        if links == LINKS {
            self.ways.insert(folder.into(), found.clone());
        }
        found
    }

    fn walk(&mut self, mounts: &mut Mounts, folder: &Path, links: u32) -> Result<Rc<Way>, Lost> {
        if folder.is_relative() {
            return Err(Lost::Otherwise); // the current folder is gone
        }
        let Some(parent) = folder.parent() else {
            let root = Path::new("/");
            let dentry = mounts.look(root).ok().flatten().ok_or(Lost::Otherwise)?;
            return Ok(Rc::new(Way { end: root.into(), gates: vec![Rc::new(gate(root, dentry, false))] }));
        };
        let up = self.way(mounts, parent, links)?;
        let base = match folder.components().next_back() {
            Some(Component::Normal(base)) => base,
            Some(Component::ParentDir) => {
                let end = up.end.parent().unwrap_or(&up.end).to_owned();
                return Ok(Rc::new(Way { end, gates: up.gates.clone() }));
            }
            Some(Component::CurDir | Component::RootDir | Component::Prefix(_)) | None => return Ok(up),
        };
        let end = up.end.join(base);
        let dentry = match mounts.look(&end) {
            Ok(Some(dentry)) => dentry,
            Err(AuditError::Look { errno: Errno::EACCES, .. }) => {
                return Err(up.gates.last().map_or(Lost::Otherwise, |gate| Lost::Shut(gate.clone())));
            }
            Ok(None) | Err(_) => return Err(Lost::Otherwise),
        };
        let mut gates = up.gates.clone();
        match dentry.kind {
            DentryKind::Folder => {
                gates.push(Rc::new(gate(&end, dentry, false)));
                Ok(Rc::new(Way { end, gates }))
            }
            DentryKind::Symlink => {
                let target = fs::read_link(&end).map_err(|_| Lost::Otherwise)?;
                let links = links.checked_sub(1).ok_or(Lost::Otherwise)?;
                let on = self.way(mounts, &up.end.join(target), links)?;
                add(&mut gates, &on.gates);
                Ok(Rc::new(Way { end: on.end.clone(), gates }))
            }
            _ => Err(Lost::Otherwise),
        }
    }
}

/// Whether the socket's own bits let its owner write to it, as [`Gate::admits`] has it.
pub(crate) fn is_writable(target: &Dentry) -> bool {
    let bits = if target.uid == 0 { 0o222 } else { 0o200 };
    target.mode & bits != 0
}

/// Adds gates that were not passed yet.
fn add(gates: &mut Vec<Rc<Gate>>, further: &[Rc<Gate>]) {
    for gate in further {
        if !gates.iter().any(|other| other.path == gate.path) {
            gates.push(gate.clone());
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn gate(path: &Path, dentry: Dentry, is_socket: bool) -> Gate {
    let Dentry { mode, uid, gid, .. } = dentry;
    Gate { path: path.to_owned(), is_socket, mode, uid, gid, acl: OnceCell::new(), read_acl }
}

/// The access list of what a path leads to.
fn read_acl(path: &Path) -> Option<Acl> {
    let mut room = [0u8; ACL_ROOM];
    let length = path
        .with_nix_path(|path| {
            let (name, value) = (acl::ATTRIBUTE.as_ptr(), room.as_mut_ptr().cast());
            // SAFETY: both strings end in NUL, and the kernel writes no more than `ACL_ROOM` bytes into `room`.
            unsafe { libc::getxattr(path.as_ptr(), name, value, ACL_ROOM) }
        })
        .ok()?;
    Acl::parse(room.get(..usize::try_from(length).ok()?)?)
}

/// The name of a user, or its number where it has none.
pub(crate) fn user_name(uid: u32) -> String {
    let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    found.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// The name of a group, or its number where it has none.
pub(crate) fn group_name(gid: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    found.map_or_else(|| gid.to_string(), |group| group.name)
}

/// The groups that a user has by the group database.
fn groups_of(uid: u32) -> Vec<u32> {
    let Some(user) = User::from_uid(Uid::from_raw(uid)).ok().flatten() else { return Vec::new() };
    let Ok(name) = CString::new(user.name) else { return Vec::new() };
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}
