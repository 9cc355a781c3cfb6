//! Who did it: fanotify against real programs. Needs root; without, each test says so and passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::{Folder, is_root, until};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use shimd::sys::blame::{Blame, Deed, DeedKind};

/// A `Blame`, and how often it has called.
struct Watch {
    blame: Blame,
    calls: Arc<AtomicUsize>,
    since: Instant,
}

impl Watch {
    /// `None` where fanotify is refused.
    fn start() -> Option<Watch> {
        let calls = Arc::new(AtomicUsize::new(0));
        let called = Arc::clone(&calls);
        match Blame::start(move || {
            called.fetch_add(1, Ordering::SeqCst);
        }) {
            Ok(blame) => Some(Watch { blame, calls, since: Instant::now() }),
            Err(why) => {
                assert!(!is_root() || why.errno == Errno::EPERM || why.errno == Errno::ENOSYS, "{why}");
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    /// With these names in these folders, all of which must be markable.
    fn of(wanted: &[(&Path, &[&str])]) -> Option<Watch> {
        let watch = Watch::start()?;
        watch.set(wanted);
        assert_eq!(watch.blame.unmarked(), []);
        Some(watch)
    }

    fn set(&self, wanted: &[(&Path, &[&str])]) {
        self.blame.set(&table(wanted));
    }

    /// Waits for a deed of this kind on this name.
    #[track_caller]
    fn deed(&self, folder: &Path, name: &str, kind: impl Fn(&DeedKind) -> bool) -> Deed {
        let of_it = |deed: &Deed| deed.folder == folder && deed.name == *name && kind(&deed.kind);
        until(&format!("a deed on {name}"), || self.all().into_iter().find(of_it))
    }

    /// Waits for a deed on this name that was done by this program, and for its kind.
    #[track_caller]
    fn done_by(&self, folder: &Path, name: &str, program: &str, kind: &DeedKind) -> Deed {
        let deed = self.deed(folder, name, |k| k == kind);
        assert_eq!(deed.who.name, program, "{deed:?}");
        assert_eq!(deed.who.uid, Some(0), "{deed:?}");
        assert!(deed.who.pid > 0 && deed.at >= self.since, "{deed:?}");
        deed
    }

    fn all(&self) -> Vec<Deed> {
        self.blame.deeds_since(self.since)
    }

    /// Every deed of what has been done so far is in the ring: one on a name of its own is, that came after them.
    #[track_caller]
    fn settle(&self, folder: &Path) {
        std::fs::write(folder.join("last"), "").unwrap();
        self.deed(folder, "last", |_| true);
    }
}

fn table(wanted: &[(&Path, &[&str])]) -> BTreeMap<PathBuf, BTreeSet<OsString>> {
    let names = |names: &[&str]| names.iter().map(OsString::from).collect();
    wanted.iter().map(|(folder, all)| (folder.to_path_buf(), names(all))).collect()
}

/// Runs a program to its end; its number.
#[track_caller]
fn run(argv: &[&OsStr]) -> i32 {
    let (program, arguments) = argv.split_first().unwrap();
    let mut child =
        Command::new(program).args(arguments).env("SHIMD_INSTANCE", "test/svc/7").spawn().unwrap();
    let pid = child.id().cast_signed();
    assert!(child.wait().unwrap().success(), "{argv:?}");
    pid
}

macro_rules! run {
    ($($argument:expr),+ $(,)?) => { run(&[$($argument.as_ref()),+]) };
}

fn socket(folder: &Path, name: &str) -> (PathBuf, UnixListener) {
    let path = folder.join(name);
    let listener = UnixListener::bind(&path).unwrap();
    (path, listener)
}

/// A program that is killed and reaped at the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn rm_is_named_with_all_that_is_known_of_it() {
    let home = Folder::new();
    let Some(watch) = Watch::of(&[(home.path(), &["rpc.sock"])]) else { return };
    let (path, _listener) = socket(home.path(), "rpc.sock");
    let bound = watch.deed(home.path(), "rpc.sock", |kind| *kind == DeedKind::Created);
    assert_eq!(bound.who.pid, std::process::id().cast_signed(), "a deed of our own is known by its pid");
    let pid = run!("rm", path);
    let deed = watch.done_by(home.path(), "rpc.sock", "rm", &DeedKind::Removed);
    assert_eq!(deed.who.pid, pid);
    // Its exit takes these away, and may come first.
    assert!(deed.who.exe.as_deref().is_none_or(|exe| exe.ends_with("rm")), "{deed:?}");
    assert!(deed.who.mark.as_deref().is_none_or(|mark| mark == "test/svc/7"), "{deed:?}");
    let latest = |since| watch.blame.latest(home.path(), OsStr::new("rpc.sock"), since);
    assert_eq!(latest(watch.since), Some(deed.clone()));
    assert_eq!(latest(deed.at + std::time::Duration::from_nanos(1)), None, "nothing since");
    assert!(watch.calls.load(Ordering::SeqCst) >= 1);
}

#[test]
fn rename_away_and_over_tell_the_other_end() {
    let home = Folder::new();
    let (inner, outer) = (home.path().join("inner"), home.path().join("outer"));
    std::fs::create_dir(&inner).unwrap();
    std::fs::create_dir(&outer).unwrap();
    let Some(watch) = Watch::of(&[(&inner, &["a", "b"])]) else { return };
    let (path, _listener) = socket(&inner, "a");
    run!("mv", path, inner.join("elsewhere"));
    let to = Some((inner.clone(), "elsewhere".into()));
    watch.done_by(&inner, "a", "mv", &DeedKind::MovedAway { to });
    let (path, _listener) = socket(&inner, "b");
    run!("mv", path, outer.join("b"));
    watch.done_by(&inner, "b", "mv", &DeedKind::MovedAway { to: None });
    run!("mv", outer.join("b"), path);
    watch.done_by(&inner, "b", "mv", &DeedKind::MovedIn { from: None });
    run!("mv", inner.join("elsewhere"), path);
    let from = Some((inner.clone(), "elsewhere".into()));
    let over = watch.done_by(&inner, "b", "mv", &DeedKind::MovedIn { from });
    assert_eq!(watch.blame.latest(&inner, OsStr::new("b"), watch.since), Some(over));
}

#[test]
fn who_removed_and_who_put_another_file_there_are_told_apart() {
    let home = Folder::new();
    let Some(watch) = Watch::of(&[(home.path(), &["rpc.sock"])]) else { return };
    let (path, _listener) = socket(home.path(), "rpc.sock");
    let other = home.file("other", "", 0o644);
    run!("rm", path);
    let removed = watch.done_by(home.path(), "rpc.sock", "rm", &DeedKind::Removed);
    run!("cp", other, path);
    let by_cp = |kind: &DeedKind| *kind == DeedKind::Created;
    let created = until("what cp did", || {
        watch.all().into_iter().rfind(|deed| by_cp(&deed.kind) && deed.at > removed.at)
    });
    assert_eq!(created.who.name, "cp");
    assert_eq!(watch.blame.latest(home.path(), OsStr::new("rpc.sock"), removed.at), Some(created));
}

#[test]
fn chmod_is_known_on_the_file_and_on_the_folder() {
    let home = Folder::new();
    let Some(watch) = Watch::of(&[(home.path(), &["rpc.sock", "."])]) else { return };
    let (path, _listener) = socket(home.path(), "rpc.sock");
    run!("chmod", "000", path);
    watch.done_by(home.path(), "rpc.sock", "chmod", &DeedKind::Attributes);
    run!("chmod", "700", home.path());
    watch.done_by(home.path(), ".", "chmod", &DeedKind::Attributes);
    let latest = watch.blame.latest(home.path(), OsStr::new("rpc.sock"), watch.since).unwrap();
    assert_eq!(latest.kind, DeedKind::Created, "a chmod replaces nothing");
}

#[test]
fn chmod_of_a_folder_is_known_in_itself_and_not_at_its_name() {
    let home = Folder::new();
    let folder = home.path().join("svc");
    std::fs::create_dir(&folder).unwrap();
    let Some(watch) = Watch::of(&[(home.path(), &["svc", "last"]), (&folder, &["."])]) else { return };
    run!("chmod", "700", folder);
    watch.done_by(&folder, ".", "chmod", &DeedKind::Attributes);
    watch.settle(home.path());
    assert!(watch.all().iter().all(|deed| deed.name != "svc"), "{:?}", watch.all());
}

#[test]
fn rm_rf_is_known_on_the_socket_and_on_the_folder_that_can_be_made_again() {
    let home = Folder::new();
    let folder = home.path().join("svc");
    let wanted: &[(&Path, &[&str])] = &[(home.path(), &["svc"]), (&folder, &["rpc.sock"])];
    let Some(watch) = Watch::of(wanted) else { return };
    assert!(watch.blame.unmarked().is_empty(), "a folder that is not there is no failure");
    for round in 0..3 {
        let since = Instant::now();
        std::fs::create_dir(&folder).unwrap();
        watch.set(wanted);
        let (_, _listener) = socket(&folder, "rpc.sock");
        let pid = run!("rm", "-rf", folder);
        let removed = |folder: &Path, name: &str| {
            until(&format!("the end of {name} in round {round}"), || {
                let latest = watch.blame.latest(folder, OsStr::new(name), since)?;
                (latest.kind == DeedKind::Removed).then_some(latest)
            })
        };
        for deed in [removed(&folder, "rpc.sock"), removed(home.path(), "svc")] {
            assert_eq!((deed.who.name.as_str(), deed.who.pid), ("rm", pid));
        }
    }
}

#[test]
fn folder_moved_away_is_known_and_its_successor_gets_a_mark_of_its_own() {
    let home = Folder::new();
    let (folder, aside) = (home.path().join("svc"), home.path().join("aside"));
    std::fs::create_dir(&folder).unwrap();
    let wanted: &[(&Path, &[&str])] = &[(home.path(), &["svc"]), (&folder, &["rpc.sock", "last"])];
    let Some(watch) = Watch::of(wanted) else { return };
    run!("mv", folder, aside);
    let to = Some((home.path().to_owned(), "aside".into()));
    watch.done_by(home.path(), "svc", "mv", &DeedKind::MovedAway { to });
    std::fs::create_dir(&folder).unwrap();
    watch.set(wanted);
    let before = watch.all().len();
    let _other = socket(&aside, "rpc.sock");
    watch.settle(&folder);
    assert!(watch.all().iter().skip(before).all(|deed| deed.name != "rpc.sock"), "{:?}", watch.all());
    let (path, _listener) = socket(&folder, "rpc.sock");
    run!("rm", path);
    watch.done_by(&folder, "rpc.sock", "rm", &DeedKind::Removed);
}

#[test]
fn other_names_are_nothing_however_many() {
    let home = Folder::new();
    let Some(watch) = Watch::of(&[(home.path(), &["rpc.sock", "last"])]) else { return };
    let (path, _listener) = socket(home.path(), "rpc.sock");
    run!("rm", path);
    for n in 0..10_000 {
        let path = home.path().join(format!("other-{n}"));
        std::fs::write(&path, "").unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    watch.settle(home.path());
    let kinds: Vec<_> = watch.all().into_iter().map(|deed| (deed.name, deed.kind)).collect();
    let expected =
        [("rpc.sock", DeedKind::Created), ("rpc.sock", DeedKind::Removed), ("last", DeedKind::Created)];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.into(), kind)));
}

