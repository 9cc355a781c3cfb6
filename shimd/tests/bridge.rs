//! Bridges as processes: who gets through, as whom, and how they end. The listeners are this test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use shimd::bridge::{Order, retire, start_with};
use socket_audit::bridge::Bridge;
use socket_audit::{Auditor, Expect, Finding, Verdict};

/// A folder with a listener in it whose file is gone.
struct Lost {
    folder: tempfile::TempDir,
    path: PathBuf,
    listener: Option<UnixListener>,
    order: Order,
}

impl Lost {
    /// `None`: without root there is no bridge.
    fn new() -> Option<Lost> {
        if !geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("lost.sock");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o767)).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), Some(65533)).unwrap();
        fs::remove_file(&path).unwrap();
        let found = audit(&path);
        assert_eq!(found.verdict, Verdict::Dangling);
        let listening = found.listener.unwrap();
        let order = Order {
            path: path.clone(),
            pid: std::process::id() as i32,
            listener: listening.id(),
            creator: listening.uid,
            backlog: 16,
        };
        Some(Lost { folder, path, listener: Some(listener), order })
    }

    /// Who made it, as the kernel would tell of another user's.
    fn made_by(mut self, user: u32) -> Lost {
        self.order.creator = Some(user);
        self
    }

    fn start(&self) -> Result<Option<String>, String> {
        start_with(Path::new(env!("CARGO_BIN_EXE_shimd")), &self.order).map_err(|e| e.to_string())
    }

    fn accept(&self) -> UnixStream {
        self.listener.as_ref().unwrap().accept().unwrap().0
    }

    /// The bridge that stands at the path.
    fn bridge(&self) -> (Bridge, Finding) {
        let found = audit(&self.path);
        (Bridge::of(found.holder.as_ref().unwrap().pid).unwrap(), found)
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        // Its end is the bridge's.
        self.listener = None;
        until("the bridge is gone", || !self.path.exists());
    }
}

fn audit(path: &Path) -> Finding {
    Auditor::new().unwrap().confirm(&Expect::path(path))
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn both_ways_and_half_closed_until_the_listener_is_gone() {
    let Some(mut lost) = Lost::new() else { return };
    assert_eq!(lost.start(), Ok(None));
    let found = lost.path.metadata().unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o767, 65534, 65533));
    let question = vec![7u8; 3_000_000];
    let client = {
        let (path, question) = (lost.path.clone(), question.clone());
        std::thread::spawn(move || {
            let mut client = UnixStream::connect(path).unwrap();
            client.write_all(&question).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        })
    };
    let mut server = lost.accept();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, question, "the end of what is sent is passed on");
    server.write_all(&heard).unwrap();
    drop(server);
    assert_eq!(client.join().unwrap(), question);

    let (bridge, found) = lost.bridge();
    assert_eq!(found.verdict, Verdict::Replaced);
    let reason = found.reason.to_string();
    assert!(
        reason.starts_with("bridged: ") && reason.contains(&format!("pid {} (", lost.order.pid)),
        "{reason}"
    );
    assert_eq!((bridge.serves, bridge.user), (lost.order.pid, Some(0)));
    let machine = Auditor::new().unwrap().system().unwrap();
    let row = machine.findings.iter().find(|found| found.path == lost.path).unwrap();
    assert!(row.verdict == Verdict::Replaced && row.reason.starts_with("bridged: "), "{row:?}");

    // One that is open outlives the listener; new ones find nothing.
    let mut open = UnixStream::connect(&lost.path).unwrap();
    let mut server = lost.accept();
    lost.listener = None;
    until("its file is gone", || !lost.path.exists());
    server.write_all(b"late").unwrap();
    let mut word = [0; 4];
    open.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"late");
}

#[test]
fn the_service_is_told_who_its_client_is() {
    let Some(lost) = Lost::new() else { return };
    lost.start().unwrap();
    let path = lost.path.clone();
    // Of this thread alone: the C library would change them all.
    let other = std::thread::spawn(move || {
        shimd::sys::as_peer::Peer::new(1234, 1235, vec![1236, 1237])
            .act(|| UnixStream::connect(path))
            .unwrap()
    });
    let _client = other.join().unwrap().unwrap();
    let server = lost.accept();
    let told = getsockopt(&server, PeerCredentials).unwrap();
    assert_eq!((told.uid(), told.gid()), (1234, 1235), "not the bridge's own, root's");
    assert_eq!(
        shimd::sys::as_peer::Peer::of(&server).unwrap(),
        shimd::sys::as_peer::Peer::new(1234, 1235, vec![1236, 1237])
    );
}

#[test]
fn it_leaves_what_is_not_its_own() {
    let Some(lost) = Lost::new() else { return };
    fs::write(&lost.path, "a file").unwrap();
    let refused = lost.start().unwrap_err();
    assert!(refused.contains("a regular file"), "{refused}");
    assert_eq!(fs::read_to_string(&lost.path).unwrap(), "a file");
    fs::remove_file(&lost.path).unwrap();
    // A socket file that nobody listens on is in nobody's way.
    drop(UnixListener::bind(&lost.path).unwrap());
    lost.start().unwrap();
    let (bridge, found) = lost.bridge();
    // What comes to lie in its place stays when it ends.
    fs::remove_file(&lost.path).unwrap();
    fs::write(&lost.path, "another").unwrap();
    let held = shimd::sys::pidfd::PidFd::open(bridge.pid).unwrap();
    until("it ends by itself", || !held.is_alive());
    assert_eq!(fs::read_to_string(&lost.path).unwrap(), "another");
    fs::remove_file(&lost.path).unwrap();
    assert!(found.listener.is_some());
}

#[test]
fn a_folder_that_went_is_made_and_one_that_is_told_to_end_does_at_once() {
    let Some(lost) = Lost::new() else { return };
    let Lost { order, folder, .. } = &lost;
    let away = folder.path().with_extension("away");
    fs::rename(folder.path(), &away).unwrap();
    let note = lost.start().unwrap().unwrap();
    assert!(note.contains("mode 0700"), "the socket lets everybody write: {note}");
    assert_eq!(folder.path().metadata().unwrap().mode() & 0o7777, 0o700);
    let mut open = UnixStream::connect(&order.path).unwrap();
    let mut server = lost.accept();
    let (bridge, found) = lost.bridge();
    retire(&bridge, found.listener.unwrap().id());
    assert!(!order.path.exists(), "it is gone once that returns");
    server.write_all(b"x").unwrap();
    open.read_exact(&mut [0]).unwrap();
    fs::remove_dir(&away).unwrap();
}

#[test]
fn a_listener_that_is_not_there_is_said() {
    let Some(mut lost) = Lost::new() else { return };
    lost.listener = None;
    let refused = lost.start().unwrap_err();
    assert!(refused.contains("restart the service") && !lost.path.exists(), "{refused}");
}

#[test]
fn nobody_gets_a_place_that_they_could_not_have_taken() {
    let Some(lost) = Lost::new() else { return };
    // The folder is root's, 0755: a listener of another's was never bound in it, whatever its name says.
    let lost = lost.made_by(1234);
    let refused = lost.start().unwrap_err();
    assert!(refused.contains("user 1234, who made the listener, may not make files in"), "{refused}");
    assert!(!lost.path.exists());
    std::os::unix::fs::chown(lost.folder.path(), Some(1234), None).unwrap();
    lost.start().unwrap();
}
