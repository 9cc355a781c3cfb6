//! Connections that wait and are not accepted, on real queues.

#![allow(clippy::unwrap_used, clippy::panic)] // these are tests, if not by attribute

mod common;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, connect, listen, socket,
};
use nix::unistd::close;
use socket_audit::{Auditor, Expect, Flow, Owner, Queue, SocketKind, Verdict, Waiting};

#[test]
fn server() {
    be_the_server();
}

fn waiting(path: &Path) -> Waiting {
    let mut auditor = Auditor::new().unwrap();
    let listener = auditor.confirm(&Expect::path(path)).listener.unwrap();
    auditor.waiting(listener.id()).unwrap().unwrap()
}

/// The inode of a socket, as the kernel names it to others.
fn inode(of: &impl AsRawFd) -> u32 {
    fs::metadata(format!("/proc/self/fd/{}", of.as_raw_fd())).unwrap().ino() as u32
}

#[test]
fn who_waits_is_named_in_order_and_a_client_that_has_closed_is_nobody() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(waiting(&path).icons, Some(Vec::new()));
    let clients = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
    let inodes = clients.each_ref().map(inode);
    assert_eq!(waiting(&path).icons.as_deref(), Some(inodes.as_slice()));
    let [first, second, third] = clients;
    drop(second);
    assert_eq!(waiting(&path).icons, Some(vec![inodes[0], 0, inodes[2]]));
    listener.accept().unwrap();
    assert_eq!(waiting(&path).icons, Some(vec![0, inodes[2]]));
    assert_eq!(waiting(&path).pending, 2);
    drop((first, third));
}

#[test]
fn a_queue_that_is_too_long_to_be_named_is_counted() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let listener = serve(SocketKind::Stream, &path);
    // As many as net.core.somaxconn lets in.
    listen(&listener, Backlog::MAXCONN).unwrap();
    let backlog = waiting(&path).backlog;
    if backlog < 3000 {
        eprintln!("net.core.somaxconn allows {backlog} only");
        return;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).unwrap();
    let clients: Vec<_> = (0..3000).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let found = waiting(&path);
    assert_eq!((found.pending, found.backlog, found.icons.map(|icons| icons.len())), (3000, backlog, None));
    drop(clients);
}

#[test]
fn only_a_socket_that_takes_connections_has_a_queue() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = serve(SocketKind::Dgram, &path);
    let mut auditor = Auditor::new().unwrap();
    let listener = auditor.confirm(&Expect::path(&path)).listener.unwrap();
    assert_eq!(auditor.waiting(listener.id()), Ok(None));
    let gone = socket_audit::ListenerId { cookie: listener.cookie ^ 1, ..listener.id() };
    assert_eq!(auditor.waiting(gone), Ok(None));
}

#[test]
fn a_queue_that_moves_flows_however_long_it_is_and_one_that_does_not_is_stuck() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut clients = vec![UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
    let (mut queue, start, after) = (Queue::new(), Instant::now(), Duration::from_secs(5));
    for second in 0..20 {
        let now = start + Duration::from_secs(second);
        queue.look(&waiting(&path), now);
        assert_eq!(queue.verdict(after, now), Flow::Flows, "{second}");
        clients.push(UnixStream::connect(&path).unwrap());
        listener.accept().unwrap();
    }
    let since = queue.oldest().unwrap();
    queue.look(&waiting(&path), start + Duration::from_secs(20));
    for second in 21..30 {
        queue.look(&waiting(&path), start + Duration::from_secs(second));
    }
    let now = start + Duration::from_secs(29);
    let Flow::Stuck { since: stuck, waiting: 2 } = queue.verdict(after, now) else {
        panic!("{:?}", queue.verdict(after, now))
    };
    assert!(stuck > since && now - stuck >= after);
}

/// A listener with room for `backlog` connections, and as many clients as fill it.
fn filled(kind: SocketKind, path: &Path, backlog: i32) -> (OwnedFd, Vec<OwnedFd>) {
    let held = bound(kind, path);
    listen(&held, Backlog::new(backlog).unwrap()).unwrap();
    let clients = (0..=backlog).map(|_| {
        let client = unbound(kind);
        connect_to(&client, path);
        client
    });
    let clients = clients.collect();
    (held, clients)
}

