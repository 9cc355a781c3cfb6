//! Each verdict, on real sockets.

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use common::*;
use socket_audit::{Auditor, DentryKind, Expect, ListenerState, Owner, SocketKind, Verdict};

#[test]
fn server() {
    be_the_server();
}

#[test]
fn ok_for_every_type() {
    let folder = Folder::new();
    for kind in [SocketKind::Stream, SocketKind::Dgram, SocketKind::Seqpacket] {
        let path = folder.join(kind.as_str());
        let _held = serve(kind, &path);
        let found = audit(&Expect { kind: Some(kind), ..of_pids(&path, &[me()]) });
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
        assert_eq!(found.reason, "");
        assert_eq!(found.holder.map(|holder| holder.pid), Some(me()));
        let listener = found.listener.unwrap();
        assert_eq!((listener.kind, listener.state), (kind, ListenerState::Listening));
        assert_eq!(found.dentry.unwrap().ino, fs::metadata(&path).unwrap().ino());
    }
}

#[test]
fn ok_names_the_process_that_listens() {
    let folder = Folder::new();
    let server = Server::listen(folder.join("x.sock"), folder.path());
    let found = audit(&Expect::path(folder.join("x.sock")));
    assert_eq!(found.verdict, Verdict::Ok);
    assert_eq!(found.holder.unwrap().pid, server.pid());
}

#[test]
fn dangling_by_name_by_owner_and_by_the_known_listener() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = UnixListener::bind(&path).unwrap();
    let known = trusted(&path);
    fs::remove_file(&path).unwrap();
    let found = audit(&Expect::path(&path));
    assert_eq!(found.verdict, Verdict::Dangling, "{found:?}");
    let comm = found.holder.unwrap().name;
    let words = format!("nothing at the path, but pid {} ({comm}) still listens on the lost socket", me());
    assert!(found.reason.ends_with(&words), "{}", found.reason);
    assert_eq!(audit(&of_pids(&path, &[me()])).verdict, Verdict::Dangling);
    assert_eq!(audit(&known).verdict, Verdict::Dangling);
    assert_eq!(Auditor::new().unwrap().confirm(&known).verdict, Verdict::Dangling);
    assert_eq!(
        audit(&of_pids(&path, &[1])).verdict,
        Verdict::Absent,
        "another's listener is not the service's"
    );
}

#[test]
fn an_outsider_that_lost_the_same_path_is_told_of() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let old = Server::listen(&path, folder.path());
    fs::remove_file(&path).unwrap();
    let found = audit(&of_pids(&path, &[me()]));
    assert_eq!(found.verdict, Verdict::Absent, "{found:?}");
    assert_eq!(found.others[0].pids, [old.pid()]);
    assert!(found.reason.contains(&format!("pid {}", old.pid())), "{}", found.reason);
}

#[test]
fn dangling_when_the_whole_folder_is_gone() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    let path = folder.join("run/x.sock");
    let _held = UnixListener::bind(&path).unwrap();
    let known = trusted(&path);
    fs::remove_dir_all(folder.join("run")).unwrap();
    assert_eq!(audit(&known).verdict, Verdict::Dangling);
    assert_eq!(verdict(&path), Verdict::Dangling);
    assert_eq!(audit(&of_pids(&path, &[me()])).verdict, Verdict::Dangling);
}

#[test]
fn dangling_when_the_file_was_moved_away() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = UnixListener::bind(&path).unwrap();
    fs::rename(&path, folder.join("elsewhere")).unwrap();
    assert_eq!(verdict(&path), Verdict::Dangling);
    assert_eq!(verdict(&folder.join("elsewhere")), Verdict::Ok);
}

#[test]
fn replaced_by_anything_else() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = UnixListener::bind(&path).unwrap();
    let known = trusted(&path);
    fs::remove_file(&path).unwrap();
    type Replace = fn(&Path);
    let ways: [(&str, Replace); 5] = [
        ("a regular file", |path| fs::write(path, "").unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("a symbolic link", |path| symlink("nowhere", path).unwrap()),
        ("a named pipe", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("a socket that nobody listens on", stale),
    ];
    for (what, replace) in ways {
        replace(&path);
        for expect in [&Expect::path(&path), &known, &of_pids(&path, &[me()])] {
            let found = audit(expect);
            assert_eq!(found.verdict, Verdict::Replaced, "{what}: {found:?}");
            assert!(found.reason.contains(what), "{}", found.reason);
            assert_eq!(found.listener.map(|own| own.id()), known.known);
        }
        if path.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
}

#[test]
fn replaced_by_a_foreign_server_that_took_the_path() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = UnixListener::bind(&path).unwrap();
    let known = trusted(&path);
    fs::remove_file(&path).unwrap();
    let thief = Server::listen(&path, folder.path());
    for expect in [&known, &of_pids(&path, &[me()])] {
        let found = audit(expect);
        assert_eq!(found.verdict, Verdict::Replaced, "{found:?}");
        assert_eq!(found.others[0].pids, [thief.pid()]);
        assert!(found.reason.contains(&format!("pid {}", thief.pid())), "{}", found.reason);
        assert_eq!(found.listener.map(|own| own.id()), known.known);
    }
    assert_eq!(verdict(&path), Verdict::Ok, "whoever asks for the path alone gets an answer");
}

#[test]
fn the_owners_newer_listener_wins_over_its_older_one() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _old = UnixListener::bind(&path).unwrap();
    let known = trusted(&path).known;
    fs::remove_file(&path).unwrap();
    let _new = UnixListener::bind(&path).unwrap();
    assert_eq!(audit(&Expect { known, ..of_pids(&path, &[me()]) }).verdict, Verdict::Ok);
}

