//! What is still connected to a listener, told by the inode that an accepted connection bears.

mod common;

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};

use common::Folder;
use socket_audit::{Auditor, Diag, Expect};

#[test]
fn accepted_connections_are_counted_until_they_are_closed_whatever_became_of_the_name() {
    let folder = Folder::new();
    let (path, other) = (folder.join("a"), folder.join("b"));
    let listener = UnixListener::bind(&path).unwrap();
    let beside = UnixListener::bind(&other).unwrap();
    let _client_of_the_other = UnixStream::connect(&other).unwrap();
    let _accepted_by_the_other = beside.accept().unwrap();
    let found = Auditor::new().unwrap().confirm(&Expect::path(&path)).listener.unwrap();
    let vfs = [found.vfs.unwrap()];
    let mut diag = Diag::open().unwrap();
    let mut open = || diag.connections(&vfs).unwrap();

    assert_eq!(open(), 0);
    let first = UnixStream::connect(&path).unwrap();
    assert_eq!(open(), 0, "it waits in the queue");
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(open(), 1);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(open(), 1, "the name is gone");
    drop(first);
    assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0);
    drop(accepted);
    assert_eq!(open(), 0);
}
