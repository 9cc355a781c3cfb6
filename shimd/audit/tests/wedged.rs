//! Connections that wait and are not accepted, on real queues.

#![allow(clippy::unwrap_used, clippy::panic)] // these are tests, if not by attribute

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use common::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};
use socket_audit::{Auditor, Expect, Flow, Queue, SocketKind, Waiting};

#[test]
fn server() {
    be_the_server();
}

fn waiting(path: &std::path::Path) -> Waiting {
    let mut auditor = Auditor::new().unwrap();
    let listener = auditor.confirm(&Expect::path(path)).listener.unwrap();
    auditor.waiting(listener.id()).unwrap().unwrap()
}

/// The inode of a socket, as the kernel names it to others.
fn inode(of: &impl std::os::fd::AsRawFd) -> u32 {
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
