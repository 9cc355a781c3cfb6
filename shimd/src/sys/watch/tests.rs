use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

/// A bound on waiting for an event that has to come.
const LIMIT: Duration = Duration::from_secs(5);

struct Bench {
    tmp: tempfile::TempDir,
    watcher: Watcher,
}

impl Bench {
    fn new(folders: &[&str]) -> Bench {
        let tmp = tempfile::tempdir().unwrap();
        let mut bench = Bench { tmp, watcher: Watcher::new() };
        let set = folders.iter().map(|folder| bench.at(folder)).collect();
        bench.watcher.set(&set);
        assert_eq!(bench.watcher.unwatched(), []);
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    /// Waits for this very event, over others.
    async fn expect(&mut self, folder: &str, name: Option<&str>, kind: Change) {
        let event = WatchEvent::Folder { folder: self.at(folder), name: name.map(Into::into), kind };
        self.until(&event).await;
    }

    async fn until(&mut self, event: &WatchEvent) {
        let mut others = Vec::new();
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let next = self.watcher.next().await;
                if next == *event {
                    return;
                }
                others.push(next);
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {event:?}, but {others:?}"));
    }

    /// Takes what is queued in the kernel by now: a mark is made, and its event comes after all others.
    async fn drain(&mut self) -> Vec<WatchEvent> {
        let folder = self.watcher.folders.keys().find(|folder| folder.is_dir()).unwrap().clone();
        fs::write(folder.join("mark"), "").unwrap();
        let mark = WatchEvent::Folder { folder, name: Some("mark".into()), kind: Change::Added };
        let mut events = Vec::new();
        while events.last() != Some(&mark) {
            events.push(tokio::time::timeout(LIMIT, self.watcher.next()).await.unwrap());
        }
        events.pop();
        events
    }
}

#[tokio::test]
async fn entries_come_change_move_and_go() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("root/a")).unwrap();
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    bench.watcher.set(&[bench.at("root/a")].into());
    let listener = UnixListener::bind(bench.at("root/a/s")).unwrap();
    bench.expect("root/a", Some("s"), Change::Added).await;
    fs::set_permissions(bench.at("root/a/s"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.expect("root/a", Some("s"), Change::Attributes).await;
    fs::rename(bench.at("root/a/s"), bench.at("root/a/t")).unwrap();
    bench.expect("root/a", Some("s"), Change::Removed).await;
    bench.expect("root/a", Some("t"), Change::MovedIn).await;
    fs::write(bench.at("other"), "").unwrap();
    fs::rename(bench.at("other"), bench.at("root/a/t")).unwrap();
    bench.expect("root/a", Some("t"), Change::MovedIn).await;
    fs::remove_file(bench.at("root/a/t")).unwrap();
    bench.expect("root/a", Some("t"), Change::Removed).await;
    fs::set_permissions(bench.at("root/a"), fs::Permissions::from_mode(0o700)).unwrap();
    bench.expect("root/a", None, Change::Attributes).await;
    fs::set_permissions(bench.at("root"), fs::Permissions::from_mode(0o700)).unwrap();
    bench.expect("root/a", None, Change::Attributes).await;
    fs::set_permissions(bench.at(""), fs::Permissions::from_mode(0o711)).unwrap();
    bench.expect("root/a", None, Change::Attributes).await;
    drop(listener);
}

#[tokio::test]
async fn a_folder_removed_with_a_listener_inside_and_made_again() {
    let mut bench = Bench::new(&["root/a", "root/b"]);
    fs::create_dir_all(bench.at("root/a")).unwrap();
    bench.expect("root/a", None, Change::Folder).await;
    let listener = UnixListener::bind(bench.at("root/a/s")).unwrap();
    bench.expect("root/a", Some("s"), Change::Added).await;
    fs::remove_dir_all(bench.at("root/a")).unwrap();
    bench.expect("root/a", Some("s"), Change::Removed).await;
    bench.expect("root/a", None, Change::Folder).await;
    fs::create_dir(bench.at("root/a")).unwrap();
    bench.expect("root/a", None, Change::Folder).await;
    let again = UnixListener::bind(bench.at("root/a/s")).unwrap();
    bench.expect("root/a", Some("s"), Change::Added).await;
    // Its neighbour is watched on its own.
    fs::create_dir(bench.at("root/b")).unwrap();
    bench.expect("root/b", None, Change::Folder).await;
    drop((listener, again));
}

#[tokio::test]
async fn all_of_the_path_removed_and_made_again() {
    let mut bench = Bench::new(&["x/y/root/a"]);
    fs::create_dir_all(bench.at("x/y/root/a")).unwrap();
    bench.expect("x/y/root/a", None, Change::Folder).await;
    for _ in 0..3 {
        bench.drain().await;
        let listener = UnixListener::bind(bench.at("x/y/root/a/s")).unwrap();
        bench.expect("x/y/root/a", Some("s"), Change::Added).await;
        fs::remove_dir_all(bench.at("x")).unwrap();
        bench.expect("x/y/root/a", Some("s"), Change::Removed).await;
        bench.expect("x/y/root/a", None, Change::Folder).await;
        fs::create_dir_all(bench.at("x/y/root/a")).unwrap();
        bench.expect("x/y/root/a", None, Change::Folder).await;
        drop(listener);
    }
}

#[tokio::test]
async fn a_component_far_above_is_renamed() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("x/y/z/a")).unwrap();
    fs::create_dir_all(tmp.path().join("new/y/z/a")).unwrap();
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    bench.watcher.set(&[bench.at("x/y/z/a")].into());
    fs::rename(bench.at("x"), bench.at("old")).unwrap();
    bench.expect("x/y/z/a", None, Change::Folder).await;
    // The old place is no longer watched, the new one is.
    fs::write(bench.at("old/y/z/a/s"), "").unwrap();
    fs::rename(bench.at("new"), bench.at("x")).unwrap();
    bench.expect("x/y/z/a", None, Change::Folder).await;
    fs::write(bench.at("x/y/z/a/t"), "").unwrap();
    bench.expect("x/y/z/a", Some("t"), Change::Added).await;
}

