//! Clients that the mode bits, access lists or folders on the way shut out.

#![allow(unsafe_code)] // setxattr: nix has no wrapper
#![allow(clippy::unwrap_used, clippy::panic)] // these are tests, if not by attribute

mod common;

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::*;
use nix::errno::Errno;
use nix::unistd::geteuid;
use socket_audit::{Auditor, Expect, Finding, Owner, Peer, Peers, Verdict};

#[test]
fn server() {
    be_the_server();
}

/// Users without a name, of whom this machine has none.
const BOB: u32 = 64_001;
const EVE: u32 = 64_002;
const STAFF: u32 = 64_009;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn peer(name: &str, uid: u32, gids: &[u32]) -> Peer {
    Peer { name: name.into(), uid: Some(uid), gids: gids.into() }
}

fn named(path: &Path, peers: &[Peer]) -> Expect {
    Expect { peers: Peers::Named(peers.into()), ..Expect::path(path) }
}

fn for_bob(path: &Path) -> Finding {
    audit(&named(path, &[peer("bob", BOB, &[BOB])]))
}

/// A folder that everybody may search, with a socket that everybody may write to.
fn open_socket(folder: &Folder) -> (UnixListener, std::path::PathBuf) {
    chmod(folder.path(), 0o755);
    let path = folder.join("x.sock");
    let listener = UnixListener::bind(&path).unwrap();
    chmod(&path, 0o666);
    (listener, path)
}

/// A folder that can be removed again.
struct Reopened<'a>(&'a Path);

impl Drop for Reopened<'_> {
    fn drop(&mut self) {
        let _ = fs::set_permissions(self.0, fs::Permissions::from_mode(0o755));
    }
}

/// Sets an access list: tag, permissions and id of each entry. False where the file system keeps none.
fn set_acl(path: &Path, entries: &[(u16, u16, u32)]) -> bool {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let (name, size) = (c"system.posix_acl_access", value.len());
    // SAFETY: both strings end in NUL, and `value` holds `size` bytes.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), size, 0) };
    match Errno::result(result) {
        Ok(_) => true,
        Err(Errno::EOPNOTSUPP) => {
            eprintln!("this file system keeps no access lists");
            false
        }
        Err(errno) => panic!("{errno}"),
    }
}

#[test]
fn a_socket_that_its_owner_may_not_write_to_is_denied() {
    let folder = Folder::new();
    let (_held, path) = open_socket(&folder);
    let known = trusted(&path);
    let own = of_pids(&path, &[me()]);
    for mode in [0o000, 0o555] {
        chmod(&path, mode);
        for expect in [&Expect::path(&path), &known, &own] {
            let found = audit(expect);
            assert_eq!(found.verdict, Verdict::Denied, "{found:?}");
            let words = format!(
                "cannot connect: the socket's mode {mode:04o} (owner {owner}) gives it no w; chmod u+w {}",
                path.display(),
                owner = found.reason.split(" cannot").next().unwrap()
            );
            assert!(found.reason.ends_with(&words), "{}", found.reason);
            assert!(found.listener.is_some());
            assert_eq!(Auditor::new().unwrap().confirm(expect).verdict, Verdict::Denied);
        }
        if !geteuid().is_root() {
            assert!(UnixStream::connect(&path).is_err());
        }
    }
    chmod(&path, 0o600);
    for expect in [&Expect::path(&path), &known, &own] {
        assert_eq!(audit(expect).verdict, Verdict::Ok);
    }
}

#[test]
fn denied_wins_over_wedged() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let held = bound(socket_audit::SocketKind::Stream, &path);
    nix::sys::socket::listen(&held, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    assert_eq!(audit(&Expect::path(&path)).verdict, Verdict::Wedged);
    chmod(&path, 0);
    assert_eq!(audit(&Expect::path(&path)).verdict, Verdict::Denied);
}

#[test]
fn a_folder_that_nobody_may_search_is_denied_whoever_looks() {
    let folder = Folder::new();
    let run = folder.join("run");
    fs::create_dir(&run).unwrap();
    let path = run.join("x.sock");
    let held = UnixListener::bind(&path).unwrap();
    let known = trusted(&path);
    let own = of_pids(&path, &[me()]);
    let _reopened = Reopened(&run);
    chmod(&run, 0o600);
    for expect in [&Expect::path(&path), &known, &own] {
        let found = audit(expect);
        assert_eq!(found.verdict, Verdict::Denied, "{found:?}");
        assert!(found.reason.contains(&format!("{} (mode 0600, owner ", run.display())), "{}", found.reason);
        assert!(found.reason.ends_with(&format!("; chmod u+x {}", run.display())), "{}", found.reason);
        assert_eq!(found.listener.map(|found| found.id()), known.known);
    }
    if !geteuid().is_root() {
        assert_eq!(audit(&of_pids(&path, &[1])).verdict, Verdict::Unknown, "another's may lie there");
    }
    drop(held);
    assert_ne!(audit(&known).verdict, Verdict::Denied, "nobody listens");
    chmod(&run, 0o755);
    assert_eq!(audit(&known).verdict, Verdict::Stale);
}