#[test]
fn a_full_queue_is_wedged_until_the_server_accepts() {
    for kind in [SocketKind::Stream, SocketKind::Seqpacket] {
        let folder = Folder::new();
        let path = folder.join("x.sock");
        let (held, mut clients) = filled(kind, &path, 1);
        let known = audit(&Expect::path(&path)).listener.map(|found| found.id());
        let one_more = socket(AddressFamily::Unix, sock_type(kind), SockFlag::SOCK_NONBLOCK, None).unwrap();
        let refused = connect(one_more.as_raw_fd(), &UnixAddr::new(&path).unwrap());
        assert_eq!(refused, Err(Errno::EAGAIN), "a client that would wait hangs");
        let trusted = Expect { known, owner: Owner::Trusted, ..Expect::path(&path) };
        for expect in [Expect::path(&path), trusted.clone(), of_pids(&path, &[me()])] {
            let found = audit(&expect);
            assert_eq!(found.verdict, Verdict::Wedged, "{found:?}");
            let words = "the queue is full: 2 connections wait for 1 place, and a further client hangs";
            assert_eq!(found.reason, words);
            assert_eq!(found.listener.map(|found| (found.pending, found.backlog)), Some((2, 1)));
            assert_eq!(Auditor::new().unwrap().confirm(&expect).verdict, Verdict::Wedged);
        }
        clients.truncate(1);
        assert_eq!(audit(&trusted).verdict, Verdict::Wedged, "a client that went away still has its place");
        close(accept(held.as_raw_fd()).unwrap()).unwrap();
        for expect in [Expect::path(&path), trusted, of_pids(&path, &[me()])] {
            assert_eq!(audit(&expect).verdict, Verdict::Ok, "one waits, and there is room");
        }
    }
}

#[test]
fn a_full_queue_behind_a_link_and_of_an_abstract_name_is_wedged_too() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _filled = filled(SocketKind::Stream, &path, 0);
    symlink(&path, folder.join("link")).unwrap();
    assert_eq!(audit(&Expect::path(folder.join("link"))).verdict, Verdict::Wedged);
    let name = format!("socket-audit-full-{}", me());
    let held = unbound(SocketKind::Stream);
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    bind(held.as_raw_fd(), &address).unwrap();
    listen(&held, Backlog::new(0).unwrap()).unwrap();
    let expect = Expect::path(format!("@{name}"));
    assert_eq!(audit(&expect).verdict, Verdict::Ok);
    let client = unbound(SocketKind::Stream);
    connect(client.as_raw_fd(), &address).unwrap();
    assert_eq!(audit(&expect).verdict, Verdict::Wedged);
}

#[test]
fn the_queue_of_a_stranger_is_not_the_services() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _filled = filled(SocketKind::Stream, &path, 0);
    assert_eq!(audit(&of_pids(&path, &[1])).verdict, Verdict::Foreign);
}

#[test]
fn a_stopped_server_is_wedged_while_somebody_waits() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let server = Server::listen(&path, folder.path());
    server.stop();
    let expects = [Expect::path(&path), of_pids(&path, &[server.pid()])];
    for expect in &expects {
        assert_eq!(audit(expect).verdict, Verdict::Ok, "nobody waits");
    }
    let _client = UnixStream::connect(&path).unwrap();
    for expect in &expects {
        let found = audit(expect);
        assert_eq!(found.verdict, Verdict::Wedged, "{found:?}");
        let holder = found.holder.unwrap();
        let words = format!("1 connection waits and {holder} is stopped (SIGSTOP; SIGCONT wakes it)");
        assert_eq!(found.reason, words);
        let words = socket_audit::wedged_reason(1, Duration::from_secs(7), Some(&holder));
        let expected = format!(
            "1 connection waits, the oldest for 7sec, and {holder} accepts none, it is stopped (SIGSTOP)"
        );
        assert_eq!(words, expected);
    }
    assert_eq!(verdict(&path), Verdict::Wedged);
    server.resume();
    for expect in &expects {
        assert_eq!(audit(expect).verdict, Verdict::Ok, "it runs: only time would tell");
    }
}

#[test]
fn a_listener_of_which_one_process_still_runs_is_not_stopped() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("600").stdin(OwnedFd::from(listener.try_clone().unwrap()));
    let child = Server::of(sleep.spawn().unwrap());
    child.stop();
    assert_eq!(audit(&of_pids(&path, &[me(), child.pid()])).verdict, Verdict::Ok);
    assert_eq!(audit(&Expect::path(&path)).verdict, Verdict::Ok);
    drop((listener, sleep)); // the command holds a copy
    assert_eq!(audit(&of_pids(&path, &[me(), child.pid()])).verdict, Verdict::Wedged);
    assert_eq!(audit(&Expect::path(&path)).verdict, Verdict::Wedged);
}

#[test]
fn a_datagram_socket_is_never_wedged() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let _held = serve(SocketKind::Dgram, &path);
    let client = UnixDatagram::unbound().unwrap();
    client.set_nonblocking(true).unwrap();
    while client.send_to(&[0; 512], &path).is_ok() {}
    let found = audit(&Expect::path(&path));
    assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    assert!(found.listener.is_some_and(|found| found.pending > found.backlog), "bytes");
}

fn sock_type(kind: SocketKind) -> SockType {
    match kind {
        SocketKind::Stream => SockType::Stream,
        SocketKind::Dgram => SockType::Datagram,
        SocketKind::Seqpacket => SockType::SeqPacket,
    }
}
