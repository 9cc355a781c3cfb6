//! Process trees, with a cgroup and without: who belongs, and that all of it dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{DEADLINE, Folder, Service, begin, script, until};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use shimd::sys::cgroup::Cgroups;
use shimd::sys::identity::Identity;
use shimd::sys::spawn::ExecPlan;
use shimd::sys::tree::{Tree, home_tag, mark};

/// How a test keeps track of its tree.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Cgroup,
    Signs,
}

/// A running tree, and the numbers that its script wrote: all dead at the end, whatever the test did.
struct Running {
    tree: Tree,
    main: Option<Service>,
    pids: Vec<Identity>,
    base: Option<PathBuf>,
    folder: Folder,
}

/// Runs a script that writes the number of each of its `count` processes to its stdout. `None` where the machine has
/// no cgroup for us.
async fn start(by: By, count: usize, text: &str) -> Option<Running> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = Folder::new();
    let tag = home_tag(folder.path());
    let mark = mark(&tag, "svc", NEXT.fetch_add(1, Ordering::Relaxed).into());
    let (mut base, mut cgroup) = (None, None);
    if by == By::Cgroup {
        let cgroups = match Cgroups::probe(&tag) {
            Ok(cgroups) => cgroups,
            Err(why) => {
                eprintln!("skipped: {why}");
                return None;
            }
        };
        base = Some(cgroups.base().to_owned());
        cgroup = Some(cgroups.create("svc", 1).unwrap());
    }
    let mut plan = ExecPlan { cgroup: cgroup.clone(), ..script(&mark, text) };
    plan.env.insert("TAG".into(), tag);
    plan.env.insert("PROGRAM".into(), std::env::current_exe().unwrap().display().to_string());
    plan.env.insert("ALIVE".into(), folder.file("alive", "", 0o644).display().to_string());
    let mut pending = begin(&folder, &plan).unwrap();
    let identity = pending.ready().await.unwrap();
    assert_eq!(pending.in_cgroup(), cgroup.is_some());
    let tree = Tree::new(identity.clone(), mark, cgroup);
    let main = Some(Service(identity));
    pending.go().await.unwrap();
    let mut running = Running { tree, main, pids: Vec::new(), base, folder };
    let lines = running.folder.lines("out", count);
    running.pids = lines.iter().map(|line| Identity::of(line.trim().parse().unwrap()).unwrap()).collect();
    Some(running)
}

impl Running {
    fn main(&self) -> &Service {
        self.main.as_ref().unwrap()
    }

    /// Kills and reaps the main process alone.
    fn kill_main(&mut self) {
        self.tree.signal_main(libc::SIGKILL).unwrap();
        self.main().wait();
        self.main = None;
    }

    fn all_dead(&self) -> bool {
        self.pids.iter().all(|id| id.still_alive().unwrap().is_none())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in self.pids.iter().filter_map(|id| id.still_alive().ok()?) {
            let _ = process.signal(libc::SIGKILL);
        }
        self.main = None;
        if let Some(path) = self.tree.cgroup() {
            let _ = std::fs::write(path.join("cgroup.kill"), "1");
            let gone = |path: &Path| std::fs::remove_dir(path).is_ok() || !path.exists();
            until("the end of a cgroup", || gone(path).then_some(()));
        }
        if let Some(base) = &self.base {
            let _ = std::fs::remove_dir(base);
        }
        reap_orphans(&self.pids);
    }
}

/// The test's process is no subreaper, so only its own children are its to reap.
fn reap_orphans(pids: &[Identity]) {
    for id in pids {
        let _ = waitpid(Pid::from_raw(id.pid), Some(nix::sys::wait::WaitPidFlag::WNOHANG));
    }
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("too late: {what}"))
}

