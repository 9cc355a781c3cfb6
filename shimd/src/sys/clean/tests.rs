use super::*;
use std::cell::Cell;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;

use nix::unistd::mkfifo;

fn anyone(_: &Seen) -> bool {
    true
}

/// What lies in the folder, so that a test sees leftovers too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_socket_goes() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("rpc.sock");
    drop(UnixListener::bind(&path).unwrap());
    let ino = path.symlink_metadata().unwrap().ino();
    let asked = Cell::new(Vec::new());
    let allowed = |seen: &Seen| {
        assert!(seen.path.exists(), "asked about a name that is there");
        assert_eq!((seen.ino, seen.kind), (ino, Kind::Socket));
        asked.set([asked.take(), vec![seen.path.clone()]].concat());
        true
    };
    assert!(matches!(remove_socket(&path, &allowed).unwrap(), Cleaned::Removed(seen) if seen.ino == ino));
    let asked = asked.take();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], path);
    assert!(is_private(asked[1].file_name().unwrap()));
    assert_eq!(names(tmp.path()), [""; 0]);
    assert_eq!(remove_socket(&path, &anyone).unwrap(), Cleaned::Nothing);
    assert_eq!(remove_socket(&tmp.path().join("no/folder"), &anyone).unwrap(), Cleaned::Nothing);
}