#[test]
fn foreign_when_only_another_process_listens() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let other = Server::listen(&path, folder.path());
    let found = audit(&of_pids(&path, &[me()]));
    assert_eq!(found.verdict, Verdict::Foreign, "{found:?}");
    assert_eq!(found.holder.as_ref().unwrap().pid, other.pid());
    assert!(found.reason.starts_with(&format!("pid {} (", other.pid())), "{}", found.reason);
    assert_eq!(audit(&of_pids(&path, &[other.pid()])).verdict, Verdict::Ok);
}

#[test]
fn foreign_when_a_child_keeps_what_its_parent_has_closed() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let expect = Expect { known: trusted(&path).known, ..of_pids(&path, &[me()]) };
    let child = std::process::Command::new("sleep")
        .arg("600")
        .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let mut child = Reaped(child);
    let found = audit(&expect);
    child.end();
    assert_eq!(found.verdict, Verdict::Foreign, "{found:?}");
    assert_eq!(found.holder.unwrap().pid, child.0.id() as i32);
    assert_eq!(audit(&expect).verdict, Verdict::Stale);
}

struct Reaped(std::process::Child);

impl Reaped {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn stale_not_socket_and_absent() {
    let folder = Folder::new();
    stale(&folder.join("stale"));
    fs::write(folder.join("file"), "").unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    nix::unistd::mkfifo(&folder.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("nowhere", folder.join("loose")).unwrap();
    symlink("circle", folder.join("circle")).unwrap();
    symlink("stale", folder.join("to-stale")).unwrap();
    symlink("file", folder.join("to-file")).unwrap();
    let expected = [
        ("stale", Verdict::Stale),
        ("file", Verdict::NotSocket),
        ("folder", Verdict::NotSocket),
        ("fifo", Verdict::NotSocket),
        ("loose", Verdict::NotSocket),
        ("circle", Verdict::NotSocket),
        ("to-stale", Verdict::NotSocket),
        ("to-file", Verdict::NotSocket),
        ("nothing", Verdict::Absent),
        ("file/below", Verdict::Absent),
    ];
    for (name, wanted) in expected {
        for expect in [Expect::path(folder.join(name)), of_pids(&folder.join(name), &[me()])] {
            let found = audit(&expect);
            assert_eq!(found.verdict, wanted, "{name}: {found:?}");
            assert_eq!((found.listener, found.holder), (None, None));
        }
    }
}

#[test]
fn a_link_to_the_live_socket_is_ok_and_says_so() {
    let folder = Folder::new();
    let _held = UnixListener::bind(folder.join("x.sock")).unwrap();
    symlink("x.sock", folder.join("link")).unwrap();
    let found = audit(&of_pids(&folder.join("link"), &[me()]));
    assert_eq!((found.verdict, found.reason.as_ref()), (Verdict::Ok, "reached through a symbolic link"));
    assert_eq!(found.dentry.unwrap().kind, DentryKind::Symlink);
}

#[test]
fn a_hard_link_to_the_live_socket_is_as_good_as_its_name() {
    let folder = Folder::new();
    let _held = UnixListener::bind(folder.join("x.sock")).unwrap();
    fs::hard_link(folder.join("x.sock"), folder.join("pin")).unwrap();
    let known = trusted(&folder.join("x.sock"));
    fs::remove_file(folder.join("x.sock")).unwrap();
    assert_eq!(audit(&known).verdict, Verdict::Dangling);
    fs::hard_link(folder.join("pin"), folder.join("x.sock")).unwrap();
    assert_eq!(audit(&known).verdict, Verdict::Ok);
}

#[test]
fn bound_and_not_listening_is_never_stale() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = bound(SocketKind::Stream, &path);
    for expect in [Expect::path(&path), of_pids(&path, &[me()])] {
        let found = audit(&expect);
        assert_eq!(found.verdict, Verdict::Unknown, "{found:?}");
        assert!(found.bound_not_listening);
        assert!(found.reason.ends_with("not listening yet"), "{}", found.reason);
    }
    let found = audit(&of_pids(&path, &[1]));
    assert_eq!((found.verdict, found.bound_not_listening), (Verdict::Foreign, true));
}

#[test]
fn a_socket_that_was_shut_down_is_stale_though_it_is_open() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let held = serve(SocketKind::Stream, &path);
    let known = trusted(&path);
    shut(&held);
    assert!(UnixStream::connect(&path).is_err());
    for expect in [Expect::path(&path), known] {
        let found = audit(&expect);
        assert_eq!(found.verdict, Verdict::Stale, "{found:?}");
        assert!(found.reason.contains("shut down"), "{}", found.reason);
    }
}

