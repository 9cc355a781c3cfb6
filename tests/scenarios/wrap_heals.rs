//! `shimd wrap`: a lost dentry is put back, and neither the service nor a connection notices.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::command::run;
use scenarios::{Fault, Need, Result, World, Wrapped, ensure, processes, scenario, scenario_as, wait_until};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon];
    vec![
        scenario("wrap_heals::file_removed", &needs, file_removed),
        scenario_as("nobody", "wrap_heals::file_removed_for_an_ordinary_user", &needs, file_removed),
        scenario(
            "wrap_heals::another_process_is_named_and_not_waited_for",
            &[Need::Daemon, Need::Root],
            named,
        ),
        scenario("wrap_heals::folder_removed", &needs, folder_removed),
        scenario("wrap_heals::dead_socket_in_its_place", &needs, dead_in_place),
        scenario("wrap_heals::a_file_in_its_place_stays", &needs, file_in_place),
        scenario("wrap_heals::reload_is_not_broken", &needs, reload),
        scenario("wrap_heals::restart", &needs, restart),
        scenario("wrap_heals::restart_under_a_limit", &needs, limit),
        scenario("wrap_heals::report", &needs, report),
        scenario("wrap_heals::published", &needs, published),
        scenario("wrap_heals::no_pin_is_left", &needs, no_pin_left),
    ]
}

/// A wrapped server in a folder of its own, up.
pub fn up(world: &World, options: &[&str], habits: &[&str]) -> Result<(Wrapped, PathBuf, i32)> {
    let folder = world.folder().join("run");
    fs::create_dir_all(&folder)?;
    world.give(&folder)?;
    let path = folder.join("a.sock");
    let text = path.display().to_string();
    let unixd = world.unixd();
    let arguments = [&["--socket", &text], options, &["--", &unixd], habits, &[&text]].concat();
    let wrapped = world.wrap(&arguments)?;
    let pid = answers(&path)?;
    Ok((wrapped, path, pid))
}

fn answers(path: &Path) -> Result<i32> {
    wait_until(SOON, format!("{} answers", path.display()), || ping(path).ok())
}

/// Pins come a moment after the first answer.
fn pinned(world: &World, at: &Path) -> Result {
    wait_until(SOON, "there is a pin", || pins(world, at) == 1)
}

fn pins(_world: &World, at: &Path) -> usize {
    let folders =
        at.ancestors().skip(1).flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let folders =
        folders.filter(|e| e.file_name().to_string_lossy().starts_with(".shimd-")).map(|e| e.path());
    let names = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    // Others may wrap sockets at this moment, in worlds of their own.
    let inode = |path: &Path| {
        fs::symlink_metadata(path).ok().map(|found| std::os::unix::fs::MetadataExt::ino(&found))
    };
    names.filter(|name| inode(&name.path()).is_some() && inode(&name.path()) == inode(at)).count()
}

fn file_removed(world: &World) -> Result {
    let (mut wrapped, path, pid) = up(world, &[], &["--unlink-at-exit"])?;
    pinned(world, &path)?;
    let mut connected = UnixStream::connect(&path)?;
    for _ in 0..5 {
        fs::remove_file(&path)?;
        ensure!(answers(&path)? == pid, "the same process answers");
    }
    connected.write_all(b"ping\n")?;
    let mut answer = [0; 4];
    connected.read_exact(&mut answer)?;
    ensure!(&answer == b"pong", "the connection lived through it: {answer:?}");
    wrapped.says(SOON, "linked back")?;
    wrapped.signal(Signal::SIGTERM)?;
    wrapped.exits(SOON, 0)?;
    ensure!(!path.exists(), "a stop is no loss");
    Ok(())
}

fn named(world: &World) -> Result {
    // So long a reload may take: who waits for it waits visibly.
    let (wrapped, path, pid) = up(world, &["--settle", "30sec"], &[])?;
    pinned(world, &path)?;
    let start = Instant::now();
    let mut rm = world.command("/bin/rm");
    rm.arg(&path);
    run(rm, SOON)?.success()?;
    ensure!(answers(&path)? == pid && start.elapsed() < SOON, "not waited for");
    wrapped.says(SOON, ", by rm (pid ")
}

fn folder_removed(world: &World) -> Result {
    let (wrapped, path, pid) = up(world, &[], &[])?;
    pinned(world, &path)?;
    for _ in 0..3 {
        // Moved first: a file that is back at once would keep the folder from being removed.
        fs::rename(world.folder().join("run"), world.file("gone"))?;
        fs::remove_dir_all(world.file("gone"))?;
        ensure!(answers(&path)? == pid, "the same process answers");
    }
    wrapped.says(SOON, "linked back")
}

fn dead_in_place(world: &World) -> Result {
    let (wrapped, path, pid) = up(world, &[], &[])?;
    pinned(world, &path)?;
    let other = world.file("dead");
    drop(UnixListener::bind(&other)?);
    fs::rename(&other, &path)?;
    ensure!(answers(&path)? == pid, "the same process answers");
    wrapped.says(SOON, "exchanged for a dead file")
}