#[tokio::test]
async fn a_folder_exchanged_and_a_link_pointed_elsewhere() {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["one", "two", "a"] {
        fs::create_dir(tmp.path().join(name)).unwrap();
    }
    symlink("one", tmp.path().join("link")).unwrap();
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    bench.watcher.set(&[bench.at("a"), bench.at("link")].into());
    fs::rename(bench.at("a"), bench.at("a.old")).unwrap();
    bench.expect("a", None, Change::Folder).await;
    fs::create_dir(bench.at("a")).unwrap();
    bench.expect("a", None, Change::Folder).await;
    symlink("two", bench.at("new-link")).unwrap();
    fs::rename(bench.at("new-link"), bench.at("link")).unwrap();
    bench.expect("link", None, Change::Folder).await;
    fs::write(bench.at("two/s"), "").unwrap();
    bench.expect("link", Some("s"), Change::Added).await;
    assert!(bench.watcher.paths.values().all(|paths| !paths.is_empty()));
}

/// Two declared folders that are one inode share the kernel's watch, and neither narrows the other's.
#[tokio::test]
async fn two_paths_to_one_folder() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir_all(tmp.path().join("real/inner")).unwrap();
    symlink("real", tmp.path().join("link")).unwrap();
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    let (real, link) = (bench.at("real"), bench.at("link"));
    bench.watcher.set(&[real.clone(), link.clone(), real.join("inner")].into());
    fs::write(real.join("s"), "").unwrap();
    bench.expect("link", Some("s"), Change::Added).await;
    fs::write(real.join("t"), "").unwrap();
    bench.expect("real", Some("t"), Change::Added).await;
    bench.watcher.set(&[link, real.join("inner")].into());
    fs::set_permissions(real.join("s"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.expect("link", Some("s"), Change::Attributes).await;
    bench.watcher.set(&[real.join("inner")].into());
    bench.watcher.set(&BTreeSet::new());
    assert!(bench.watcher.nodes.is_empty() && bench.watcher.paths.is_empty());
}

#[tokio::test]
async fn only_what_is_set_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::create_dir(tmp.path().join(name)).unwrap();
    }
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    bench.watcher.set(&[bench.at("a"), bench.at("b")].into());
    bench.watcher.set(&[bench.at("a")].into());
    fs::write(bench.at("b/s"), "").unwrap();
    fs::write(bench.at("noise"), "").unwrap();
    assert_eq!(bench.drain().await, []);
}

#[tokio::test]
async fn a_file_in_the_way_and_a_folder_instead() {
    let mut bench = Bench::new(&["root/a"]);
    fs::write(bench.at("root"), "").unwrap();
    fs::remove_file(bench.at("root")).unwrap();
    fs::create_dir_all(bench.at("root/a")).unwrap();
    bench.expect("root/a", None, Change::Folder).await;
    fs::write(bench.at("root/a/s"), "").unwrap();
    bench.expect("root/a", Some("s"), Change::Added).await;
}

