//! The control socket's file: lost in all manners, and put back.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use serde_json::json;
use shimd::server::{ControlHandle, Limits, RestoreError, Restored, Server};

use crate::support::{Fixture, Folder, Wire, hold, reached, soon};

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").permissions().mode() & 0o7777
}

/// The folder of a fixture's socket.
fn home(fixture: &Fixture) -> PathBuf {
    fixture.path().parent().expect("a folder").to_owned()
}

fn pin(fixture: &Fixture) -> PathBuf {
    home(fixture).join(".shimd/control")
}

/// Everything below a folder.
fn listed(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if entry.file_type().expect("a type").is_dir() {
            names.extend(listed(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        }
        names.push(name);
    }
    names.sort();
    names
}

fn restored(control: &ControlHandle) -> Restored {
    let lost = !control.look();
    let restored = control.restore().expect("restored");
    assert_eq!(restored != Restored::Intact, lost);
    assert!(control.look());
    assert_eq!(control.pin_trouble(), None);
    restored
}

/// Whether the kernel has a socket of this inode.
fn lives(socket_inode: u64) -> bool {
    let table = fs::read_to_string("/proc/net/unix").expect("the kernel's table");
    table.lines().any(|line| line.split_whitespace().nth(6) == Some(&socket_inode.to_string()))
}

async fn serves(fixture: &Fixture) {
    let mut client = fixture.connect().await;
    assert_eq!(client.ask(1, "shim.info", json!({})).await["id"], 1);
}

/// A client of an idle connection, and one with a call under way.
async fn before(fixture: &Fixture) -> [Wire; 2] {
    let mut idle = fixture.connect().await;
    assert_eq!(idle.ask(1, "shim.info", json!({})).await["id"], 1);
    let mut busy = fixture.connect().await;
    busy.send(hold(2)).await;
    reached(&fixture.handler.begun, 2).await;
    [idle, busy]
}

/// Neither has noticed anything.
async fn unharmed(fixture: &Fixture, [mut idle, mut busy]: [Wire; 2]) {
    assert_eq!(idle.ask(3, "shim.info", json!({})).await["id"], 3);
    fixture.handler.release();
    assert_eq!(busy.line().await["id"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_pinned_and_what_is_there_is_left_alone() {
    let mut fixture = Fixture::start(Limits::default());
    assert_eq!(inode(&pin(&fixture)), Some(fixture.endpoint.ino));
    assert_eq!(mode(pin(&fixture).parent().expect("a folder")), 0o700);
    assert_eq!(restored(&fixture.control), Restored::Intact);

    // A lost pin is made again, and its folder too.
    for lost in [pin(&fixture), home(&fixture).join(".shimd")] {
        fs::remove_file(&lost).or_else(|_| fs::remove_dir_all(&lost)).expect("removed");
        assert_eq!(restored(&fixture.control), Restored::Intact);
        assert_eq!(inode(&pin(&fixture)), Some(fixture.endpoint.ino));
    }
    assert_eq!(fixture.control.endpoint(), fixture.endpoint);
    fixture.begin_stop();
    fixture.stopped().await;
    assert_eq!(listed(&home(&fixture)), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_dentry_is_linked_back() {
    let mut fixture = Fixture::start(Limits::default());
    let clients = before(&fixture).await;
    for _ in 0..3 {
        fs::remove_file(fixture.path()).expect("removed");
        assert_eq!(restored(&fixture.control), Restored::Relinked);
        assert_eq!(fixture.control.endpoint(), fixture.endpoint, "the same socket");
        assert_eq!(inode(fixture.path()), Some(fixture.endpoint.ino));
        serves(&fixture).await;
    }
    // Renamed away within the folder: that name is not ours to remove.
    let aside = home(&fixture).join("aside");
    fs::rename(fixture.path(), &aside).expect("renamed");
    assert_eq!(restored(&fixture.control), Restored::Relinked);
    unharmed(&fixture, clients).await;
    fixture.begin_stop();
    fixture.stopped().await;
    assert_eq!(listed(&home(&fixture)), ["aside"]);
    assert!(
        matches!(fixture.control.restore(), Err(RestoreError::Ended)),
        "nothing is put back after the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_folder_is_made_again_and_the_socket_bound_anew() {
    let mut fixture = Fixture::start(Limits::default());
    let clients = before(&fixture).await;
    for _ in 0..3 {
        let old = fixture.control.endpoint();
        fs::remove_dir_all(home(&fixture)).expect("removed");
        assert_eq!(restored(&fixture.control), Restored::BoundAnew);
        let new = fixture.control.endpoint();
        assert_ne!(new.socket_inode, old.socket_inode);
        assert_eq!((inode(fixture.path()), inode(&pin(&fixture))), (Some(new.ino), Some(new.ino)));
        assert_eq!((mode(&home(&fixture)), mode(fixture.path())), (0o700, 0o600));
        serves(&fixture).await;
        assert!(!lives(old.socket_inode), "nobody waited in the old one's queue: it is closed");
    }
    // The new one is as good as the first.
    fs::remove_file(fixture.path()).expect("removed");
    assert_eq!(restored(&fixture.control), Restored::Relinked);
    serves(&fixture).await;
    unharmed(&fixture, clients).await;
    fixture.begin_stop();
    fixture.stopped().await;
    assert_eq!(listed(&home(&fixture)), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_moved_away_gives_the_socket_back() {
    let around = Folder::new();
    let (run, moved) = (around.path().join("run"), around.path().join("moved"));
    fs::create_dir(&run).expect("made");
    let path = run.join("rpc.sock");
    let server = Server::bind(&path).expect("bound");
    let control = server.control();
    fs::rename(&run, &moved).expect("moved");
    assert_eq!(restored(&control), Restored::Relinked);
    assert_eq!(listed(around.path()), ["moved", "run", "run/.shimd", "run/.shimd/control", "run/rpc.sock"]);
    drop(server);
    assert_eq!(listed(around.path()), ["moved", "run"]);
}

/// Connections that were made and not accepted yet, each with its request.
fn waiting(path: &Path, count: u32) -> Vec<UnixStream> {
    let connect = |id| {
        let mut stream = UnixStream::connect(path).expect("queued");
        let request = crate::support::request(id, "shim.info", json!({}));
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("written");
        stream
    };
    (0..count).map(connect).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_in_the_queue_of_a_lost_socket_is_answered() {
    let fixture = Fixture::start(Limits::default());
    let folder = Folder::new();
    let path = folder.path().join("rpc.sock");
    let server = Server::bind(&path).expect("bound");
    let control = server.control();
    let mut queued = Vec::new();
    // Nobody accepts yet.
    for _ in 0..3 {
        queued.extend(waiting(&path, 50));
        fs::remove_file(&path).expect("removed");
        fs::remove_dir_all(folder.path().join(".shimd")).expect("removed");
        assert_eq!(restored(&control), Restored::BoundAnew);
    }
    queued.extend(waiting(&path, 50));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(fixture.handler.clone(), async {
        let _ = stopped.await;
    }));
    for stream in queued {
        stream.set_nonblocking(true).expect("nonblocking");
        let mut client = Wire::new(tokio::net::UnixStream::from_std(stream).expect("registered"));
        assert!(client.line().await["result"].is_object());
    }
    drop(stop);
    soon("the server's end", serving).await.expect("no panic");
    assert_eq!(listed(folder.path()), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_stays_until_it_is_moved_away() {
    let fixture = Fixture::start(Limits::default());
    let path = fixture.path();
    type Make = fn(&Path);
    let makes: [(&str, Make); 4] = [
        ("a regular file", |path| fs::write(path, "precious").expect("written")),
        ("a folder", |path| fs::create_dir(path).expect("made")),
        ("a symbolic link", |path| symlink(path.with_file_name(".shimd/control"), path).expect("linked")),
        ("a FIFO", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("made")),
    ];
    for (found, make) in makes {
        fs::remove_file(path).expect("removed");
        make(path);
        let before = inode(path);
        assert!(!fixture.control.look());
        let error = fixture.control.restore().expect_err("occupied");
        assert!(matches!(error, RestoreError::Occupied { .. }), "{error}");
        assert!(error.to_string().contains(found) && error.to_string().contains("move it away"), "{error}");
        assert_eq!(inode(path), before);
        fs::rename(path, path.with_file_name(found)).expect("moved away");
        assert_eq!(restored(&fixture.control), Restored::Relinked);
        serves(&fixture).await;
    }
    assert_eq!(fs::read_to_string(path.with_file_name("a regular file")).expect("there"), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_socket_in_the_place_is_removed_and_a_live_one_is_not() {
    let mut fixture = Fixture::start(Limits::default());
    let path = fixture.path().to_owned();
    let clients = before(&fixture).await;
    fs::remove_file(&path).expect("removed");
    let thief = UnixListener::bind(&path).expect("another binds");
    let error = fixture.control.restore().expect_err("occupied");
    assert!(matches!(error, RestoreError::Occupied { .. }), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    assert!(UnixStream::connect(&path).is_ok(), "it is served as before");
    drop(thief);
    assert_eq!(restored(&fixture.control), Restored::Relinked);
    serves(&fixture).await;

    // Bound and not listening yet.
    fs::remove_file(&path).expect("removed");
    let soon_there = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let address = nix::sys::socket::UnixAddr::new(&path).expect("an address");
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&soon_there), &address).expect("bound");
    let error = fixture.control.restore().expect_err("occupied");
    assert!(error.to_string().contains("is about to listen"), "{error}");
    drop(soon_there);
    assert_eq!(restored(&fixture.control), Restored::Relinked);
    unharmed(&fixture, clients).await;

    // At the end too, another's stays.
    fs::remove_file(&path).expect("removed");
    let thief = UnixListener::bind(&path).expect("another binds");
    fixture.begin_stop();
    fixture.stopped().await;
    assert_eq!(listed(&home(&fixture)), ["rpc.sock"]);
    drop(thief);
}

#[tokio::test]
async fn what_lies_in_the_pin_s_place_is_removed_only_if_it_is_a_socket() {
    let folder = Folder::new();
    let (path, pin) = (folder.path().join("rpc.sock"), folder.path().join(".shimd/control"));
    fs::create_dir(folder.path().join(".shimd")).expect("made");
    drop(UnixListener::bind(&pin).expect("a dead daemon's"));
    let server = Server::bind(&path).expect("bound");
    assert_eq!(server.control().pin_trouble(), None);
    assert_eq!(inode(&pin), Some(server.control().endpoint().ino));
    drop(server);
    assert_eq!(listed(folder.path()), [".shimd"], "the folder was there before");

    fs::write(&pin, "precious").expect("written");
    let server = Server::bind(&path).expect("bound without a pin");
    let control = server.control();
    let trouble = control.pin_trouble().expect("no pin");
    assert_eq!(trouble.errno, Errno::EEXIST);
    assert!(trouble.to_string().contains("bound anew once it is lost"), "{trouble}");
    fs::remove_file(&path).expect("removed");
    assert_eq!(control.restore().expect("restored"), Restored::BoundAnew);
    assert_eq!(control.pin_trouble().map(|trouble| trouble.errno), Some(Errno::EEXIST));
    fs::rename(&pin, folder.path().join("kept")).expect("moved away");
    assert_eq!(restored(&control), Restored::Intact);
    drop(server);
    assert_eq!(listed(folder.path()), [".shimd", "kept"]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_had_is_said() {
    let around = Folder::new();
    let run = around.path().join("run");
    fs::create_dir(&run).expect("made");
    let server = Server::bind(&run.join("rpc.sock")).expect("bound");
    let control = server.control();
    fs::remove_dir_all(&run).expect("removed");
    fs::write(&run, "precious").expect("written");
    let error = control.restore().expect_err("no folder");
    assert!(matches!(error, RestoreError::Folder(_)), "{error}");
    assert!(error.to_string().contains("is not a folder; move it away"), "{error}");
    fs::remove_file(&run).expect("removed");
    assert_eq!(restored(&control), Restored::BoundAnew);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_over_the_folder_is_served_too_and_so_is_what_it_hid() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    let mut fixture = Fixture::start(Limits::default());
    let home = home(&fixture);
    let clients = before(&fixture).await;
    let mount =
        || nix::mount::mount(Some("none"), &home, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>);
    if let Err(errno) = mount() {
        eprintln!("skipped: a_mount_over_the_folder_is_served_too_and_so_is_what_it_hid: {errno}");
        return;
    }
    let mounted = Mounted(home.clone());
    assert_eq!(restored(&fixture.control), Restored::BoundAnew);
    assert!(fs::symlink_metadata(fixture.path()).expect("there").file_type().is_socket());
    serves(&fixture).await;
    drop(mounted);
    assert_eq!(listed(&home), Vec::<String>::new(), "what the mount hid went with the old socket");
    assert_eq!(restored(&fixture.control), Restored::BoundAnew);
    serves(&fixture).await;
    unharmed(&fixture, clients).await;
    fixture.begin_stop();
    fixture.stopped().await;
    assert_eq!(listed(&home), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_is_lost_while_the_socket_goes_and_comes() {
    let fixture = Fixture::start(Limits::default());
    let (path, done) =
        (fixture.path().to_owned(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stop = done.clone();
    let clients = tokio::task::spawn_blocking(move || {
        let mut answered = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            // No name, or a listener that takes no more: both are said, and a client may try again.
            let Ok(mut stream) = UnixStream::connect(&path) else { continue };
            stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("set");
            std::io::Write::write_all(
                &mut stream,
                b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"shim.info\"}\n",
            )
            .expect("written");
            let mut line = String::new();
            let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut line);
            assert!(read.is_ok_and(|length| length > 0) && line.contains("\"result\""), "{line:?}");
            answered += 1;
        }
        answered
    });
    for round in 0..200 {
        if round % 2 == 0 {
            fs::remove_file(fixture.path()).expect("removed");
        } else {
            fs::remove_dir_all(home(&fixture)).expect("removed");
        }
        let expected = if round % 2 == 0 { Restored::Relinked } else { Restored::BoundAnew };
        assert_eq!(restored(&fixture.control), expected);
        serves(&fixture).await;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let answered = soon("the clients' end", clients).await.expect("each that connected was answered");
    assert!(answered > 0);
}