#[test]
fn what_is_no_socket_stays() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::write(at("file"), "precious").unwrap();
    fs::create_dir(at("folder")).unwrap();
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    let listener = UnixListener::bind(at("live")).unwrap();
    symlink(at("live"), at("link")).unwrap();
    symlink("nowhere", at("dangling-link")).unwrap();
    let before = names(tmp.path());
    for (name, kind) in [
        ("file", Kind::File),
        ("folder", Kind::Folder),
        ("fifo", Kind::Fifo),
        ("link", Kind::Link),
        ("dangling-link", Kind::Link),
    ] {
        match remove_socket(&at(name), &anyone) {
            Err(CleanError::WrongKind { path, found, wanted: Kind::Socket }) => {
                assert_eq!((path, found), (at(name), kind));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(names(tmp.path()), before);
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
    drop(listener);
}

#[test]
fn a_socket_that_is_to_stay_stays() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("rpc.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let error = remove_socket(&path, &|_| false).unwrap_err();
    assert!(matches!(&error, CleanError::InUse { path: p } if *p == path), "{error}");
    // The second answer counts as much as the first: the service came up between the two.
    let asked = Cell::new(0);
    let error = remove_socket(&path, &|_| asked.replace(asked.get() + 1) == 0).unwrap_err();
    assert!(matches!(error, CleanError::InUse { .. }), "{error}");
    assert_eq!(names(tmp.path()), ["rpc.sock"]);
    std::os::unix::net::UnixStream::connect(&path).expect("the same listener is back at its path");
    drop(listener);
}

#[test]
fn a_marker_goes_only_if_it_is_a_file() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    fs::write(at(".ready"), "").unwrap();
    assert!(matches!(remove_marker(&at(".ready")).unwrap(), Cleaned::Removed(_)));
    assert_eq!(remove_marker(&at(".ready")).unwrap(), Cleaned::Nothing);
    fs::write(at("file"), "").unwrap();
    symlink("file", at("link")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    for name in ["link", "folder", "socket"] {
        let error = remove_marker(&at(name)).unwrap_err();
        assert!(matches!(error, CleanError::WrongKind { wanted: Kind::File, .. }), "{error}");
    }
    assert_eq!(names(tmp.path()), ["file", "folder", "link", "socket"]);
}

#[test]
fn a_link_as_the_folder_is_refused_and_the_real_one_named() {
    let tmp = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(tmp.path()).unwrap().join("real");
    fs::create_dir_all(real.join("deep")).unwrap();
    let link = tmp.path().join("link");
    symlink(&real, &link).unwrap();
    drop(UnixListener::bind(real.join("a.sock")).unwrap());
    for path in [link.join("a.sock"), link.join("./a.sock")] {
        match remove_socket(&path, &anyone) {
            Err(error @ CleanError::Refused { errno: Errno::ENOTDIR, .. }) => {
                assert!(error.to_string().contains(&*real.to_string_lossy()), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(real.join("a.sock").exists());
    // A link further up is followed, as it is by bind.
    drop(UnixListener::bind(real.join("deep/b.sock")).unwrap());
    assert!(matches!(remove_socket(&link.join("deep/b.sock"), &anyone).unwrap(), Cleaned::Removed(_)));
    // A file in the folder's place.
    fs::write(tmp.path().join("file"), "").unwrap();
    let error = remove_socket(&tmp.path().join("file/a.sock"), &anyone).unwrap_err();
    assert!(matches!(error, CleanError::Refused { errno: Errno::ENOTDIR, .. }), "{error}");
}

#[test]
fn a_path_of_any_length_will_do() {
    let tmp = tempfile::tempdir().unwrap();
    let deep = tmp.path().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    // Bound under a short name and moved: longer than bind itself could take.
    drop(UnixListener::bind(tmp.path().join("s")).unwrap());
    fs::rename(tmp.path().join("s"), deep.join("s".repeat(250))).unwrap();
    assert!(matches!(remove_socket(&deep.join("s".repeat(250)), &anyone).unwrap(), Cleaned::Removed(_)));
    assert_eq!(names(&deep), [""; 0]);
}

#[test]
fn paths_that_end_in_no_name() {
    for path in ["/", "..", ""] {
        let error = remove_socket(Path::new(path), &anyone).unwrap_err();
        assert!(matches!(error, CleanError::Refused { errno: Errno::EINVAL, .. }), "{error}");
    }
}

/// Another socket took the place: it may even have the first one's inode number, were that not held.
#[test]
fn a_socket_swapped_between_look_and_move_is_put_back() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("rpc.sock");
    drop(UnixListener::bind(&path).unwrap());
    let first = path.symlink_metadata().unwrap().ino();
    let new = Cell::new(None);
    let swap = |moment| {
        if moment == Moment::Looked {
            fs::remove_file(&path).unwrap();
            new.set(Some(UnixListener::bind(&path).unwrap()));
        }
    };
    let error = remove(&path, Kind::Socket, &anyone, &swap).unwrap_err();
    assert!(matches!(&error, CleanError::Swapped { found: Kind::Socket, .. }), "{error}");
    assert_ne!(path.symlink_metadata().unwrap().ino(), first, "the number was in use while it was held");
    std::os::unix::net::UnixStream::connect(&path).expect("the new listener is reachable");
    assert_eq!(names(tmp.path()), ["rpc.sock"]);
}

#[test]
fn a_file_or_folder_swapped_in_is_put_back() {
    let make_file: fn(&Path) = |path| fs::write(path, "precious").unwrap();
    let make_folder: fn(&Path) = |path| fs::create_dir(path).unwrap();
    for (make, kind) in [(make_file, Kind::File), (make_folder, Kind::Folder)] {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("rpc.sock");
        drop(UnixListener::bind(&path).unwrap());
        let swap = |moment| {
            if moment == Moment::Looked {
                fs::remove_file(&path).unwrap();
                make(&path);
            }
        };
        let error = remove(&path, Kind::Socket, &anyone, &swap).unwrap_err();
        assert!(matches!(&error, CleanError::Swapped { found, .. } if *found == kind), "{error}");
        assert_eq!(names(tmp.path()), ["rpc.sock"]);
    }
}

#[test]
fn nothing_is_put_back_over_something_new() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("rpc.sock");
    drop(UnixListener::bind(&path).unwrap());
    let interfere = |moment| match moment {
        Moment::Looked => {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "second").unwrap();
        }
        Moment::Moved => fs::write(&path, "third").unwrap(),
        Moment::LookedAgain => {}
    };
    match remove(&path, Kind::Socket, &anyone, &interfere).unwrap_err() {
        CleanError::Kept { kept, found: Kind::File, errno: Errno::EEXIST, .. } => {
            assert_eq!(fs::read_to_string(kept).unwrap(), "second");
            assert_eq!(fs::read_to_string(&path).unwrap(), "third");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_goes_by_itself_is_no_error() {
    for when in [Moment::Looked, Moment::Moved, Moment::LookedAgain] {
        let tmp = tempfile::tempdir().unwrap();
        let folder = tmp.path().join("f");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("rpc.sock");
        drop(UnixListener::bind(&path).unwrap());
        let vanish = |moment| {
            if moment == when {
                fs::remove_dir_all(&folder).unwrap();
            }
        };
        remove(&path, Kind::Socket, &anyone, &vanish).unwrap();
    }
}

#[test]
fn a_crash_leaves_a_private_name_that_is_swept() {
    let tmp = tempfile::tempdir().unwrap();
    let at = |name: &str| tmp.path().join(name);
    let left = at(&private_name().unwrap().to_string_lossy());
    let live = at(&private_name().unwrap().to_string_lossy());
    let file = at(&private_name().unwrap().to_string_lossy());
    drop(UnixListener::bind(&left).unwrap());
    let listener = UnixListener::bind(&live).unwrap();
    fs::write(&file, "").unwrap();
    drop(UnixListener::bind(at("other.sock")).unwrap());
    drop(UnixListener::bind(at(".shimd-aside-short")).unwrap());
    let ino = live.symlink_metadata().unwrap().ino();
    assert_eq!(sweep(tmp.path(), &|_| false, &|seen| seen.ino != ino).unwrap(), [left]);
    assert!(live.symlink_metadata().unwrap().file_type().is_socket() && file.exists());
    assert_eq!(names(tmp.path()).len(), 4);
    assert!(sweep(&at("none"), &|_| false, &anyone).unwrap().is_empty());
    drop(listener);
}

/// Immutable even to root; a plain 0500 folder would only stop other users.
#[test]
fn a_folder_that_cannot_be_written_is_said() {
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("f");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("rpc.sock");
    drop(UnixListener::bind(&path).unwrap());
    let chattr = |flag| std::process::Command::new("chattr").arg(flag).arg(&folder).status();
    let expected = if !nix::unistd::geteuid().is_root() {
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o500)).unwrap();
        Errno::EACCES
    } else if chattr("+i").is_ok_and(|status| status.success()) {
        Errno::EPERM
    } else {
        println!("skipped: chattr +i is not to be had here");
        return;
    };
    let result = remove_socket(&path, &anyone);
    if expected == Errno::EPERM {
        assert!(chattr("-i").unwrap().success());
    } else {
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    match result {
        Err(CleanError::Refused { errno, step: "move it aside", .. }) => assert_eq!(errno, expected),
        other => panic!("{other:?}"),
    }
    assert_eq!(names(&folder), ["rpc.sock"]);
}
