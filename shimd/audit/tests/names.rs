//! Listeners whose kernel name is not their path.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use common::*;
use socket_audit::{Expect, Verdict};

#[test]
fn server() {
    be_the_server();
}

#[test]
fn a_relative_name_is_read_in_its_holders_folder() {
    let folder = Folder::new();
    let server = Server::listen("x.sock", folder.path());
    let path = folder.join("x.sock");
    assert_eq!(audit(&of_pids(&path, &[server.pid()])).verdict, Verdict::Ok);
    fs::remove_file(&path).unwrap();
    for expect in [Expect::path(&path), of_pids(&path, &[server.pid()])] {
        let found = audit(&expect);
        assert_eq!(found.verdict, Verdict::Dangling, "{found:?}");
        assert_eq!(found.holder.unwrap().pid, server.pid());
    }
    assert_eq!(audit(&of_pids(&path, &[me()])).verdict, Verdict::Absent);
    assert_eq!(verdict(&folder.join("y.sock")), Verdict::Absent);
}

#[test]
fn a_relative_name_whose_folder_was_left_still_speaks_for_its_owner() {
    let folder = Folder::new();
    let what = [OsStr::new("listen-and-leave"), OsStr::new("x.sock")];
    let (server, _) = Server::start(&[], &what, folder.path());
    let path = folder.join("x.sock");
    assert_eq!(audit(&of_pids(&path, &[server.pid()])).verdict, Verdict::Ok);
    fs::remove_file(&path).unwrap();
    assert_eq!(audit(&of_pids(&path, &[server.pid()])).verdict, Verdict::Dangling);
    assert_eq!(verdict(&path), Verdict::Absent, "for anyone else it could be any folder's");
}

#[test]
fn other_spellings_of_a_path_are_the_same_path() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    symlink("run", folder.join("var-run")).unwrap();
    let top = folder.path().display();
    let spellings =
        [format!("{top}//run/./x.sock"), format!("{top}/run/../run/x.sock"), format!("{top}/var-run/x.sock")];
    for spelling in spellings {
        let path = folder.join("run/x.sock");
        let _held = UnixListener::bind(&spelling).unwrap();
        assert_eq!(verdict(&path), Verdict::Ok);
        fs::remove_file(&path).unwrap();
        assert_eq!(verdict(&path), Verdict::Dangling, "{spelling}");
        assert_eq!(verdict(&folder.join("var-run/x.sock")), Verdict::Dangling, "{spelling}");
    }
}

#[test]
fn a_socket_renamed_into_place_is_ok_and_dangling_once_lost() {
    let folder = Folder::new();
    for temporary in ["x.sock.812.tmp", "x.sock.812", ".x.sock.new"] {
        let (path, bound) = (folder.join("x.sock"), folder.join(temporary));
        let _held = UnixListener::bind(&bound).unwrap();
        assert_eq!(verdict(&path), Verdict::Absent, "not yet renamed");
        fs::rename(&bound, &path).unwrap();
        let known = trusted(&path);
        fs::remove_file(&path).unwrap();
        for expect in [Expect::path(&path), of_pids(&path, &[me()]), known] {
            let found = audit(&expect);
            assert_eq!(found.verdict, Verdict::Dangling, "{temporary}: {found:?}");
        }
    }
}

#[test]
fn a_longer_name_in_place_or_declared_elsewhere_does_not_speak_for_a_shorter() {
    let folder = Folder::new();
    let _renamed = UnixListener::bind(folder.join("x.sock.b.9.tmp")).unwrap();
    fs::rename(folder.join("x.sock.b.9.tmp"), folder.join("x.sock.b")).unwrap();
    assert_eq!(verdict(&folder.join("x.sock")), Verdict::Absent);
    let _lost = UnixListener::bind(folder.join("x.sock.c")).unwrap();
    fs::remove_file(folder.join("x.sock.c")).unwrap();
    let expects = [folder.join("x.sock"), folder.join("x.sock.c")].map(Expect::path);
    let found = socket_audit::Auditor::new().unwrap().audit(&expects);
    assert_eq!((found[0].verdict, found[1].verdict), (Verdict::Absent, Verdict::Dangling));
}

#[test]
fn a_path_too_long_to_bind_is_judged_all_the_same() {
    let folder = Folder::new();
    let deep = folder.join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let opened = fs::File::open(&deep).unwrap();
    let path = deep.join("x.sock");
    assert!(UnixListener::bind(&path).is_err());
    let _held = UnixListener::bind(format!("/proc/self/fd/{}/x.sock", opened.as_raw_fd())).unwrap();
    let known = trusted(&path);
    fs::remove_file(&path).unwrap();
    for expect in [&known, &Expect::path(&path), &of_pids(&path, &[me()])] {
        assert_eq!(audit(expect).verdict, Verdict::Dangling);
    }
    drop(opened);
    assert_eq!(audit(&of_pids(&path, &[me()])).verdict, Verdict::Dangling, "the folder's descriptor is gone");
    assert_eq!(audit(&of_pids(Path::new("/x/other.sock"), &[me()])).verdict, Verdict::Absent);
}