#[test]
fn a_socket_of_another_type_is_not_the_declared_one() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = serve(SocketKind::Dgram, &path);
    let declared = |owner| Expect { kind: Some(SocketKind::Stream), owner, ..Expect::path(&path) };
    let found = audit(&declared(Owner::Pids(vec![me()])));
    assert_eq!(found.verdict, Verdict::Replaced, "{found:?}");
    assert!(found.reason.contains("EPROTOTYPE"), "{}", found.reason);
    let found = audit(&declared(Owner::Pids(vec![1])));
    assert_eq!(found.verdict, Verdict::Foreign);
    assert!(found.reason.contains("EPROTOTYPE"), "{}", found.reason);
}

#[test]
fn a_datagram_socket_with_a_peer_is_still_seen() {
    let folder = Folder::new();
    let (path, peer) = (folder.join("x.sock"), folder.join("peer.sock"));
    let server = serve(SocketKind::Dgram, &path);
    let known = trusted(&path);
    let client = UnixDatagram::bind(&peer).unwrap();
    client.connect(&path).unwrap();
    client.send(b"four").unwrap();
    connect_to(&server, &peer);
    for expect in [&known, &Expect::path(&path), &of_pids(&path, &[me()])] {
        let found = audit(expect);
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
        assert!(found.listener.unwrap().pending >= 4);
    }
    fs::remove_file(&path).unwrap();
    for expect in [&known, &Expect::path(&path), &of_pids(&path, &[me()])] {
        assert_eq!(audit(expect).verdict, Verdict::Dangling);
    }
}

#[test]
fn an_accepted_connection_does_not_stand_in_for_its_listener() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let known = trusted(&path);
    drop(listener);
    assert_eq!(verdict(&path), Verdict::Stale);
    assert_eq!(audit(&known).verdict, Verdict::Stale);
    fs::remove_file(&path).unwrap();
    assert_eq!(verdict(&path), Verdict::Absent);
    assert!(accepted.as_raw_fd() != client.as_raw_fd());
}

#[test]
fn pending_connections_are_counted() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = serve(SocketKind::Stream, &path);
    let _clients = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
    let listener = audit(&Expect::path(&path)).listener.unwrap();
    assert_eq!((listener.pending, listener.backlog), (2, 8));
}

#[test]
fn an_inode_number_used_again_is_not_mistaken_for_the_known_listener() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let old = UnixListener::bind(&path).unwrap();
    let known = trusted(&path);
    let before = fs::metadata(&path).unwrap().ino();
    drop(old);
    fs::remove_file(&path).unwrap();
    let thief = Server::listen(&path, folder.path());
    if fs::metadata(&path).unwrap().ino() != before {
        eprintln!("this file system did not give the number again");
    }
    let expect = Expect { known: known.known, ..of_pids(&path, &[me()]) };
    assert_eq!(audit(&expect).verdict, Verdict::Foreign);
    let found = audit(&known);
    assert_eq!(found.verdict, Verdict::Unknown, "trust is in the known listener only: {found:?}");
    assert_eq!(found.others[0].pids, [thief.pid()]);
}

#[test]
fn an_abstract_name_is_there_while_it_is_listened_on() {
    let name = format!("socket-audit-{}", me());
    let path = format!("@{name}");
    assert_eq!(verdict(Path::new(&path)), Verdict::Absent);
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _held = UnixListener::bind_addr(&address).unwrap();
    assert_eq!(verdict(Path::new(&path)), Verdict::Ok);
    assert_eq!(audit(&of_pids(Path::new(&path), &[1])).verdict, Verdict::Foreign);
    assert_eq!(audit(&trusted(Path::new(&path))).verdict, Verdict::Ok);
}

#[test]
fn a_path_that_cannot_be_looked_at_is_unknown() {
    let folder = Folder::new();
    let found = audit(&Expect::path(folder.join("x".repeat(300))));
    assert_eq!(found.verdict, Verdict::Unknown);
    assert!(found.reason.starts_with("cannot look at"), "{}", found.reason);
    symlink("circle", folder.join("circle")).unwrap();
    assert_eq!(verdict(&folder.join("circle/x.sock")), Verdict::Unknown);
}

#[test]
fn findings_come_in_the_order_of_the_questions() {
    let folder = Folder::new();
    let _held = UnixListener::bind(folder.join("b")).unwrap();
    stale(&folder.join("a"));
    let expects = ["a", "b", "c", "b", "a"].map(|name| Expect::path(folder.join(name)));
    let found: Vec<_> = Auditor::new().unwrap().audit(&expects).iter().map(|found| found.verdict).collect();
    assert_eq!(found, [Verdict::Stale, Verdict::Ok, Verdict::Absent, Verdict::Ok, Verdict::Stale]);
    assert_eq!(Auditor::new().unwrap().audit(&[]), []);
}
