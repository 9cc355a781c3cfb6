//! Listeners handed over by the real trampoline: where the service looks for them, and nowhere else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use common::{Folder, Service, begin, is_root, script, until};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use shimd::sys::activation::{Held, Wanted, fd_name, retake};
use shimd::sys::spawn::{ExecPlan, Ids, Listen};
use shimd_api::spec::SocketKind;

fn bound(path: PathBuf, kind: SocketKind) -> Arc<Held> {
    Arc::new(Held::bind(&Wanted { path, kind, backlog: None, owner: None, umask: 0o022 }).unwrap())
}

/// Spawns with these listeners handed over, and lets go.
async fn run(folder: &Folder, plan: ExecPlan, listeners: &[Arc<Held>]) -> Service {
    let listen = |held: &Arc<Held>| Listen { name: fd_name(held.path().to_str().unwrap()), backlog: Some(5) };
    let plan = ExecPlan { listeners: listeners.iter().map(listen).collect(), ..plan };
    let mut pending = begin(folder, &plan).unwrap();
    pending.hand_over(listeners.to_vec());
    let identity = pending.ready().await.unwrap();
    pending.go().await.unwrap();
    Service(identity)
}

// Without a pipe: the shell would have that open itself, now and then.
const SHOW: &str = "echo $$ $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES; ls -l /proc/$$/fd; exec sleep 1000";

/// The end of a line of `ls -l`: `3 -> socket:[1]`.
fn descriptor(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    words[words.len().saturating_sub(3)..].join(" ")
}

#[tokio::test]
async fn the_service_finds_them_from_3_on_with_its_own_pid_and_their_names() {
    let folder = Folder::new();
    let kinds = [SocketKind::Stream, SocketKind::Dgram, SocketKind::Seqpacket];
    let listeners: Vec<_> =
        kinds.map(|kind| bound(folder.path().join(format!("{}:x.sock", kind.as_str())), kind)).to_vec();
    let service = run(&folder, script("m", SHOW), &listeners).await;
    let lines = folder.lines("out", 8);
    let pid = service.pid();
    assert_eq!(lines[0], format!("{pid} {pid} 3 stream_x.sock:dgram_x.sock:seqpacket_x.sock"));
    assert_eq!(lines[1], "total 0");
    assert_eq!(descriptor(&lines[2]), "0 -> /dev/null");
    let sockets: Vec<String> =
        (3..).zip(&listeners).map(|(fd, held)| format!("{fd} -> socket:[{}]", held.id().inode)).collect();
    let others: Vec<String> = lines[5..].iter().map(|line| descriptor(line)).collect();
    assert_eq!(others, sockets, "and no other descriptor");
}

#[tokio::test]
async fn without_listeners_nothing_is_said_of_them() {
    let folder = Folder::new();
    let mut plan = script("m", "env | grep -c ^LISTEN_; ls /proc/$$/fd; exec sleep 1000");
    plan.env.insert("LISTEN_FDNAMES".into(), "of the spec's own".into());
    let _service = run(&folder, plan, &[]).await;
    assert_eq!(folder.lines("out", 4), ["1", "0", "1", "2"]);
}

#[tokio::test]
async fn clients_see_the_service_as_their_peer_and_its_backlog() {
    let folder = Folder::new();
    let held = bound(folder.path().join("s"), SocketKind::Stream);
    let mut plan = script("m", SHOW);
    if is_root() {
        plan.ids = Some(Ids { uid: 65534, gid: 65534, groups: vec![] });
    }
    let service = run(&folder, plan.clone(), std::slice::from_ref(&held)).await;
    let client = UnixStream::connect(held.path()).unwrap();
    let peer = getsockopt(&client, PeerCredentials).unwrap();
    let uid = plan.ids.map_or_else(|| nix::unistd::geteuid().as_raw(), |ids| ids.uid);
    assert_eq!((peer.pid(), peer.uid()), (service.pid(), uid));
    let mut diag = socket_audit::Diag::open().unwrap();
    assert_eq!(held.listening(&mut diag).unwrap().backlog, 5);
}

#[tokio::test]
async fn hundreds_are_handed_over() {
    let folder = Folder::new();
    let listeners: Vec<_> = (0..600)
        .map(|i| bound(format!("@{}/{i}", folder.path().display()).into(), SocketKind::Stream))
        .collect();
    let _service = run(&folder, script("m", "ls /proc/$$/fd; echo all; exec sleep 1000"), &listeners).await;
    let lines = folder.lines("out", 604);
    let last = lines.last().map(String::as_str);
    assert_eq!((lines.len(), last), (604, Some("all")), "three and the listeners, and no other");
}

#[tokio::test]
async fn a_client_that_waits_outlives_the_service_and_the_daemon_s_own_descriptor() {
    let folder = Folder::new();
    let wanted = Wanted {
        path: folder.path().join("s"),
        kind: SocketKind::Stream,
        backlog: None,
        owner: None,
        umask: 0o022,
    };
    let held = Arc::new(Held::bind(&wanted).unwrap());
    let id = held.id();
    let first = run(&folder, script("m", SHOW), std::slice::from_ref(&held)).await;
    let mut client = UnixStream::connect(&wanted.path).unwrap();
    client.write_all(b"hello").unwrap();
    drop(held); // as if the daemon had been killed
    let held = retake(&wanted, Some(id), &[first.pid()]).unwrap().unwrap();
    drop(first);
    let mut diag = socket_audit::Diag::open().unwrap();
    let waits = || held.listening(&mut diag).filter(|listener| listener.pending == 1);
    assert_eq!(until("the client still waits", waits).id(), id);
}
