//! `publish` sockets: each instance binds a path of its own, and the public name is put there when it serves.
//!
//! | when | its own name | the public name |
//! | --- | --- | --- |
//! | spawned | the instance binds it | of nobody, or of the instance beside it |
//! | found ok there, and ready | | put to it by one rename; before that nobody is told of it |
//! | published | a second link, which nobody needs | audited, pinned and put back as any other |
//! | bound anew by a reload | of the new socket | put to that, once it listens |
//! | the instance has ended | removed, if it left it | removed with it, unless another instance has it |
//!
//! So a late unlink by an old instance hits its own name, whatever it does. After the daemon's own start an instance
//! whose own name leads elsewhere than the public one is published again; where its own name is gone, the public one is
//! judged as it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shimd_api::spec::Spec;
use socket_audit::{Auditor, Expect, Owner, Verdict};

use super::Supervisor;
use super::pins::nobody_listens;
use super::service::Service;
use super::socket::{Socket, lstat_id};
use crate::core::machine::{Event, Phase, Sign};
use crate::sys::clean;
use crate::sys::publish::{self, PublishError};

/// The path of its own at which an instance binds a `publish` socket.
#[derive(Debug, Clone)]
pub struct Own {
    /// The path.
    pub path: PathBuf,
    /// The public name leads to it.
    pub published: bool,
}

/// Whether an instance's own name was bound anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anew {
    /// It was not, or cannot be published.
    No,
    /// It was, and does not listen yet.
    Soon,
    /// It was, and is published: what was found before is over.
    Done,
}

impl Socket {
    /// Where clients look for it by now: nobody is told of one that is not published.
    pub fn place(&self) -> &Path {
        match &self.own {
            Some(own) if !own.published => &own.path,
            _ => &self.path,
        }
    }

    /// Whether it is still to be published.
    pub fn is_private(&self) -> bool {
        self.own.as_ref().is_some_and(|own| !own.published)
    }

    /// The instance is gone.
    pub fn is_nobodys(&mut self) {
        if let Some(own) = &mut self.own {
            own.published = true;
        }
    }

    /// After the daemon's own start: whether it was published is for the names to say.
    pub fn found_again(&mut self) {
        if let Some(own) = &mut self.own {
            let there = lstat_id(&own.path);
            own.published = there.is_none() || there == lstat_id(&self.path);
        }
    }

    fn published(&mut self) {
        if let Some(own) = &mut self.own {
            own.published = true;
            // That was of its own name.
            self.witness = None;
        }
    }
}

/// Gives the sockets of a spec the paths of this generation's instance.
pub fn own_paths(sockets: &mut [Socket], spec: &Spec, root: &Path, generation: u64) {
    for (socket, declared) in sockets.iter_mut().zip(&spec.sockets) {
        let own = spec.private_path(root, declared, generation);
        socket.own = own.map(|path| Own { path, published: false });
    }
}

/// Whether each socket is one that two instances can have at a time.
pub fn is_gapless(spec: &Spec) -> bool {
    use shimd_api::spec::SocketMode;
    !spec.sockets.is_empty() && spec.sockets.iter().all(|s| s.mode != SocketMode::Bind)
}

impl Supervisor {
    /// Puts the service's own instance's sockets at their public names.
    pub(super) fn publish(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let event = match put(service, &mut self.auditor, false) {
            Ok(()) => Event::Published,
            Err(e) => {
                service.trouble = Some(e.to_string());
                Event::PublishFailed
            }
        };
        self.has_published(name, event);
    }

    /// The same for the second instance.
    pub(super) fn publish_second(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let sign = match put(service, &mut self.auditor, true) {
            Ok(()) => Sign::Published,
            Err(e) => {
                service.second.failed = Some(e.to_string());
                Sign::PublishFailed
            }
        };
        self.has_published(name, Event::Beside(sign));
    }

    /// A service that reloads binds its own name anew, and the public one is left with a socket that it closes: puts the new one
    /// there once it listens.
    pub(super) fn publish_anew(&mut self, name: &Arc<str>) -> Anew {
        let Some(service) = self.services.get_mut(name) else { return Anew::No };
        let serves = matches!(service.machine.phase, Phase::Running | Phase::Impaired);
        if !serves || service.machine.beside.is_some() {
            return Anew::No;
        }
        let other = |socket: &Socket| {
            let own = socket.own.as_ref().filter(|own| own.published)?;
            let there = lstat_id(&own.path);
            (there.is_some() && there != lstat_id(&socket.path)).then(|| own.path.clone())
        };
        let bound: Vec<PathBuf> = service.sockets.iter().filter_map(other).collect();
        if bound.is_empty() {
            return Anew::No;
        }
        let pids = service.instance.as_ref().map(|i| i.tree.pids_now()).unwrap_or_default();
        for path in bound {
            let finding =
                self.auditor.confirm(&Expect { owner: Owner::Pids(pids.clone()), ..Expect::path(&path) });
            if finding.bound_not_listening {
                return Anew::Soon;
            }
            if !matches!(finding.verdict, Verdict::Ok | Verdict::Wedged | Verdict::Denied) {
                return Anew::No;
            }
        }
        match put(service, &mut self.auditor, false) {
            Ok(()) => {
                self.dirty.insert(name.clone(), None);
                Anew::Done
            }
            // The next audit says who is in the way.
            Err(_) => Anew::No,
        }
    }

