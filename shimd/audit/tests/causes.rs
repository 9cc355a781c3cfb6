//! What became of a lost dentry: each way in which it happens, told by the witness that was kept.

#![allow(clippy::unwrap_used)] // these are tests, if not by attribute

mod common;

use std::fs;
use std::os::unix::net::UnixListener;

use common::*;
use socket_audit::{Cause, Verdict};

/// A folder `run` with a listener at `x.sock`, which is lost by `how`. The verdict and the cause.
fn lost(how: impl FnOnce(&Folder)) -> (Folder, Verdict, Option<Cause>) {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    let path = folder.join("run/x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let expect = trusted(&path);
    how(&folder);
    let found = audit(&expect);
    let begins = found.cause.as_ref().is_none_or(|cause| found.reason.starts_with(&format!("{cause}: ")));
    assert!(begins, "{found:?}");
    drop(listener);
    (folder, found.verdict, found.cause)
}

#[test]
fn removed_or_renamed() {
    let (_, verdict, cause) = lost(|folder| fs::remove_file(folder.join("run/x.sock")).unwrap());
    assert_eq!((verdict, cause), (Verdict::Dangling, Some(Cause::Removed)));
    let (folder, verdict, cause) =
        lost(|folder| fs::rename(folder.join("run/x.sock"), folder.join("y.sock")).unwrap());
    assert_eq!((verdict, cause), (Verdict::Dangling, Some(Cause::Renamed(folder.join("y.sock")))));
    let (_, verdict, cause) = lost(|folder| {
        fs::write(folder.join("f"), "").unwrap();
        fs::rename(folder.join("f"), folder.join("run/x.sock")).unwrap();
    });
    assert_eq!((verdict, cause), (Verdict::Replaced, Some(Cause::Removed)));
    // The same name in another folder, while its own folder stays: the file was moved.
    let (folder, _, cause) = lost(|folder| {
        fs::create_dir(folder.join("other")).unwrap();
        fs::rename(folder.join("run/x.sock"), folder.join("other/x.sock")).unwrap();
    });
    assert_eq!(cause, Some(Cause::Renamed(folder.join("other/x.sock"))));
}

#[test]
fn its_folder_was_removed_or_moved() {
    let (_, verdict, cause) = lost(|folder| fs::remove_dir_all(folder.join("run")).unwrap());
    assert_eq!((verdict, cause), (Verdict::Dangling, Some(Cause::FolderRemoved)));
    let (_, _, cause) = lost(|folder| {
        // Made anew while the old one still exists, so that it is surely another inode.
        fs::create_dir(folder.join("new")).unwrap();
        fs::remove_dir_all(folder.join("run")).unwrap();
        fs::rename(folder.join("new"), folder.join("run")).unwrap();
    });
    assert_eq!(cause, Some(Cause::FolderRemoved));
    let (folder, verdict, cause) = lost(|folder| fs::rename(folder.join("run"), folder.join("old")).unwrap());
    assert_eq!((verdict, cause), (Verdict::Dangling, Some(Cause::FolderMoved(folder.join("old")))));
    let (folder, _, cause) = lost(|folder| {
        fs::rename(folder.join("run"), folder.join("old")).unwrap();
        fs::create_dir(folder.join("run")).unwrap();
    });
    assert_eq!(cause, Some(Cause::FolderMoved(folder.join("old"))));
}

#[test]
#[ignore = "needs root"]
fn mounted_over_or_unmounted() {
    let mut mounted = Vec::new();
    let (folder, verdict, cause) = lost(|folder| mounted.push(Mounted::tmpfs(folder.join("run"))));
    let over = Cause::MountedOver { at: folder.join("run"), kind: "tmpfs".into() };
    assert_eq!((verdict, cause), (Verdict::Dangling, Some(over)));
    let (folder, _, cause) = lost(|folder| mounted.push(Mounted::tmpfs(folder.path().into())));
    let over = Cause::MountedOver { at: folder.path().into(), kind: "tmpfs".into() };
    assert_eq!(cause, Some(over), "a mount above its folder");
    drop(mounted);

    let folder = Folder::new();
    let mounted = Mounted::tmpfs(folder.path().into());
    let path = folder.join("x.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let expect = trusted(&path);
    drop(mounted);
    let found = audit(&expect);
    assert_eq!((found.verdict, found.cause), (Verdict::Dangling, Some(Cause::Unmounted)));
}
