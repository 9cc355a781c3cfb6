//! File systems on which `st_dev` is not the device that sock_diag gives. They are ignored unless asked for
//! (`cargo test -- --include-ignored`), so that they are never passed unrun.

#![allow(clippy::unwrap_used)] // these are tests, if not by attribute

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use common::*;
use socket_audit::{Expect, Verdict, look};

#[test]
#[ignore = "needs root"]
fn sockets_on_overlays_are_matched() {
    let folder = Folder::new();
    let _other = Mounted::tmpfs({
        fs::create_dir(folder.join("tmpfs")).unwrap();
        folder.join("tmpfs")
    });
    fs::create_dir(folder.join("lower")).unwrap();
    stale(&folder.join("lower/old.sock"));
    // The upper folder on the file system of the lower one, and on another: then `st_dev` is of neither.
    for upper in [folder.path().to_owned(), folder.join("tmpfs")] {
        for name in ["upper", "work", "overlay"] {
            fs::create_dir(upper.join(name)).unwrap();
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            folder.join("lower").display(),
            upper.join("upper").display(),
            upper.join("work").display()
        );
        let _overlay = Mounted::on(upper.join("overlay"), "overlay", &options);
        let path = upper.join("overlay/x.sock");
        let _held = UnixListener::bind(&path).unwrap();
        let found = trusted(&path);
        assert_eq!(verdict(&upper.join("overlay/old.sock")), Verdict::Stale);
        fs::rename(&path, upper.join("overlay/y.sock")).unwrap();
        assert_eq!(verdict(&upper.join("overlay/y.sock")), Verdict::Ok);
        assert_eq!(audit(&found).verdict, Verdict::Dangling);
    }
}

#[test]
#[ignore = "needs root and mkfs.btrfs"]
fn sockets_of_btrfs_subvolumes_with_the_same_inode_number_are_told_apart() {
    let folder = Folder::new();
    let image = folder.join("image");
    fs::File::create(&image).unwrap().set_len(300 << 20).unwrap();
    run("mkfs.btrfs", &["-q".as_ref(), image.as_os_str()]);
    fs::create_dir(folder.join("btrfs")).unwrap();
    let _mounted = Mounted::image(&image, folder.join("btrfs"));
    let [one, two] = ["one", "two"].map(|name| {
        let subvolume = folder.join("btrfs").join(name);
        run("btrfs", &["subvolume".as_ref(), "create".as_ref(), subvolume.as_os_str()]);
        subvolume.join("x.sock")
    });
    let held = UnixListener::bind(&one).unwrap();
    let other = UnixListener::bind(&two).unwrap();
    let dentry = |path| look(path).unwrap().unwrap();
    assert_eq!(dentry(&one).vfs(), dentry(&two).vfs());
    assert_ne!(dentry(&one).dev, dentry(&one).stat_dev);
    assert_eq!((verdict(&one), verdict(&two)), (Verdict::Ok, Verdict::Ok));
    let known = trusted(&one);
    drop(other);
    assert_eq!((verdict(&one), verdict(&two)), (Verdict::Ok, Verdict::Stale));
    symlink(&one, folder.join("to-one")).unwrap();
    symlink(&two, folder.join("to-two")).unwrap();
    assert_eq!(verdict(&folder.join("to-one")), Verdict::Ok);
    assert_eq!(verdict(&folder.join("to-two")), Verdict::NotSocket);
    fs::rename(&one, one.with_file_name("y.sock")).unwrap();
    assert_eq!(verdict(&one.with_file_name("y.sock")), Verdict::Ok);
    assert_eq!(audit(&Expect { known: known.known, ..of_pids(&two, &[me()]) }).verdict, Verdict::Replaced);
    drop(held);
    assert_eq!(verdict(&one.with_file_name("y.sock")), Verdict::Stale);
}