#[test]
fn names_and_folders_given_up_are_nothing_any_more() {
    let home = Folder::new();
    let one = home.path().join("one");
    std::fs::create_dir(&one).unwrap();
    let Some(watch) = Watch::of(&[(&one, &["a", "b"]), (home.path(), &["last"])]) else { return };
    watch.set(&[(&one, &["b"]), (home.path(), &["last"])]);
    let _a = socket(&one, "a");
    let _b = socket(&one, "b");
    watch.settle(home.path());
    let names = || watch.all().into_iter().map(|deed| deed.name).collect::<Vec<_>>();
    assert_eq!(names(), ["b", "last"]);
    watch.set(&[(home.path(), &["last"])]);
    std::fs::remove_file(one.join("b")).unwrap();
    std::fs::remove_file(home.path().join("last")).unwrap();
    watch.settle(home.path());
    assert_eq!(names(), ["b", "last", "last", "last"]);
}

#[test]
fn folder_that_cannot_be_marked_is_told_until_it_is_given_up() {
    let Some(watch) = Watch::start() else { return };
    let long = PathBuf::from(format!("/{}", "x".repeat(300)));
    watch.set(&[(&long, &["x"]), (Path::new("/no/such/folder"), &["x"])]);
    assert_eq!(watch.blame.unmarked(), [(long, Errno::ENAMETOOLONG)]);
    watch.set(&[]);
    assert!(watch.blame.unmarked().is_empty());
}