#[test]
fn named_clients_are_shut_out_by_the_socket_or_by_a_folder() {
    let folder = Folder::new();
    let (_held, path) = open_socket(&folder);
    assert_eq!(for_bob(&path).verdict, Verdict::Ok);
    chmod(&path, 0o600);
    let found = for_bob(&path);
    assert_eq!(found.verdict, Verdict::Denied);
    assert!(found.reason.starts_with("bob cannot connect: the socket's mode 0600"), "{}", found.reason);
    assert_eq!(audit(&Expect::path(&path)).verdict, Verdict::Ok, "its owner gets in");
    assert_eq!(audit(&named(&path, &[peer("root", 0, &[0])])).verdict, Verdict::Ok);
    assert_eq!(audit(&named(&path, &[])).verdict, Verdict::Ok);
    let two = audit(&named(&path, &[peer("bob", BOB, &[]), peer("eve", EVE, &[])]));
    assert!(two.reason.starts_with("clients bob, eve cannot connect: "), "{}", two.reason);
    let known = trusted(&path);
    let bob = Peers::Named([peer("bob", BOB, &[])].into());
    let by_trust = audit(&Expect { peers: bob, ..known });
    assert_eq!(by_trust.verdict, Verdict::Denied, "the known listener is there, and that is not enough");
    chmod(&path, 0o666);
    chmod(folder.path(), 0o700);
    let found = for_bob(&path);
    assert_eq!(found.verdict, Verdict::Denied);
    let here = format!("bob cannot connect: {} (mode 0700, owner ", folder.path().display());
    assert!(found.reason.starts_with(&here), "{}", found.reason);
    assert!(found.reason.contains(" may not be searched by bob; chmod o+x "), "{}", found.reason);
    chmod(folder.path(), 0o711);
    assert_eq!(for_bob(&path).verdict, Verdict::Ok, "to search is enough");
}

#[test]
fn who_may_not_connect_at_another_servers_socket_is_not_told_of() {
    let folder = Folder::new();
    let (_held, path) = open_socket(&folder);
    chmod(&path, 0);
    assert_eq!(audit(&of_pids(&path, &[1])).verdict, Verdict::Foreign);
}

#[test]
fn every_folder_of_a_link_on_the_way_counts() {
    let folder = Folder::new();
    chmod(folder.path(), 0o755);
    for name in ["deep", "deep/run", "hop", "links"] {
        fs::create_dir(folder.join(name)).unwrap();
        chmod(&folder.join(name), 0o755);
    }
    let path = folder.join("deep/run/x.sock");
    let _held = UnixListener::bind(&path).unwrap();
    chmod(&path, 0o666);
    symlink("../deep/run", folder.join("hop/run")).unwrap();
    symlink(folder.join("hop/run"), folder.join("links/run")).unwrap();
    symlink("../links/run/../run/x.sock", folder.join("hop/sock")).unwrap();
    // By the lexical path: links; where its link leads: hop; where that leads: deep.
    let ways = [folder.join("links/run/x.sock"), folder.join("hop/sock")];
    for way in &ways {
        assert_eq!(for_bob(way).verdict, Verdict::Ok, "{}", way.display());
    }
    for name in ["deep", "deep/run", "hop", "links"] {
        chmod(&folder.join(name), 0o700);
        for way in &ways {
            let found = for_bob(way);
            assert_eq!(found.verdict, Verdict::Denied, "{name}: {}", way.display());
            let place = format!("{} (mode 0700", folder.join(name).display());
            assert!(found.reason.contains(&place), "{}", found.reason);
        }
        chmod(&folder.join(name), 0o755);
    }
}