/// The queue holds `max_queued_events`; a folder that is filled faster than we read spills over.
#[tokio::test]
async fn an_overflow_is_told_and_watching_goes_on() {
    let limit: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    if limit > 100_000 {
        println!("skipped: the queue holds {limit} events");
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("a")).unwrap();
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    bench.watcher.set(&[bench.at("a")].into());
    for n in 0..=limit / 2 {
        // Two events each, and none the same as the one before: those would be merged.
        let name = bench.at(&format!("a/{n}"));
        fs::write(&name, "").unwrap();
        fs::remove_file(&name).unwrap();
    }
    bench.until(&WatchEvent::Overflow).await;
    fs::write(bench.at("a/after"), "").unwrap();
    bench.expect("a", Some("after"), Change::Added).await;
}

/// A mount raises no inotify event; the watch has to follow the path to what was mounted, and back.
#[tokio::test]
async fn a_mount_over_the_folder() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: mounting needs root");
        return;
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("a")).unwrap();
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    bench.watcher.set(&[bench.at("a")].into());
    let tmpfs = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(bench.at("a")).status();
    if !tmpfs.is_ok_and(|status| status.success()) {
        println!("skipped: this root may not mount");
        return;
    }
    let mounted = Mounted(bench.at("a"));
    bench.until(&WatchEvent::Mounts).await;
    bench.expect("a", None, Change::Folder).await;
    fs::write(bench.at("a/s"), "").unwrap();
    bench.expect("a", Some("s"), Change::Added).await;
    drop(mounted);
    bench.expect("a", None, Change::Folder).await;
    fs::write(bench.at("a/t"), "").unwrap();
    bench.expect("a", Some("t"), Change::Added).await;
}

#[tokio::test]
async fn an_event_survives_a_select_that_lost() {
    let tmp = tempfile::tempdir().unwrap();
    fs::create_dir(tmp.path().join("a")).unwrap();
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    bench.watcher.set(&[bench.at("a")].into());
    for n in 0..200 {
        fs::write(bench.at(&format!("a/{n}")), "").unwrap();
    }
    let mut seen = Vec::new();
    let all = async {
        while seen.len() < 200 {
            tokio::select! {
                event = bench.watcher.next() => seen.push(event),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap();
    let folder = bench.at("a");
    for (n, event) in seen.into_iter().enumerate() {
        let name = Some(n.to_string().into());
        assert_eq!(event, WatchEvent::Folder { folder: folder.clone(), name, kind: Change::Added });
    }
    let mut batch = Vec::new();
    for n in 0..3 {
        fs::write(bench.at(&format!("a/last-{n}")), "").unwrap();
    }
    tokio::time::timeout(LIMIT, bench.watcher.next_batch(&mut batch)).await.unwrap();
    assert_eq!(batch.len(), 3);
}

#[tokio::test]
async fn without_inotify_everything_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let mut watcher = Watcher { inotify: None, blind: Some(Errno::EMFILE), ..Watcher::new() };
    watcher.set(&[tmp.path().to_path_buf()].into());
    assert_eq!(watcher.unwatched(), [Unwatched { path: tmp.path().into(), errno: Errno::EMFILE }]);
}

#[tokio::test]
async fn a_thousand_folders_with_one_parent() {
    let tmp = tempfile::tempdir().unwrap();
    let folders: BTreeSet<PathBuf> = (0..1000).map(|n| tmp.path().join(format!("root/s{n}"))).collect();
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
    }
    let mut bench = Bench { tmp, watcher: Watcher::new() };
    let begin = std::time::Instant::now();
    bench.watcher.set(&folders);
    println!("1,000 folders set in {:?}", begin.elapsed());
    assert_eq!(bench.watcher.unwatched(), []);
    let begin = std::time::Instant::now();
    bench.watcher.set(&folders);
    println!("and set again in {:?}", begin.elapsed());
    let begin = std::time::Instant::now();
    bench.watcher.look_again(Path::new("/"));
    println!("all looked at again in {:?}", begin.elapsed());
    assert_eq!(bench.watcher.queue, []);
    fs::remove_dir_all(bench.at("root")).unwrap();
    let mut gone = BTreeSet::new();
    while gone.len() < 1000 {
        match tokio::time::timeout(LIMIT, bench.watcher.next()).await.unwrap() {
            WatchEvent::Folder { folder, name: None, kind: Change::Folder } => gone.insert(folder),
            _ => continue,
        };
    }
}