/// A file system of the test's own on a folder, unmounted with it.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, at: &Path, options: &str) -> Option<Mounted> {
        std::fs::create_dir_all(at).unwrap();
        match mount(Some(kind), at, Some(kind), MsFlags::empty(), Some(options)) {
            Ok(()) => Some(Mounted(at.to_owned())),
            Err(errno) => {
                eprintln!("skipped: no {kind} here: {}", errno.desc());
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn tmpfs_is_as_good_and_is_marked_anew_when_mounted_again() {
    let home = Folder::new();
    let at = home.path().join("tmpfs");
    for _ in 0..2 {
        let Some(watch) = Watch::start() else { return };
        for _ in 0..2 {
            let Some(_mounted) = Mounted::new("tmpfs", &at, "") else { return };
            watch.set(&[(&at, &["rpc.sock"])]);
            let since = Instant::now();
            let (path, _listener) = socket(&at, "rpc.sock");
            run!("rm", path);
            let deed = until("rm on tmpfs", || {
                let latest = watch.blame.latest(&at, OsStr::new("rpc.sock"), since)?;
                (latest.kind == DeedKind::Removed).then_some(latest)
            });
            assert_eq!(deed.who.name, "rm");
        }
    }
}

#[test]
fn overlay_is_as_good_or_is_told_as_unmarked() {
    let home = Folder::new();
    // Beneath an overlay must not be another one: a tmpfs always will do.
    let base = home.path().join("base");
    let Some(watch) = Watch::start() else { return };
    let Some(_base) = Mounted::new("tmpfs", &base, "") else { return };
    for name in ["lower/svc", "upper", "work"] {
        std::fs::create_dir_all(base.join(name)).unwrap();
    }
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| base.join(name).display().to_string());
    let at = home.path().join("overlay");
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let Some(_overlay) = Mounted::new("overlay", &at, &options) else { return };
    let folder = at.join("svc");
    watch.set(&[(&folder, &["rpc.sock"])]);
    if let [(path, errno)] = watch.blame.unmarked().as_slice() {
        eprintln!("{}: {}", path.display(), errno.desc());
        return;
    }
    let (path, _listener) = socket(&folder, "rpc.sock");
    run!("rm", path);
    watch.done_by(&folder, "rpc.sock", "rm", &DeedKind::Removed);
}

#[test]
fn drop_ends_the_threads_and_closes_all() {
    let threads = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        all.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|c| c == "blame\n"))
            .count()
    };
    // Alone in its process: the other tests have threads and descriptors of their own.
    if std::env::var_os("ALONE").is_none() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "drop_ends_the_threads_and_closes_all", "--nocapture"])
            .env("ALONE", "1")
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let home = Folder::new();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let Some(watch) = Watch::of(&[(home.path(), &["a", "last"])]) else { return };
    until("its threads", || (threads() >= 1).then_some(()));
    for _ in 0..200 {
        let (path, _listener) = socket(home.path(), "a");
        run!("rm", path);
    }
    watch.settle(home.path());
    until("no pidfd left open", || (descriptors() <= before + 3).then_some(()));
    drop(watch);
    assert_eq!((threads(), descriptors()), (0, before));
}

