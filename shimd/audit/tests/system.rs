//! The whole machine: what is lost is found, and what is in order is not reported.

#![allow(clippy::unwrap_used)] // these are tests, if not by attribute

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use common::*;
use socket_audit::{Auditor, Finding, SocketKind, Verdict};

#[test]
fn server() {
    be_the_server();
}

/// The findings and blind spots that speak of `folder`; other tests and programs have theirs.
fn system(folder: &Folder) -> (Vec<Finding>, Vec<String>) {
    let report = Auditor::new().unwrap().system().unwrap();
    let here = folder.path().to_str().unwrap();
    (
        report.findings.into_iter().filter(|found| found.path.starts_with(folder.path())).collect(),
        report.blind.into_iter().filter(|blind| blind.contains(here)).collect(),
    )
}

fn verdicts(folder: &Folder) -> Vec<(PathBuf, Verdict)> {
    let (findings, blind) = system(folder);
    assert_eq!(blind, [""; 0]);
    findings.into_iter().map(|found| (found.path, found.verdict)).collect()
}

#[test]
fn a_lost_listener_is_found_with_its_process() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let server = Server::listen(&path, folder.path());
    assert_eq!(verdicts(&folder), []);
    fs::remove_file(&path).unwrap();
    let (findings, _) = system(&folder);
    assert_eq!((&findings[0].path, findings[0].verdict), (&path, Verdict::Dangling));
    assert_eq!(findings[0].holder.as_ref().unwrap().pid, server.pid());
    assert!(findings[0].reason.contains("nothing at the path, but pid"), "{}", findings[0].reason);
    fs::write(&path, "").unwrap();
    assert_eq!(verdicts(&folder), [(path.clone(), Verdict::Replaced)]);
    fs::remove_file(&path).unwrap();
    let taker = Server::listen(&path, folder.path());
    let (findings, _) = system(&folder);
    assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Replaced));
    assert_eq!(findings[0].others[0].pids, [taker.pid()]);
    assert!(findings[0].reason.contains(&format!("pid {}", taker.pid())), "{}", findings[0].reason);
}

#[test]
fn every_type_is_found() {
    let folder = Folder::new();
    let kinds = [SocketKind::Dgram, SocketKind::Seqpacket, SocketKind::Stream];
    let _held = kinds.map(|kind| serve(kind, &folder.join(kind.as_str())));
    for kind in kinds {
        fs::remove_file(folder.join(kind.as_str())).unwrap();
    }
    assert_eq!(verdicts(&folder), kinds.map(|kind| (folder.join(kind.as_str()), Verdict::Dangling)));
}

#[test]
fn what_is_in_order_is_not_reported() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    // A relative name, also after its holder has left the folder.
    let _relative = Server::listen("relative.sock", folder.path());
    let _spelt = UnixListener::bind(format!("{}//run/../spelt.sock", folder.path().display())).unwrap();
    // A temporary name, renamed into place.
    let _renamed = UnixListener::bind(folder.join("x.sock.1.tmp")).unwrap();
    fs::rename(folder.join("x.sock.1.tmp"), folder.join("x.sock")).unwrap();
    // Connections that keep their listener's name, and outlive it and its file.
    let listener = UnixListener::bind(folder.join("closed.sock")).unwrap();
    let _client = UnixStream::connect(folder.join("closed.sock")).unwrap();
    let _accepted = listener.accept().unwrap();
    drop(listener);
    fs::remove_file(folder.join("closed.sock")).unwrap();
    // Bound, and not listening.
    let _bound = bound(SocketKind::Stream, &folder.join("bound.sock"));
    fs::remove_file(folder.join("bound.sock")).unwrap();
    // Linked back after it was lost.
    let _linked = UnixListener::bind(folder.join("linked.sock")).unwrap();
    fs::hard_link(folder.join("linked.sock"), folder.join("pin")).unwrap();
    fs::remove_file(folder.join("linked.sock")).unwrap();
    fs::rename(folder.join("pin"), folder.join("linked.sock")).unwrap();
    assert_eq!(verdicts(&folder), []);
}

#[test]
fn a_name_that_says_nothing_is_located_or_told_of_as_a_blind_spot() {
    let folder = Folder::new();
    fs::create_dir(folder.join("other")).unwrap();
    let start = |name| {
        let what = [OsStr::new("listen-and-leave"), OsStr::new(name)];
        Server::start(&[], &what, folder.path()).0
    };
    let (_kept, _lost, _moved) = (start("kept.sock"), start("lost.sock"), start("moved.sock"));
    fs::remove_file(folder.join("lost.sock")).unwrap();
    fs::rename(folder.join("moved.sock"), folder.join("other/moved.sock")).unwrap();
    let report = Auditor::new().unwrap().system().unwrap();
    let found: Vec<_> =
        report.findings.iter().filter(|found| found.path.starts_with(folder.path())).collect();
    let blind = |name: &str| report.blind.iter().any(|blind| blind.starts_with(name));
    if blind("lost.sock:") {
        assert!(found.is_empty() && blind("kept.sock:"), "{report:?}"); // without the rights to locate them
        return;
    }
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].path, found[0].verdict), (&folder.join("lost.sock"), Verdict::Dangling));
    assert!(!blind("kept.sock:") && !blind("moved.sock:"));
}

