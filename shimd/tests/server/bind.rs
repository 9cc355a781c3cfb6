//! Binding the socket, and removing its file.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use serde_json::json;
use shimd::server::{Limits, Server, ServerError};
use shimd_api::client::Client;

use crate::support::{Fixture, Folder, PATIENCE, hold, reached, soon};

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_known_by_its_inodes() {
    let fixture = Fixture::start(Limits::default());
    let dentry = std::fs::symlink_metadata(fixture.path()).expect("bound");
    assert!(dentry.file_type().is_socket());
    assert_eq!(dentry.permissions().mode() & 0o7777, 0o600);
    assert_eq!((dentry.dev(), dentry.ino()), (fixture.endpoint.dev, fixture.endpoint.ino));

    let table = std::fs::read_to_string("/proc/net/unix").expect("the kernel's table");
    let line = table.lines().find(|line| line.ends_with(&fixture.path().display().to_string()));
    let inode = line.and_then(|line| line.split_whitespace().nth(6)).and_then(|inode| inode.parse().ok());
    assert_eq!(inode, Some(fixture.endpoint.socket_inode));
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fixture.endpoint.fd)).expect("open");
    assert_eq!(link, PathBuf::from(format!("socket:[{}]", fixture.endpoint.socket_inode)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_too_long_for_a_socket_address_is_served_and_removed() {
    let folder = Folder::new();
    let deep = folder.path().join("d".repeat(90)).join("e".repeat(90));
    std::fs::create_dir_all(&deep).expect("made");
    let path = deep.join("rpc.sock");
    let server = Server::bind(&path).expect("bound");
    let dentry = std::fs::symlink_metadata(&path).expect("bound");
    assert_eq!(dentry.permissions().mode() & 0o7777, 0o600);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let fixture = Fixture::start(Limits::default());
    let serving = tokio::spawn(server.serve(fixture.handler.clone(), async {
        let _ = stopped.await;
    }));
    let socket = path.clone();
    let answer = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&socket, PATIENCE).expect("connected");
        client.call("shim.info", json!({}), PATIENCE, &mut |_| {}, &|| false)
    });
    assert!(soon("an answer", answer).await.expect("no panic").is_ok());
    drop(stop);
    soon("the server's end", serving).await.expect("no panic");
    assert!(!path.exists());
}

#[tokio::test]
async fn nothing_that_lies_at_the_path_is_removed() {
    let folder = Folder::new();
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").expect("written");
    let stale = folder.path().join("stale");
    drop(UnixListener::bind(&stale).expect("bound"));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).expect("linked");
    for path in [file, stale, link] {
        let before = std::fs::symlink_metadata(&path).expect("there").ino();
        let error = Server::bind(&path).expect_err("in use");
        assert!(matches!(error, ServerError::InUse { .. }), "{error}");
        assert_eq!(std::fs::symlink_metadata(&path).expect("still there").ino(), before);
    }
}

#[tokio::test]
async fn what_cannot_be_bound_says_why() {
    let folder = Folder::new();
    let bind = |path: PathBuf| Server::bind(&path).expect_err("not bound");
    assert!(matches!(bind("rpc.sock".into()), ServerError::NotAPath { .. }));
    assert!(matches!(bind("/".into()), ServerError::NotAPath { .. }));
    assert!(matches!(bind(folder.path().join("none/rpc.sock")), ServerError::Folder { .. }));
    let error = bind(folder.path().join("n".repeat(120)));
    assert!(matches!(error, ServerError::TooLong { length: 120, .. }), "{error}");
    assert!(error.to_string().contains("120 bytes"), "{error}");
}

#[tokio::test]
async fn only_the_own_file_is_removed_at_the_end() {
    let folder = Folder::new();
    let path = folder.path().join("rpc.sock");
    drop(Server::bind(&path).expect("bound"));
    assert!(!path.exists(), "a server that never served removes it too");

    let server = Server::bind(&path).expect("bound again");
    std::fs::remove_file(&path).expect("removed");
    let successor = UnixListener::bind(&path).expect("another binds");
    drop(server);
    assert!(path.exists(), "another's file stays");
    drop(successor);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_removes_the_file_lets_calls_end_and_closes_the_rest() {
    let mut fixture = Fixture::start(Limits::default());
    let mut idle = fixture.connect().await;
    assert_eq!(idle.ask(1, "shim.info", json!({})).await["id"], 1);
    let mut silent = fixture.connect().await;
    let mut busy = fixture.connect().await;
    busy.send(hold(2)).await;
    reached(&fixture.handler.begun, 2).await;
    let mut http = fixture.connect().await;
    http.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(http.http(false).await.0, 200);

    fixture.begin_stop();
    assert_eq!(idle.rest().await, b"");
    assert_eq!(silent.rest().await, b"");
    assert_eq!(http.rest().await, b"");
    assert!(!fixture.path().exists());
    fixture.handler.release();
    assert_eq!(busy.line().await["id"], 2);
    assert_eq!(busy.rest().await, b"");
    fixture.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_end_does_not_hold_up_the_stop() {
    let limits = Limits { drain: std::time::Duration::from_millis(200), ..Limits::default() };
    let mut fixture = Fixture::start(limits);
    let mut client = fixture.connect().await;
    client.send(hold(1)).await;
    reached(&fixture.handler.begun, 1).await;
    fixture.begin_stop();
    fixture.stopped().await;
    assert_eq!(client.rest().await, b"");
    reached(&fixture.handler.dropped, 1).await;
}