/// Not a test of its own: what an ordinary user is told.
#[test]
fn probe_start() {
    if std::env::var_os("PROBE_START").is_some() {
        eprintln!("{}", Blame::start(|| {}).unwrap_err());
    }
}

#[test]
fn ordinary_user_is_told_what_is_missing() {
    let mut probe = Command::new(std::env::current_exe().unwrap());
    probe.args(["--exact", "probe_start", "--nocapture"]).env("PROBE_START", "1");
    if is_root() {
        probe.uid(65534).gid(65534);
    }
    let output = match probe.output() {
        Ok(output) => output,
        Err(why) => return eprintln!("skipped: an ordinary user cannot run this test: {why}"),
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("CAP_SYS_ADMIN") || told.contains("has no fanotify"), "{told}");
}

/// Runs `remove` for `count` sockets, and says how many of the doers were known, by part.
fn measure(what: &str, count: usize, name: &str, remove: impl Fn(&Path) -> i32) {
    let home = Folder::new();
    let names: Vec<_> = (0..count).map(|n| format!("{n}.sock")).collect();
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(watch) = Watch::of(&[(home.path(), &wanted)]) else { return };
    let mut known = [0; 5];
    for each in &names {
        let (path, _listener) = socket(home.path(), each);
        let pid = remove(&path);
        let deed = watch.deed(home.path(), each, |kind| *kind == DeedKind::Removed);
        assert_eq!(deed.who.pid, pid);
        assert!(deed.who.name.is_empty() || deed.who.name == name, "nobody else is blamed: {deed:?}");
        let who = deed.who;
        if who.exe.is_none() || who.mark.is_none() {
            println!("{what}: {each} was not wholly known: {who:?}");
        }
        let parts = [!who.name.is_empty(), who.uid.is_some(), who.exe.is_some(), who.mark.is_some()];
        known.iter_mut().zip(parts).for_each(|(known, part)| *known += usize::from(part));
    }
    let [names, uids, exes, marks, parents] = known;
    println!(
        "{what}: of {count}, known were {names} names, {uids} uids, {exes} exes, {marks} marks, {parents} parents"
    );
}