/// The numbers of the tree's `count` processes, once the shells in between are gone.
async fn listed(tree: &Tree, count: usize) -> Vec<i32> {
    let found = async {
        loop {
            let mut found = tree.pids().await.unwrap();
            if found.len() == count {
                found.sort_unstable();
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    in_time(&format!("{count} processes"), found).await
}

/// A child, a child in a session of its own, and an orphan in yet another.
const FAMILY: &str = "
    sleep 1000 & echo $!
    setsid sh -c 'echo $$; exec sleep 1000' &
    (setsid sh -c 'echo $$; (sleep 1000 & echo $!); exec sleep 1000' &)
    echo $$; exec sleep 1000";

async fn whole_family_is_found_and_killed(by: By) {
    let Some(running) = start(by, 5, FAMILY).await else { return };
    let mut expected: Vec<i32> = running.pids.iter().map(|id| id.pid).collect();
    expected.sort_unstable();
    assert_eq!(listed(&running.tree, 5).await, expected);
    in_time("the kill", running.tree.kill()).await;
    assert!(running.all_dead());
    in_time("the end", running.tree.gone()).await;
    in_time("the cgroup's end", running.tree.remove_cgroup()).await.unwrap();
    assert!(running.tree.cgroup().is_none_or(|path| !path.exists()));
}

#[tokio::test]
async fn family_in_a_cgroup() {
    whole_family_is_found_and_killed(By::Cgroup).await;
}

#[tokio::test]
async fn family_by_its_signs() {
    whole_family_is_found_and_killed(By::Signs).await;
}

async fn orphans_are_found_after_the_main_process_died(by: By) {
    let Some(mut running) = start(by, 5, FAMILY).await else { return };
    running.kill_main();
    listed(&running.tree, 4).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(100), running.tree.gone()).await.is_err(),
        "not gone yet"
    );
    assert!(!running.tree.signal_main(libc::SIGTERM).unwrap(), "the main process is gone");
    assert_eq!(in_time("the signal", running.tree.signal_all(libc::SIGTERM)).await.unwrap(), 4);
    in_time("the end", running.tree.gone()).await;
    assert!(running.all_dead());
}

#[tokio::test]
async fn orphans_in_a_cgroup() {
    orphans_are_found_after_the_main_process_died(By::Cgroup).await;
}

#[tokio::test]
async fn orphans_by_their_signs() {
    orphans_are_found_after_the_main_process_died(By::Signs).await;
}

#[tokio::test]
async fn a_tree_made_anew_finds_what_lives_by_mark_alone() {
    let Some(mut running) = start(By::Signs, 5, FAMILY).await else { return };
    running.kill_main();
    let anew = Tree::new(running.tree.main().clone(), running.tree.mark().to_owned(), None);
    listed(&anew, 4).await;
    in_time("the kill", anew.kill()).await;
    assert!(running.all_dead());
}

/// Without its mark a process is known by its session; without both, by its parent; without all three, because it
/// was known before.
const UNMARKED: &str = "
    env -i sleep 1000 & echo $!
    env -i setsid sleep 1000 & echo $!
    echo $$; exec sleep 1000";

async fn processes_without_the_mark_are_known(by: By) {
    let Some(mut running) = start(by, 3, UNMARKED).await else { return };
    // The second runs its own program, and not yet env's, only once it has called setsid.
    until("setsid", || {
        let session = |id: &Identity| nix::unistd::getsid(Some(Pid::from_raw(id.pid))).unwrap().as_raw();
        (session(&running.pids[1]) == running.pids[1].pid).then_some(())
    });
    listed(&running.tree, 3).await;
    running.kill_main();
    listed(&running.tree, 2).await;
    in_time("the kill", running.tree.kill()).await;
    assert!(running.all_dead());
}

#[tokio::test]
async fn unmarked_in_a_cgroup() {
    processes_without_the_mark_are_known(By::Cgroup).await;
}

#[tokio::test]
async fn unmarked_by_the_other_signs() {
    processes_without_the_mark_are_known(By::Signs).await;
}

/// A process that is never the same: each forks its successor, in a session of its own, and exits. Whatever goes
/// wrong, they end with the test's folder.
const RUNNER: &str = "
    export HOP='[ -e \"$ALIVE\" ] && echo hop >&2 && (setsid sh -c \"$HOP\" &)'
    for i in 1 2 3; do setsid sh -c \"$HOP\" & done
    echo $$; exec sleep 1000";

async fn runaways_are_caught(by: By) {
    let Some(mut running) = start(by, 1, RUNNER).await else { return };
    running.folder.lines("err", 20);
    running.kill_main();
    in_time("the kill", running.tree.kill()).await;
    let hops = running.folder.read("err").len();
    assert_eq!(in_time("the list", running.tree.pids()).await.unwrap(), Vec::<i32>::new());
    assert_eq!(running.folder.read("err").len(), hops, "one still runs");
}

#[tokio::test]
async fn runaways_in_a_cgroup() {
    runaways_are_caught(By::Cgroup).await;
}

#[tokio::test]
async fn runaways_by_their_signs() {
    runaways_are_caught(By::Signs).await;
}

#[tokio::test]
async fn gone_returns_when_the_last_one_ends_by_itself() {
    for by in [By::Cgroup, By::Signs] {
        let Some(running) = start(by, 1, "(setsid sleep 0.3 &); echo $$").await else { continue };
        running.main().wait();
        in_time("the end", running.tree.gone()).await;
        assert_eq!(in_time("the list", running.tree.pids()).await.unwrap(), Vec::<i32>::new());
        in_time("the cgroup's end", running.tree.remove_cgroup()).await.unwrap();
    }
}

#[tokio::test]
async fn zombie_counts_as_gone() {
    for by in [By::Cgroup, By::Signs] {
        let Some(running) = start(by, 1, "echo $$; exec sleep 1000").await else { continue };
        running.tree.signal_main(libc::SIGKILL).unwrap();
        in_time("the end", running.tree.gone()).await; // and nobody has reaped it
        assert!(!running.tree.signal_main(0).unwrap());
        running.main().wait();
    }
}

#[tokio::test]
async fn recycled_main_process_is_never_signalled() {
    let Some(running) = start(By::Signs, 1, "echo $$; exec sleep 1000").await else { return };
    let id = running.tree.main();
    let impostor =
        Identity { start_ticks: id.start_ticks - 1, pidfs_ino: id.pidfs_ino.map(|i| i - 1), ..id.clone() };
    let tree = Tree::new(impostor, "another/mark/1".into(), None);
    assert!(!tree.signal_main(libc::SIGKILL).unwrap());
    assert_eq!(in_time("the signal", tree.signal_all(libc::SIGKILL)).await.unwrap(), 0);
    in_time("the kill", tree.kill()).await;
    assert!(id.still_alive().unwrap().is_some());
}

#[tokio::test]
async fn groups_of_the_service_s_own_go_with_its_cgroup() {
    let text = "sed -n 's/^0:://p' /proc/self/cgroup >&2; echo $$; exec sleep 1000";
    let Some(running) = start(By::Cgroup, 1, text).await else { return };
    let path = running.tree.cgroup().unwrap();
    let seen = running.folder.lines("err", 1).remove(0);
    assert!(path.ends_with(seen.trim_start_matches('/')), "the service sees itself in {seen}");
    let inner = path.join("inner/most");
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::write(inner.join("cgroup.procs"), running.main().pid().to_string()).unwrap();
    assert_eq!(listed(&running.tree, 1).await, [running.main().pid()]);
    in_time("the kill", running.tree.kill()).await;
    in_time("the cgroup's end", running.tree.remove_cgroup()).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn cgroup_of_an_instance_is_new_and_never_another_one_s() {
    let Some(running) = start(By::Cgroup, 1, "echo $$; exec sleep 1000").await else { return };
    let cgroups = Cgroups::probe(&home_tag(running.folder.path())).unwrap();
    let beside = cgroups.create("svc", 1).unwrap();
    assert_ne!(Some(beside.as_path()), running.tree.cgroup(), "one that is in use is left to whose it is");
    let other = cgroups.create("svc", 2).unwrap();
    assert_eq!(cgroups.create("svc", 2).unwrap(), other, "an empty one is made anew");
    cgroups.sweep();
    assert!(!other.exists() && !beside.exists(), "the empty ones are swept");
    assert!(running.tree.cgroup().unwrap().exists(), "and no other");
    in_time("the kill", running.tree.kill()).await;
    in_time("the cgroup's end", running.tree.remove_cgroup()).await.unwrap();
    cgroups.sweep();
    assert!(!cgroups.base().exists());
}

#[tokio::test]
async fn cgroup_that_is_not_there_is_no_reason_not_to_run() {
    let folder = Folder::new();
    let plan = ExecPlan { cgroup: Some("/no/such/cgroup".into()), ..script("m", "exec sleep 1000") };
    let mut pending = begin(&folder, &plan).unwrap();
    let service = Service(pending.ready().await.unwrap());
    assert!(!pending.in_cgroup());
    pending.go().await.unwrap();
    assert!(service.0.still_alive().unwrap().is_some());
}

/// Not a test but a service: the test binary itself, as a daemon that is started from within one of its services.
#[test]
fn probe_from_within() {
    let Ok(tag) = std::env::var("PROBE_FROM_WITHIN") else { return };
    let cgroups = Cgroups::probe(&tag).unwrap();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    eprintln!("{}\n{}", cgroups.base().display(), own.lines().find(|l| l.starts_with("0::")).unwrap());
}

#[tokio::test]
async fn daemon_started_from_within_a_service_leaves_its_cgroup() {
    let text = "echo $$; PROBE_FROM_WITHIN=$TAG $PROGRAM --exact probe_from_within --nocapture >/dev/null; exec sleep 1000";
    let Some(running) = start(By::Cgroup, 1, text).await else { return };
    let lines = running.folder.lines("err", 2);
    let base = running.base.as_ref().unwrap();
    assert_eq!(lines[0], base.display().to_string(), "the same as for the daemon before it");
    assert!(!lines[1].contains("shimd-"), "{lines:?}");
    assert_eq!(listed(&running.tree, 1).await, [running.main().pid()]);
}