#[test]
fn an_access_list_lets_in_and_shuts_out() {
    let folder = Folder::new();
    let (_held, path) = open_socket(&folder);
    let entries =
        |bob: u16| [(1, 6, !0), (2, bob, BOB), (4, 0, !0), (8, 6, STAFF), (0x10, 6, !0), (0x20, 0, !0)];
    if !set_acl(&path, &entries(6)) {
        return;
    }
    assert_eq!(for_bob(&path).verdict, Verdict::Ok);
    let staff = Peer { name: "staff".into(), uid: None, gids: vec![STAFF] };
    assert_eq!(audit(&named(&path, &[staff])).verdict, Verdict::Ok);
    let found = audit(&named(&path, &[peer("eve", EVE, &[])]));
    assert_eq!(found.verdict, Verdict::Denied);
    let fix = format!("; setfacl -m u:eve:w {}", path.display());
    assert!(found.reason.ends_with(&fix), "{}", found.reason);
    assert!(set_acl(&path, &entries(0)));
    assert_eq!(for_bob(&path).verdict, Verdict::Denied);
    assert_eq!(audit(&Expect::path(&path)).verdict, Verdict::Ok, "its owner is not asked for");
    chmod(&path, 0o666);
    let entries = [(1, 7, !0), (2, 1, BOB), (4, 5, !0), (0x10, 5, !0), (0x20, 0, !0)];
    assert!(set_acl(folder.path(), &entries) && set_acl(&path, &[(1, 6, !0), (4, 6, !0), (0x20, 6, !0)]));
    assert_eq!(for_bob(&path).verdict, Verdict::Ok);
    assert_eq!(audit(&named(&path, &[peer("eve", EVE, &[])])).verdict, Verdict::Denied);
    chmod(folder.path(), 0o755);
}

/// Runs a copy of this test binary as another user.
fn start_as(folder: &Folder, uid: u32, gids: &[u32], what: &[&OsStr]) -> (Server, String) {
    let exe = folder.join("exe");
    if !exe.exists() {
        fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        chmod(&exe, 0o755);
    }
    let gid = gids.first().unwrap().to_string();
    let groups = gids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid.to_string(), "--regid", &gid, "--groups", &groups]).arg(exe);
    command.process_group(0);
    Server::run(command, what, Path::new("/"))
}

#[test]
#[ignore = "needs root"]
fn the_kernel_agrees() {
    let folder = Folder::new();
    chmod(folder.path(), 0o755);
    fs::create_dir(folder.join("run")).unwrap();
    let (run, path) = (folder.join("run"), folder.join("run/x.sock"));
    let listener = UnixListener::bind(&path).unwrap();
    chown(&run, Some(EVE), Some(STAFF)).unwrap();
    chown(&path, Some(EVE), Some(STAFF)).unwrap();
    let peers = [
        peer("eve", EVE, &[EVE]),
        peer("bob", BOB, &[BOB]),
        peer("bob of the staff", BOB, &[BOB, STAFF]),
        peer("root", 0, &[0]),
    ];
    type Acl = &'static [(u16, u16, u32)];
    let lists: [Option<Acl>; 4] = [
        None,
        Some(&[(1, 7, !0), (2, 7, BOB), (4, 0, !0), (0x10, 7, !0), (0x20, 0, !0)]),
        Some(&[(1, 0, !0), (2, 0, BOB), (4, 7, !0), (0x10, 7, !0), (0x20, 7, !0)]),
        Some(&[(1, 7, !0), (2, 7, BOB), (4, 7, !0), (0x10, 0, !0), (0x20, 0, !0)]),
    ];
    let gates: [(u32, Option<Acl>); 8] = [
        (0o755, lists[0]),
        (0o700, lists[0]),
        (0o070, lists[0]),
        (0o007, lists[0]),
        (0o707, lists[0]),
        (0, lists[1]),
        (0, lists[2]),
        (0, lists[3]),
    ];
    let set = |path: &Path, (mode, list): (u32, Option<Acl>)| match list {
        Some(list) => assert!(set_acl(path, list)),
        None => {
            assert!(set_acl(path, &[(1, 7, !0), (4, 7, !0), (0x20, 7, !0)])); // no more than mode bits
            chmod(path, mode);
        }
    };
    let mut seen = (0, 0);
    for (at, other) in [(&run, &path), (&path, &run)] {
        for gate in gates {
            set(other, (0o777, None));
            set(at, gate);
            for peer in &peers {
                let uid = peer.uid.unwrap();
                let what = [OsStr::new("connect"), path.as_os_str()];
                let (_, said) = start_as(&folder, uid, &peer.gids, &what);
                let found = audit(&named(&path, std::slice::from_ref(peer)));
                let expected = if said == "open" { Verdict::Ok } else { Verdict::Denied };
                assert_eq!(found.verdict, expected, "{said}: {gate:?} {} {found:?}", at.display());
                if said == "open" {
                    seen.0 += 1
                } else {
                    seen.1 += 1
                }
                if said == "open" {
                    listener.accept().unwrap();
                }
            }
        }
    }
    assert!(seen.0 >= 20 && seen.1 >= 20, "{seen:?}");
}