/// How many are named is printed and not asserted: it is the machine's. That nobody else is blamed is asserted.
fn measure_all(count: usize) {
    if !is_root() {
        return eprintln!("skipped: needs root");
    }
    measure("rm", count, "rm", |path| run!("rm", path));
    let busy = |_| Running(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let _busy: Vec<_> = (0..4).map(busy).collect();
    measure("rm, busy", count, "rm", |path| run!("rm", path));
    if Command::new("perl").arg("-v").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        let script = "use POSIX; unlink($ARGV[0]); POSIX::_exit(0)";
        measure("unlink and _exit, busy", count, "perl", |path| run!("perl", "-e", script, path));
    }
}

#[test]
fn nobody_else_is_blamed_for_what_fast_ones_did() {
    measure_all(25);
}

#[test]
#[ignore = "a measurement: half a minute to two minutes"]
fn how_many_fast_ones_are_named() {
    measure_all(500);
}

#[test]
#[ignore = "a measurement"]
fn how_long_setting_takes() {
    let home = Folder::new();
    let folders: Vec<_> = (0..10_000).map(|n| home.path().join(n.to_string())).collect();
    folders.iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
    let Some(watch) = Watch::start() else { return };
    let names = || BTreeSet::from(["rpc.sock".into(), ".".into()]);
    let wanted: BTreeMap<_, _> = folders.iter().map(|folder| (folder.clone(), names())).collect();
    for what in ["new", "again"] {
        let began = Instant::now();
        watch.blame.set(&wanted);
        println!("{what}: {} folders set in {:?}", wanted.len(), began.elapsed());
    }
}