#[test]
fn a_name_that_was_renamed_and_lost_is_reported_by_its_last_path_or_its_first() {
    let folder = Folder::new();
    let _held = UnixListener::bind(folder.join("x.sock.1.tmp")).unwrap();
    fs::rename(folder.join("x.sock.1.tmp"), folder.join("x.sock")).unwrap();
    fs::remove_file(folder.join("x.sock")).unwrap();
    let found = verdicts(&folder);
    let names = ["x.sock", "x.sock.1.tmp"].map(|name| vec![(folder.join(name), Verdict::Dangling)]);
    assert!(names.contains(&found), "{found:?}");
    assert!(!Path::new(&found[0].0).exists());
}

#[test]
fn a_listener_that_takes_no_connections_is_reported_while_it_does_not() {
    let folder = Folder::new();
    let (full, stopped) = (folder.join("full.sock"), folder.join("stopped.sock"));
    let held = bound(SocketKind::Stream, &full);
    nix::sys::socket::listen(&held, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let server = Server::listen(&stopped, folder.path());
    server.stop();
    assert_eq!(verdicts(&folder), []);
    let _clients = [UnixStream::connect(&full).unwrap(), UnixStream::connect(&stopped).unwrap()];
    let (findings, blind) = system(&folder);
    assert_eq!(blind, [""; 0]);
    let told: Vec<_> = findings.iter().map(|found| (&found.path, found.verdict)).collect();
    assert_eq!(told, [(&full, Verdict::Wedged), (&stopped, Verdict::Wedged)]);
    assert_eq!(findings[0].holder.as_ref().unwrap().pid, me());
    assert!(findings[0].reason.starts_with("the queue is full: 1 connection waits for 0 places"));
    assert_eq!(findings[1].holder.as_ref().unwrap().pid, server.pid());
    assert!(findings[1].reason.contains("is stopped (SIGSTOP"), "{}", findings[1].reason);
    server.resume();
    let listener = UnixListener::from(held);
    listener.accept().unwrap();
    assert_eq!(verdicts(&folder), []);
}

#[test]
fn a_full_queue_is_found_behind_a_name_that_only_its_process_understands() {
    let folder = Folder::new();
    let server = Server::listen("x.sock", folder.path());
    let clients: Vec<_> = (0..=8).map(|_| UnixStream::connect(folder.join("x.sock")).unwrap()).collect();
    let (findings, _) = system(&folder);
    assert_eq!((findings.len(), &findings[0].path), (1, &folder.join("x.sock")));
    assert_eq!(findings[0].verdict, Verdict::Wedged);
    assert_eq!(findings[0].holder.as_ref().unwrap().pid, server.pid());
    drop(clients);
}

#[test]
fn a_full_queue_of_an_abstract_name_is_reported() {
    use nix::sys::socket::{Backlog, UnixAddr, bind, connect, listen};
    use std::os::fd::AsRawFd;
    let name = format!("socket-audit-system-{}", me());
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    let (held, client) = (unbound(SocketKind::Stream), unbound(SocketKind::Stream));
    bind(held.as_raw_fd(), &address).unwrap();
    listen(&held, Backlog::new(0).unwrap()).unwrap();
    let path = PathBuf::from(format!("@{name}"));
    let report = || {
        let found = Auditor::new().unwrap().system().unwrap().findings.into_iter();
        found.filter(|found| found.path == path).map(|found| found.verdict).collect::<Vec<_>>()
    };
    assert_eq!(report(), []);
    connect(client.as_raw_fd(), &address).unwrap();
    assert_eq!(report(), [Verdict::Wedged]);
}

#[test]
fn a_listener_that_its_owners_peers_cannot_reach_is_reported() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    let (here, within) = (folder.join("a.sock"), folder.join("run/b.sock"));
    let _held = [UnixListener::bind(&here).unwrap(), UnixListener::bind(&within).unwrap()];
    let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(verdicts(&folder), []);
    chmod(&here, 0o444);
    chmod(&folder.join("run"), 0);
    let (findings, blind) = system(&folder);
    chmod(&folder.join("run"), 0o755);
    assert_eq!(blind, [""; 0]);
    let told: Vec<_> = findings.iter().map(|found| (&found.path, found.verdict)).collect();
    assert_eq!(told, [(&here, Verdict::Denied), (&within, Verdict::Denied)]);
    assert!(findings.iter().all(|found| found.holder.as_ref().is_some_and(|holder| holder.pid == me())));
    assert!(findings[1].reason.contains("may not be searched"), "{}", findings[1].reason);
    chmod(&here, 0o644);
    assert_eq!(verdicts(&folder), []);
}
