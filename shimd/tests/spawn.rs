//! Spawning through the real trampoline: what the service is, what can go wrong, and what must not leak.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

pub(crate) mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{Folder, Service, begin, is_root, plan, run, script, shimd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::wait::WaitStatus;
use shimd::sys::spawn::{ExecPlan, Ids, SpawnError, Step, base_env};
use shimd::sys::users;

/// What a plan fails with before the word is given: then the instance was never recorded.
async fn refused(folder: &Folder, plan: &ExecPlan) -> SpawnError {
    begin(folder, plan).unwrap().ready().await.unwrap_err()
}

/// What a plan fails with at the exec itself.
async fn not_run(folder: &Folder, plan: &ExecPlan) -> SpawnError {
    let mut pending = begin(folder, plan).unwrap();
    let _service = Service(pending.ready().await.unwrap());
    pending.go().await.unwrap_err()
}

#[tokio::test]
async fn program_runs_with_its_arguments_and_output() {
    let folder = Folder::new();
    let plan = plan(&["sh", "-c", "echo \"$0 $1\"; echo oops >&2; exit 7", "a b", "c"]);
    let service = run(&folder, &plan).await.unwrap();
    assert!(matches!(service.wait(), WaitStatus::Exited(_, 7)));
    assert_eq!((folder.read("out").as_str(), folder.read("err").as_str()), ("a b c\n", "oops\n"));
}

#[tokio::test]
async fn environment_folder_umask_and_limit_are_the_plan_s() {
    let folder = Folder::new();
    let env =
        BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello\nworld".into())]);
    let cwd = folder.path().canonicalize().unwrap();
    let plan = ExecPlan {
        env,
        cwd: Some(cwd.clone()),
        umask: Some(0o027),
        nofile_soft: Some(123),
        ..script("m", "/bin/pwd; umask; ulimit -Sn; cat /proc/$$/environ | tr '\\0' '|'; echo")
    };
    let _service = run(&folder, &plan).await.unwrap();
    let expected = format!("{}\n0027\n123\nGREETING=hello\nworld|PATH=/usr/bin:/bin|\n", cwd.display());
    folder.lines("out", 5);
    assert_eq!(folder.read("out"), expected);
}

#[tokio::test]
async fn without_a_word_the_folder_is_the_root_and_the_umask_022() {
    let folder = Folder::new();
    let _service = run(&folder, &script("m", "/bin/pwd; umask")).await.unwrap();
    assert_eq!(folder.lines("out", 2), ["/", "0022"]);
}

#[tokio::test]
async fn service_leads_a_session_of_its_own_and_is_the_daemon_s_child() {
    let folder = Folder::new();
    let service = run(&folder, &plan(&["sleep", "1000"])).await.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", service.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let pid = service.pid().to_string();
    assert_eq!(fields[1..4], [std::process::id().to_string(), pid.clone(), pid], "parent, group, session");
}

#[tokio::test]
async fn no_signal_is_blocked_or_ignored() {
    let folder = Folder::new();
    let _service = run(&folder, &plan(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])).await.unwrap();
    for line in folder.lines("out", 2) {
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
}

#[tokio::test]
async fn no_descriptor_leaks_into_the_service() {
    let folder = Folder::new();
    let leak: Vec<_> = (0..40).map(|_| folder.log("leaky")).collect();
    for file in &leak {
        fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    }
    assert!(leak.last().unwrap().as_raw_fd() > 40);
    let _service = run(&folder, &plan(&["sh", "-c", "ls -l /proc/$$/fd"])).await.unwrap();
    let open: Vec<String> = folder.lines("out", 4)[1..].to_vec(); // after "total 0"
    assert!(open[0].ends_with(" 0 -> /dev/null"), "{open:?}");
    assert!(open[1].ends_with("/out") && open[2].ends_with("/err"), "{open:?}");
    assert_eq!(open.len(), 3, "{open:?}");
}

#[tokio::test]
async fn a_large_environment_fits_through_the_channel() {
    let folder = Folder::new();
    let mut plan = script("m", "env | wc -c");
    plan.env.extend((0..16).map(|i| (format!("BIG{i}"), "x".repeat(64 * 1024))));
    let _service = run(&folder, &plan).await.unwrap();
    assert!(folder.lines("out", 1)[0].trim().parse::<usize>().unwrap() > 1024 * 1024);
}

#[tokio::test]
async fn missing_program_is_told_before_anything_starts() {
    let folder = Folder::new();
    let by_path = refused(&folder, &plan(&["/no/such/program"])).await;
    assert_eq!((by_path.step, by_path.errno, by_path.field()), (Step::Program, Errno::ENOENT, Some("exec")));
    assert!(by_path.to_string().contains("/no/such/program"), "{by_path}");
    let by_name = refused(&folder, &plan(&["no-such-program"])).await;
    assert_eq!((by_name.step, by_name.errno), (Step::Program, Errno::ENOENT));
    assert!(by_name.help().contains("PATH"), "{}", by_name.help());
    assert_eq!(refused(&folder, &plan(&[""])).await.step, Step::Program);
    assert_eq!(refused(&folder, &plan(&[])).await.step, Step::Program);
    assert!(!by_name.transient());
}

#[tokio::test]
async fn what_may_not_be_executed_is_refused() {
    let folder = Folder::new();
    let file = folder.file("plain", "#!/bin/sh\n", 0o644);
    for path in [file.as_path(), folder.path()] {
        let error = refused(&folder, &plan(&[path.to_str().unwrap()])).await;
        assert_eq!((error.step, error.errno), (Step::Program, Errno::EACCES), "{error}");
        assert!(error.help().contains("chmod +x"), "{}", error.help());
    }
}

#[tokio::test]
async fn along_path_what_can_run_counts() {
    let folder = Folder::new();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    std::fs::create_dir(&first).unwrap();
    std::fs::create_dir(&second).unwrap();
    folder.file("1/prog", "", 0o644);
    std::os::unix::fs::symlink("/bin/echo", second.join("prog")).unwrap();
    let mut plan = plan(&["prog", "found"]);
    plan.env.insert("PATH".into(), format!("/nowhere:{}:{}", first.display(), second.display()));
    let _service = run(&folder, &plan).await.unwrap();
    assert_eq!(folder.lines("out", 1), ["found"]);
    plan.env.insert("PATH".into(), first.display().to_string());
    assert_eq!(refused(&folder, &plan).await.errno, Errno::EACCES);
}

#[tokio::test]
async fn relative_program_is_taken_from_the_plan_s_folder() {
    let folder = Folder::new();
    std::os::unix::fs::symlink("/bin/echo", folder.path().join("prog")).unwrap();
    let plan = ExecPlan { cwd: Some(folder.path().into()), ..plan(&["./prog", "here"]) };
    let _service = run(&folder, &plan).await.unwrap();
    assert_eq!(folder.lines("out", 1), ["here"]);
}

#[tokio::test]
async fn script_without_its_interpreter_is_explained() {
    let folder = Folder::new();
    let program = folder.file("script", "#!/no/such/interpreter -x\n", 0o755);
    let error = not_run(&folder, &plan(&[program.to_str().unwrap()])).await;
    assert_eq!((error.step, error.errno), (Step::Exec, Errno::ENOENT));
    assert!(error.help().contains("/no/such/interpreter,"), "{}", error.help());
}

#[tokio::test]
async fn file_without_a_format_is_not_handed_to_a_shell() {
    let folder = Folder::new();
    let program = folder.file("script", "echo ran\n", 0o755);
    let error = not_run(&folder, &plan(&[program.to_str().unwrap()])).await;
    assert_eq!((error.step, error.errno), (Step::Exec, Errno::ENOEXEC));
    assert!(error.help().contains("#!"), "{}", error.help());
    assert_eq!(folder.read("out"), "");
}

#[tokio::test]
async fn too_long_an_argument_is_an_error_of_the_exec() {
    let folder = Folder::new();
    let error = not_run(&folder, &plan(&["true", &"x".repeat(200 * 1024)])).await;
    assert_eq!((error.step, error.errno), (Step::Exec, Errno::E2BIG));
    let error = refused(&folder, &plan(&["true", "a\0b"])).await;
    assert_eq!((error.step, error.errno), (Step::Program, Errno::EINVAL));
}

#[tokio::test]
async fn folder_that_cannot_be_entered_names_the_field() {
    let folder = Folder::new();
    for (cwd, errno) in [("/no/such/folder", Errno::ENOENT), ("/etc/passwd", Errno::ENOTDIR)] {
        let error = refused(&folder, &ExecPlan { cwd: Some(cwd.into()), ..plan(&["true"]) }).await;
        assert_eq!((error.step, error.errno, error.field()), (Step::Cwd, errno, Some("cwd")));
        assert!(error.to_string().contains(cwd), "{error}");
    }
}

#[tokio::test]
async fn user_and_group_are_taken_with_all_their_groups() {
    if !is_root() {
        return eprintln!("skipped: becoming another user needs root");
    }
    let folder = Folder::new();
    let nobody = users::resolve(Some("nobody"), Some("daemon")).unwrap().unwrap();
    let plan = ExecPlan {
        ids: Some(nobody.ids.clone()),
        env: base_env(&BTreeMap::new(), Some(&nobody), "m", None),
        ..script("m", "id -u; id -g; id -G; echo $USER:$LOGNAME:$HOME:$SHELL; grep ^CapEff /proc/self/status")
    };
    let _service = run(&folder, &plan).await.unwrap();
    let groups: Vec<String> = nobody.ids.groups.iter().map(ToString::to_string).collect();
    let account = format!("nobody:nobody:{}:{}", nobody.home.display(), nobody.shell.display());
    let lines = folder.lines("out", 5);
    assert_eq!(lines[..2], [nobody.ids.uid.to_string(), nobody.ids.gid.to_string()]);
    let mut got: Vec<String> = lines[2].split(' ').map(str::to_owned).collect();
    let mut wanted = groups;
    got.sort();
    wanted.sort();
    assert_eq!(got, wanted, "supplementary groups");
    assert_eq!(lines[3], account);
    assert!(lines[4].ends_with("\t0000000000000000"), "{}", lines[4]);
}

#[tokio::test]
async fn folder_is_entered_as_the_user() {
    if !is_root() {
        return eprintln!("skipped: becoming another user needs root");
    }
    let folder = Folder::new();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let ids = users::resolve(Some("nobody"), None).unwrap().unwrap().ids;
    let error = refused(&folder, &ExecPlan { ids: Some(ids), cwd: Some(closed), ..plan(&["true"]) }).await;
    assert_eq!((error.step, error.errno), (Step::Cwd, Errno::EACCES));
}

#[tokio::test]
async fn dropped_before_the_word_nothing_runs() {
    let folder = Folder::new();
    let mut pending = begin(&folder, &script("m", "echo ran")).unwrap();
    let service = Service(pending.ready().await.unwrap());
    drop(pending);
    assert!(matches!(service.wait(), WaitStatus::Exited(_, 125) | WaitStatus::Signaled(..)));
    assert_eq!(folder.read("out"), "");
    let unborn = begin(&folder, &script("m", "echo ran")).unwrap();
    drop(unborn);
    assert_eq!(folder.read("out"), "");
}

/// A trampoline spoken to by hand, as by a daemon that may die at any point.
fn by_hand(plan: Option<&ExecPlan>, uid: Option<u32>, out: &Folder) -> (std::process::Child, UnixStream) {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(shimd());
    command.arg("__exec").stdin(Stdio::from(OwnedFd::from(theirs))).stdout(out.log("out"));
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let child = command.spawn().unwrap();
    if let Some(plan) = plan {
        let text = serde_json::to_vec(plan).unwrap();
        ours.write_all(&u32::try_from(text.len()).unwrap().to_le_bytes()).unwrap();
        ours.write_all(&text).unwrap();
    }
    (child, ours)
}

fn report(channel: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while channel.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn trampoline_of_a_dead_daemon_exits_without_an_exec() {
    let folder = Folder::new();
    let (mut before_plan, channel) = by_hand(None, None, &folder);
    drop(channel);
    assert_eq!(before_plan.wait().unwrap().code(), Some(125));
    let plan = script("m", "echo ran");
    let (mut before_go, mut channel) = by_hand(Some(&plan), None, &folder);
    assert!(report(&mut channel).contains("Ready"));
    drop(channel);
    assert_eq!(before_go.wait().unwrap().code(), Some(125));
    assert_eq!(folder.read("out"), "");
}

#[test]
fn only_root_becomes_somebody_else() {
    if !is_root() {
        return eprintln!("skipped: starting as another user, to be refused, needs root");
    }
    let reachable = Command::new(shimd()).arg("__exec").stdin(Stdio::null()).uid(65534).output();
    if reachable.is_err() {
        return eprintln!("skipped: the user nobody cannot reach the binary under test");
    }
    let folder = Folder::new();
    let ids = Some(Ids { uid: 1, gid: 1, groups: vec![] });
    let (mut child, mut channel) = by_hand(Some(&ExecPlan { ids, ..plan(&["true"]) }), Some(65534), &folder);
    let said = report(&mut channel);
    assert!(said.contains("Failed") && said.contains("Groups") && said.contains("\"errno\":1,"), "{said}");
    assert_eq!(child.wait().unwrap().code(), Some(126));
    // What the process is already needs no privilege.
    let ids = Some(Ids { uid: 65534, gid: 65534, groups: vec![] });
    let (mut child, mut channel) = by_hand(Some(&ExecPlan { ids, ..plan(&["true"]) }), Some(65534), &folder);
    let said = report(&mut channel);
    assert!(said.contains("Ready"), "{said}");
    channel.write_all(b"g").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn trampoline_by_hand_on_a_terminal_is_turned_away() {
    let run = Command::new(shimd()).arg("__exec").stdin(Stdio::null()).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("shimd --help"));
}