    fn has_published(&mut self, name: &Arc<str>, event: Event) {
        self.queue.push_back((name.clone(), event));
        if matches!(event, Event::Published | Event::Beside(Sign::Published)) {
            // What failed is tried again by the period's audit, and not sooner.
            self.dirty.insert(name.clone(), None);
        }
    }

    /// The names that the service's own instance has left, once it is gone and no other is on its way.
    pub(super) fn tidy_names(&mut self, name: &Arc<str>) {
        let Some(service) = self.services.get(name) else { return };
        let names =
            service.sockets.iter().filter_map(|s| Some([s.own.as_ref()?.path.clone(), s.path.clone()]));
        remove_dead(names.flatten().collect());
    }
}

/// Removes these sockets, where nobody listens on them.
pub fn remove_dead(names: Vec<PathBuf>) {
    if names.is_empty() {
        return;
    }
    tokio::task::spawn_blocking(move || {
        let Ok(auditor) = Auditor::new() else { return };
        let auditor = std::cell::RefCell::new(auditor);
        for name in names {
            // What is in use, or no socket, stays; what cannot be removed goes with the next clean.
            let _ =
                clean::remove_socket(&name, &|seen| nobody_listens(&mut auditor.borrow_mut(), &seen.path));
        }
    });
}

/// Removes from these folders what a daemon that was killed had moved aside, or was about to put in place: dead sockets,
/// and second names of live ones. Only before this daemon has begun anything itself.
pub fn sweep_aside(folders: &BTreeSet<PathBuf>, auditor: &mut Auditor) {
    let auditor = std::cell::RefCell::new(auditor);
    for folder in folders {
        let spare = |seen: &clean::Seen| {
            has_other_name(folder, seen.ino) || nobody_listens(*auditor.borrow_mut(), &seen.path)
        };
        // What cannot be removed now goes with the next clean of its service.
        let _ = clean::sweep(folder, &|_| false, &spare);
    }
}

/// Whether an inode has a name in a folder that is not one of those put aside.
fn has_other_name(folder: &Path, inode: u64) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| !clean::is_private(&entry.file_name()));
    named.filter_map(|entry| lstat_id(&entry.path())).any(|(_, ino)| ino == inode)
}

/// Puts each socket of an instance at its public name; the first that cannot be is why not.
fn put(service: &mut Service, auditor: &mut Auditor, second: bool) -> Result<(), PublishError> {
    let pids = || {
        let instances = service.instance.iter().chain(&service.second.instance);
        instances.flat_map(|i| i.tree.pids_now()).collect::<Vec<i32>>()
    };
    let sockets = if second { &service.second.sockets } else { &service.sockets };
    let mut done = Vec::new();
    for (place, socket) in sockets.iter().enumerate() {
        let Some(own) = &socket.own else { continue };
        let gone = lstat_id(&own.path).is_none();
        // One that has lost its own name since may be at the public one; without either, an audit says so.
        if gone && (own.published || socket.optional) {
            continue;
        }
        publish::publish(&own.path, &socket.path, &mut || stranger(auditor, &socket.path, pids()))?;
        done.push(place);
    }
    let sockets = if second { &mut service.second.sockets } else { &mut service.sockets };
    for place in done {
        if let Some(socket) = sockets.get_mut(place) {
            socket.published();
        }
    }
    Ok(())
}

/// A process outside the service that listens, or is about to, on the socket at a path.
fn stranger(auditor: &mut Auditor, path: &Path, ours: Vec<i32>) -> Option<String> {
    let finding = auditor.confirm(&Expect { owner: Owner::Pids(ours), ..Expect::path(path) });
    let dentry = finding.dentry?;
    let party = finding.others.iter().find(|party| party.listener.vfs == Some(dentry.vfs()));
    match party {
        Some(party) => {
            let who = party.holder.as_ref().map_or_else(|| "a process".to_owned(), ToString::to_string);
            Some(format!("{who} listens here"))
        }
        None if finding.bound_not_listening => Some("a process has bound it just now".to_owned()),
        None => None,
    }
}