fn file_in_place(world: &World) -> Result {
    let (wrapped, path, pid) = up(world, &[], &[])?;
    pinned(world, &path)?;
    fs::write(world.file("file"), "kept")?;
    fs::rename(world.file("file"), &path)?;
    wrapped.says(SOON, "replaced: ")?;
    ensure!(fs::read(&path)? == b"kept" && processes::alive(pid), "nothing is done over a file");
    fs::remove_file(&path)?;
    ensure!(answers(&path)? == pid, "and once it is gone the socket is back");
    Ok(())
}

fn reload(world: &World) -> Result {
    let (wrapped, path, pid) = up(world, &["--settle", "2sec"], &["--reload-takes", "30"])?;
    let inode = || fs::symlink_metadata(&path).map(|found| std::os::unix::fs::MetadataExt::ino(&found));
    for _ in 0..10 {
        // The number of the old inode would come again at once: a link keeps it.
        let old = world.file("old");
        if old.exists() {
            fs::remove_file(&old)?;
        }
        fs::hard_link(&path, &old)?;
        let before = inode()?;
        wrapped.signal(Signal::SIGHUP)?;
        wait_until(SOON, "it has bound anew", || inode().is_ok_and(|now| now != before))
            .map_err(|fault| Fault(format!("{fault}; it says: {}", wrapped.errors())))?;
        ensure!(answers(&path)? == pid, "the same process answers");
    }
    // The pin has moved along.
    pinned(world, &path)?;
    fs::remove_file(&path)?;
    ensure!(answers(&path)? == pid, "healed after the reloads: {}", wrapped.errors());
    ensure!(!wrapped.errors().contains("unixd: "), "no bind failed: {}", wrapped.errors());
    Ok(())
}

fn restart(world: &World) -> Result {
    let (mut wrapped, path, pid) =
        up(world, &["--on-missing", "restart", "--stop-timeout", "300ms"], &["--child-stays"])?;
    wait_until(SOON, "seen", || pins(world, &path) == 1)?;
    fs::remove_file(&path)?;
    wait_until(SOON, "another process answers", || ping(&path).is_ok_and(|now| now != pid))?;
    ensure!(!processes::alive(pid), "the first is gone");
    ensure!(processes::alive(wrapped.pid()), "wrap is the same");
    wrapped.signal(Signal::SIGTERM)?;
    wrapped.exits(SOON, 0)
}

fn limit(world: &World) -> Result {
    let (mut wrapped, path, _) = up(world, &["--on-missing", "restart", "--settle", "1ms"], &[])?;
    for _ in 0..6 {
        let pid = answers(&path)?;
        wait_until(SOON, "seen", || pins(world, &path) == 1)?;
        fs::remove_file(&path)?;
        wait_until(SOON, "it was stopped", || !processes::alive(pid))?;
    }
    wrapped.exits(SOON, 125)?;
    ensure!(wrapped.errors().contains("too many restarts"), "{}", wrapped.errors());
    Ok(())
}

fn report(world: &World) -> Result {
    let (wrapped, path, pid) = up(world, &["--on-missing", "report"], &[])?;
    wait_until(SOON, "seen", || pins(world, &path) == 1)?;
    fs::remove_file(&path)?;
    wrapped.says(SOON, &format!("{}: dangling: ", path.display()))?;
    ensure!(!path.exists() && processes::alive(pid), "and left alone");
    Ok(())
}

fn published(world: &World) -> Result {
    let folder = world.folder().join("run");
    fs::create_dir_all(&folder)?;
    let path = folder.join("a.sock");
    let text = path.display().to_string();
    // What a predecessor's late exit does: it unlinks what it has bound.
    let mut first =
        world.wrap(&["--socket", &text, "--", &world.unixd(), "--unlink-late-child", "400", "{socket}"])?;
    let old = answers(&path)?;
    ensure!(
        fs::read_dir(&folder)?.flatten().any(|e| e.file_name().to_string_lossy().starts_with(".a.sock.")),
        "private"
    );
    pinned(world, &path)?;
    fs::remove_file(&path)?;
    ensure!(answers(&path)? == old, "healed as any other");
    first.signal(Signal::SIGTERM)?;
    first.exits(SOON, 0)?;
    ensure!(
        fs::read_dir(&folder)?.count() == 0,
        "neither name is left: {:?}",
        fs::read_dir(&folder)?.flatten().collect::<Vec<_>>()
    );

    // Killed, it leaves both names; the next cleans them.
    let mut killed = world.wrap(&["--socket", &text, "--", &world.unixd(), "{socket:a.sock}"])?;
    answers(&path)?;
    killed.signal(Signal::SIGKILL)?;
    killed.ends(SOON)?;
    wait_until(SOON, "the service went along", || ping(&path).is_err())?;
    let _next = world.wrap(&["--socket", &text, "--", &world.unixd(), "{socket}"])?;
    answers(&path)?;
    ensure!(
        fs::read_dir(&folder)?.count() == 2,
        "{:?}",
        fs::read_dir(&folder)?.flatten().collect::<Vec<_>>()
    );
    Ok(())
}

fn no_pin_left(world: &World) -> Result {
    let (mut wrapped, path, _) = up(world, &[], &[])?;
    pinned(world, &path)?;
    wrapped.signal(Signal::SIGTERM)?;
    wrapped.exits(SOON, 0)?;
    let left: Vec<_> = fs::read_dir(world.folder())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(!left.iter().any(|name| name.to_string_lossy().starts_with(".shimd")), "{left:?}");
    Ok(())
}