#[test]
#[ignore = "needs root"]
fn a_user_is_told_of_its_own_folder_and_root_of_another_users() {
    let folder = Folder::new();
    chmod(folder.path(), 0o755);
    fs::create_dir(folder.join("run")).unwrap();
    let (run, path) = (folder.join("run"), folder.join("run/x.sock"));
    chown(&run, Some(BOB), Some(BOB)).unwrap();
    let what = [OsStr::new("listen"), path.as_os_str()];
    let (server, _) = start_as(&folder, BOB, &[BOB], &what);
    let known = trusted(&path);
    chmod(&run, 0o600);
    let what = [OsStr::new("audit"), path.as_os_str()];
    let (_, said) = start_as(&folder, BOB, &[BOB], &what);
    let words = format!(
        "denied: uid {BOB} cannot connect: {run} (mode 0600, owner uid {BOB}) may not be searched by uid {BOB}; chmod u+x {run}",
        run = run.display()
    );
    assert_eq!(said, words);
    let (_, said) = start_as(&folder, EVE, &[EVE], &what);
    assert!(said.starts_with("unknown: cannot look at"), "{said}");
    for expect in [known, Expect::path(&path), of_pids(&path, &[server.pid()])] {
        let found = audit(&expect);
        assert_eq!(found.verdict, Verdict::Denied, "root sees it as its owner does: {found:?}");
        assert_eq!(format!("denied: {}", found.reason), words);
    }
}

#[test]
#[ignore = "needs root"]
fn the_groups_of_the_process_that_listens_count_for_its_peers() {
    let folder = Folder::new();
    chmod(folder.path(), 0o755);
    fs::create_dir(folder.join("run")).unwrap();
    let (run, path) = (folder.join("run"), folder.join("run/x.sock"));
    chown(&run, Some(EVE), Some(STAFF)).unwrap();
    chmod(&run, 0o770);
    let what = [OsStr::new("listen"), path.as_os_str()];
    let (server, _) = start_as(&folder, BOB, &[BOB, STAFF], &what);
    assert_eq!(audit(&of_pids(&path, &[server.pid()])).verdict, Verdict::Ok);
    assert_eq!(audit(&Expect { owner: Owner::Anyone, ..Expect::path(&path) }).verdict, Verdict::Ok);
    chmod(&run, 0o700);
    let found = audit(&of_pids(&path, &[server.pid()]));
    assert_eq!(found.verdict, Verdict::Denied, "{found:?}");
    assert!(found.reason.ends_with(&format!("chmod g+x {}", run.display())), "{}", found.reason);
}

#[test]
fn a_closed_folder_among_many_is_found_within_a_few_audits_and_stays_found() {
    let folder = Folder::new();
    let path = |number: usize| folder.join(format!("{number}/x.sock"));
    let held: Vec<_> = (0..300)
        .map(|number| {
            fs::create_dir(folder.join(number.to_string())).unwrap();
            UnixListener::bind(path(number)).unwrap()
        })
        .collect();
    let bare: Vec<_> = (0..300).map(|number| Expect::path(path(number))).collect();
    let mut auditor = Auditor::new().unwrap();
    let known: Vec<_> = auditor.audit(&bare).into_iter().map(|found| found.listener.unwrap().id()).collect();
    let trusted: Vec<_> = bare
        .iter()
        .zip(known)
        .map(|(bare, known)| Expect { known: Some(known), owner: Owner::Trusted, ..bare.clone() })
        .collect();
    let mut denied = || {
        let found = auditor.audit(&trusted).into_iter().enumerate();
        found.filter(|(_, found)| found.verdict != Verdict::Ok).map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(denied(), []);
    for closed in [0, 150, 299] {
        let run = folder.join(closed.to_string());
        let _reopened = Reopened(&run);
        chmod(&run, 0o600);
        assert!((0..5).any(|_| denied() == [closed]), "{closed}");
        assert!((0..10).all(|_| denied() == [closed]), "{closed}");
        chmod(&run, 0o755);
        assert_eq!(denied(), []);
    }
    drop(held);
}
