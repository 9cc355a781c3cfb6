//! Other mount and network namespaces, other roots and users: these take root, and `unshare`.
//! They are ignored unless asked for (`cargo test -- --include-ignored`), so that they are never passed unrun.

#![allow(clippy::unwrap_used)] // these are tests, if not by attribute

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use common::*;
use socket_audit::{Auditor, Expect, Verdict, Witness};

#[test]
fn server() {
    be_the_server();
}

/// A server of `path` beneath `unshare` and a shell that first runs `script`.
fn server_within(namespace: &str, script: &str, path: &Path) -> Server {
    let script = format!("{script} exec \"$@\"");
    let prefix = ["unshare", namespace, "sh", "-ec", &script, "sh"];
    Server::start(&prefix, &[OsStr::new("listen"), path.as_os_str()], Path::new("/")).0
}

#[test]
#[ignore = "needs root"]
fn a_listener_in_another_network_namespace_is_never_called_stale() {
    let folder = Folder::new();
    let path = folder.join("x.sock");
    let server = server_within("--net", "", &path);
    let found = audit(&Expect::path(&path));
    assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    assert_eq!(found.holder.unwrap().pid, server.pid());
    let known = trusted(&path);
    assert_eq!(audit(&of_pids(&path, &[server.pid()])).verdict, Verdict::Ok);
    let held = Witness::of(&path).unwrap();
    assert_eq!(held.is_bound(), Some(true));
    fs::remove_file(&path).unwrap();
    for expect in [&known, &Expect::path(&path), &of_pids(&path, &[server.pid()])] {
        assert_eq!(audit(expect).verdict, Verdict::Dangling);
    }
    let report = Auditor::new().unwrap().system().unwrap();
    assert!(report.findings.iter().any(|found| found.path == path && found.verdict == Verdict::Dangling));
    assert_eq!(held.is_bound(), Some(true));
    drop(server);
    assert_eq!(audit(&known).verdict, Verdict::Absent);
    assert_eq!(held.is_bound(), Some(false));
}

#[test]
#[ignore = "needs root"]
fn a_listener_of_the_same_name_in_another_mount_namespace_is_not_this_paths() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    let path = folder.join("run/x.sock");
    let script = format!("mount -t tmpfs none {};", folder.join("run").display());
    let server = server_within("--mount", &script, &path);
    assert!(!path.exists());
    assert_eq!(audit(&Expect::path(&path)).verdict, Verdict::Absent);
    let found = audit(&of_pids(&path, &[server.pid()]));
    assert_eq!(found.verdict, Verdict::Dangling, "declared here, and the owner listens: {found:?}");
    let within = Path::new(&format!("/proc/{}/root", server.pid())).join(path.strip_prefix("/").unwrap());
    let findings = || {
        let report = Auditor::new().unwrap().system().unwrap();
        report.findings.into_iter().filter(|found| found.path.ends_with("run/x.sock")).collect::<Vec<_>>()
    };
    assert_eq!(findings(), []);
    fs::remove_file(within).unwrap();
    let found = findings();
    assert_eq!((found.len(), found[0].verdict), (1, Verdict::Dangling), "{found:?}");
    assert!(found[0].reason.contains("in the file system that pid"), "{}", found[0].reason);
}

#[test]
#[ignore = "needs root"]
fn a_listener_beneath_another_root_is_judged_there_and_links_lead_there() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    fs::create_dir(folder.join("var")).unwrap();
    symlink("/run", folder.join("var/run")).unwrap();
    let path = Path::new("/var/run/socket-audit-chroot.sock");
    let what = ["listen-in-root".as_ref(), folder.path().as_os_str(), path.as_os_str()];
    let (server, _) = Server::start(&[], &what, Path::new("/"));
    assert!(folder.join("run/socket-audit-chroot.sock").exists());
    let findings = || {
        let report = Auditor::new().unwrap().system().unwrap();
        let base = Some(OsStr::new("socket-audit-chroot.sock"));
        report.findings.into_iter().filter(|found| found.path.file_name() == base).collect::<Vec<_>>()
    };
    assert_eq!(findings(), []);
    assert_eq!(audit(&Expect::path(path)).verdict, Verdict::Absent);
    assert_eq!(audit(&Expect::path(folder.join("run/socket-audit-chroot.sock"))).verdict, Verdict::Ok);
    fs::remove_file(folder.join("run/socket-audit-chroot.sock")).unwrap();
    let found = findings();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].holder.as_ref().unwrap().pid, server.pid());
}

#[test]
#[ignore = "needs root"]
fn a_mount_over_the_folder_is_noticed_and_so_is_its_end() {
    let folder = Folder::new();
    fs::create_dir(folder.join("run")).unwrap();
    let path = folder.join("run/x.sock");
    let _held = UnixListener::bind(&path).unwrap();
    let known = trusted(&path);
    let mut auditor = Auditor::new().unwrap();
    let mut verdict = |expect: &Expect| auditor.audit(std::slice::from_ref(expect)).pop().unwrap().verdict;
    assert_eq!(verdict(&known), Verdict::Ok);
    for _ in 0..3 {
        let mounted = Mounted::tmpfs(folder.join("run"));
        assert_eq!(verdict(&known), Verdict::Dangling);
        // On a mount whose id was another file system's before.
        let _other = UnixListener::bind(folder.join("run/other.sock")).unwrap();
        assert_eq!(verdict(&Expect::path(folder.join("run/other.sock"))), Verdict::Ok);
        drop(mounted);
        assert_eq!(verdict(&known), Verdict::Ok);
    }
}

/// Runs a copy of this test binary as a user who may go nowhere else.
fn start_as_nobody(folder: &Folder, what: &[&OsStr]) -> (Server, String) {
    let exe = folder.join("exe");
    if !exe.exists() {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        fs::set_permissions(&exe, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(exe);
    command.uid(64_001).gid(64_001);
    Server::run(command, what, folder.path())
}

#[test]
#[ignore = "needs root"]
fn a_process_that_hides_its_descriptors_owns_its_listener_by_elimination() {
    let folder = Folder::new();
    let (path, other) = (folder.join("x.sock"), folder.join("other.sock"));
    let (hidden, _) = start_as_nobody(&folder, &["listen-undumpable".as_ref(), path.as_os_str()]);
    let verdict_for = |pid: i32| {
        let pid = pid.to_string();
        start_as_nobody(&folder, &["audit-pids".as_ref(), path.as_os_str(), pid.as_ref()]).1
    };
    assert_eq!(verdict_for(hidden.pid()), "ok");
    assert_eq!(verdict_for(me()), "unknown", "root's process could hold it too");
    let (open, _) = start_as_nobody(&folder, &["listen".as_ref(), other.as_os_str()]);
    assert_eq!(verdict_for(open.pid()), "foreign", "what can be read does not hold it");
}

#[test]
#[ignore = "needs root"]
fn a_folder_that_may_not_be_searched_is_unknown() {
    let folder = Folder::new();
    let closed = folder.join("closed");
    fs::create_dir(&closed).unwrap();
    stale(&closed.join("x.sock"));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let path = closed.join("x.sock");
    let (_, said) = start_as_nobody(&folder, &["audit-pids".as_ref(), path.as_os_str(), "1".as_ref()]);
    assert_eq!(said, "unknown");
}
