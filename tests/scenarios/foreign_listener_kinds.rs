//! A declared socket that a process outside the service has, in every way in which it can: a start names it and touches
//! nothing, `--clean` and `kill_other` end it. What is only behind a symbolic link is never ended.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::sys::socket::SockType;
use nix::unistd::User;
use scenarios::client::{ping, ping_as};
use scenarios::{
    Fault, Json, Need, Result, World, ensure, processes, scenario, scenario_as, specs, wait_until,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    let needs = &[Need::Daemon];
    vec![
        scenario("foreign_listener_kinds::datagram", needs, |w| typed(w, "dgram", SockType::Datagram)),
        scenario("foreign_listener_kinds::seqpacket", needs, |w| typed(w, "seqpacket", SockType::SeqPacket)),
        scenario("foreign_listener_kinds::of_another_type", needs, other_type),
        scenario("foreign_listener_kinds::abstract_name", needs, abstract_name),
        scenario("foreign_listener_kinds::through_a_linked_folder", needs, linked_folder),
        scenario("foreign_listener_kinds::behind_a_link", needs, behind_link),
        scenario(
            "foreign_listener_kinds::of_another_user",
            &[Need::Daemon, Need::Root, Need::User("nobody")],
            of_nobody,
        ),
        scenario_as(
            "nobody",
            "foreign_listener_kinds::that_cannot_be_seen",
            &[Need::Daemon, Need::Root],
            unseen,
        ),
        scenario("foreign_listener_kinds::second_of_several", needs, second),
        scenario("foreign_listener_kinds::ended_by_kill_other", needs, by_kill_other),
        scenario("foreign_listener_kinds::that_ends_meanwhile", needs, ends_meanwhile),
        scenario("foreign_listener_kinds::stolen_from_a_running_one", needs, stolen),
        scenario("foreign_listener_kinds::what_cannot_be_removed", needs, not_removable),
    ]
}

/// A server that nobody supervises, and that answers.
fn stranger(world: &World, kind: SockType, path: &str, options: &[&str]) -> Result<(Child, i32)> {
    if let Some(folder) = Path::new(path).parent() {
        fs::create_dir_all(folder)?;
    }
    let word = match kind {
        SockType::Datagram => "dgram",
        SockType::SeqPacket => "seqpacket",
        _ => "stream",
    };
    let mut command = world.command(world.unixd());
    let child = command.args(options).arg(format!("{word}:{path}")).stdin(Stdio::null()).spawn()?;
    let pid = i32::try_from(child.id())?;
    wait_until(SOON, "the stranger answers", || {
        ping_as(Path::new(path), kind).is_ok_and(|answering| answering == pid)
    })?;
    Ok((child, pid))
}

fn end(mut child: Child) -> Result {
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// The stranger is this test's own child: it is dead once it can be reaped.
fn is_ended(child: &mut Child) -> Result {
    wait_until(SOON, "the stranger is ended", || matches!(child.try_wait(), Ok(Some(_))))
}

/// Holds that a start is refused for this process.
fn refused(world: &World, name: &str, pid: i32) -> Result {
    let started = world.rpc("service.start", json!({"name": name}))?;
    let row = started.only()?;
    ensure!(row.text("status")? == "failed", "a start does not take a live path: {row}");
    let reason = row.text("health_reason")?;
    ensure!(
        reason.contains("foreign") && reason.contains(&format!("pid {pid} ")),
        "it names pid {pid}: {row}"
    );
    ensure!(processes::alive(pid), "the stranger is left alone");
    Ok(())
}

fn cleanly(world: &World, name: &str) -> Result<Value> {
    Ok(world.rpc("service.restart", json!({"name": name, "clean": true}))?.only()?.clone())
}

/// Holds that `--clean` ends it, and gives the service's process.
fn taken_cleanly(world: &World, name: &str, mut stranger: Child, pid: i32) -> Result<i32> {
    let row = cleanly(world, name)?;
    ensure!(row.text("outcome")? == "restarted", "{row}");
    ensure!(row.field("killed") == &json!([pid]), "`killed` is pid {pid}: {row}");
    is_ended(&mut stranger)?;
    row.pid("new_pid")
}

fn typed(world: &World, word: &str, kind: SockType) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock");
    let (child, pid) = stranger(world, kind, &path.display().to_string(), &[])?;
    world.register(&specs::unixd_on(world, "mine", &[&format!("{word}:rpc.sock")], &[]))?;
    refused(world, "mine", pid)?;
    ensure!(ping_as(&path, kind)? == pid, "the stranger still answers");
    let own = taken_cleanly(world, "mine", child, pid)?;
    ensure!(ping_as(&path, kind)? == own, "the service answers");
    Ok(())
}

/// A datagram socket is declared, and a stream socket is there.
fn other_type(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock");
    let (child, pid) = stranger(world, SockType::Stream, &path.display().to_string(), &[])?;
    world.register(&specs::unixd_on(world, "mine", &["dgram:rpc.sock"], &[]))?;
    refused(world, "mine", pid)?;
    taken_cleanly(world, "mine", child, pid).map(drop)
}

/// There is no dentry to see: the name alone tells.
fn abstract_name(world: &World) -> Result {
    world.start_daemon()?;
    let name = format!("@{}", world.folder().display());
    let (child, pid) = stranger(world, SockType::Stream, &name, &[])?;
    world.register(&specs::unixd_on(world, "mine", &[&name], &[]))?;
    refused(world, "mine", pid)?;
    let own = taken_cleanly(world, "mine", child, pid)?;
    ensure!(ping(Path::new(&name))? == own, "the service answers");
    Ok(())
}

/// A folder above the socket's is a link: that is followed, as clients follow it.
fn linked_folder(world: &World) -> Result {
    world.start_daemon()?;
    let (real, link) = (world.file("real"), world.file("link"));
    fs::create_dir_all(real.join("app"))?;
    symlink(&real, &link)?;
    let (child, pid) =
        stranger(world, SockType::Stream, &real.join("app/a.sock").display().to_string(), &[])?;
    let declared = link.join("app/a.sock");
    world.register(&specs::unixd_on(world, "mine", &[&declared.display().to_string()], &[]))?;
    refused(world, "mine", pid)?;
    let own = taken_cleanly(world, "mine", child, pid)?;
    ensure!(ping(&declared)? == own, "the service answers");
    Ok(())
}

/// A link at the path leads to another's socket: the other serves a path of its own, and lives on.
fn behind_link(world: &World) -> Result {
    world.start_daemon()?;
    let (path, target) = (world.socket("mine", "rpc.sock"), world.file("theirs.sock"));
    let (child, pid) = stranger(world, SockType::Stream, &target.display().to_string(), &[])?;
    fs::create_dir_all(world.sockets().join("mine"))?;
    symlink(&target, &path)?;
    world.register(&specs::unixd(world, "mine", &[]))?;
    refused(world, "mine", pid)?;
    let row = cleanly(world, "mine")?;
    ensure!(row.text("outcome")? == "failed" && row.field("killed") == &json!([]), "{row}");
    ensure!(row.text("health_reason")?.contains("a symbolic link lies here"), "{row}");
    ensure!(ping(&target)? == pid && path.symlink_metadata()?.is_symlink(), "both are left alone");
    end(child)
}

/// The stranger runs as another user than the daemon, which is root and may look.
fn of_nobody(world: &World) -> Result {
    world.start_daemon()?;
    let nobody = User::from_name("nobody")?.ok_or_else(|| Fault::new("no nobody"))?;
    let folder = world.sockets().join("mine");
    fs::create_dir_all(&folder)?;
    nix::unistd::chown(&folder, Some(nobody.uid), Some(nobody.gid))?;
    let path = world.socket("mine", "rpc.sock");
    let mut command = world.command(world.unixd());
    let child = command.arg(&path).uid(nobody.uid.as_raw()).stdin(Stdio::null()).spawn()?;
    let pid = i32::try_from(child.id())?;
    wait_until(SOON, "the stranger answers", || ping(&path).is_ok())?;
    world.register(&specs::unixd(world, "mine", &[]))?;
    refused(world, "mine", pid)?;
    taken_cleanly(world, "mine", child, pid).map(drop)
}

/// The daemon may not look into the stranger: it says whose it is, and neither way takes the path.
fn unseen(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock");
    let folder = world.sockets().join("mine");
    fs::create_dir(&folder)?;
    world.give(&folder)?;
    // Of this test itself, which is root.
    let listener = UnixListener::bind(&path)?;
    world.register(&specs::unixd(world, "mine", &[]))?;
    let started = world.rpc("service.start", json!({"name": "mine"}))?;
    let reason = started.only()?.text("health_reason")?.to_owned();
    ensure!(reason.contains("foreign") && reason.contains("user 0"), "{reason}");
    let row = cleanly(world, "mine")?;
    ensure!(row.text("outcome")? == "failed", "{row}");
    ensure!(row.text("health_reason")?.contains("cannot be ended from here"), "{row}");
    drop(listener);
    ensure!(cleanly(world, "mine")?.text("outcome")? == "restarted", "with the stranger gone it comes up");
    Ok(())
}

/// The second of three is foreign: what is stale at the first and the third is still there after the refusal.
fn second(world: &World) -> Result {
    world.start_daemon()?;
    let path = |name| world.socket("mine", name);
    let (child, pid) = stranger(world, SockType::Stream, &path("b.sock").display().to_string(), &[])?;
    for name in ["a.sock", "c.sock"] {
        drop(UnixListener::bind(path(name))?);
    }
    fs::write(path(".ready"), "")?;
    let spec = specs::unixd_on(world, "mine", &["a.sock", "b.sock", "c.sock"], &[]);
    world.register(&spec)?;
    refused(world, "mine", pid)?;
    for name in ["a.sock", "c.sock", ".ready"] {
        ensure!(path(name).symlink_metadata().is_ok(), "{name} was removed before the refusal");
    }
    taken_cleanly(world, "mine", child, pid).map(drop)
}

/// `kill_other` takes what a start alone does not.
fn by_kill_other(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock");
    let (mut child, _) = stranger(world, SockType::Datagram, &path.display().to_string(), &[])?;
    let spec = specs::unixd_on(world, "mine", &["dgram:rpc.sock"], &[]);
    let pid = world.up(&specs::with(spec, json!({"kill_other": {"socket": ["rpc.sock"]}})))?;
    is_ended(&mut child)?;
    ensure!(ping_as(&path, SockType::Datagram)? == pid, "the service answers");
    Ok(())
}

/// Strangers that end in the moment of a clean restart.
fn ends_meanwhile(world: &World) -> Result {
    world.start_daemon()?;
    let path = world.socket("mine", "rpc.sock").display().to_string();
    world.register(&specs::unixd(world, "mine", &[]))?;
    for delay in 0..8 {
        let (child, pid) = stranger(world, SockType::Stream, &path, &[])?;
        let row = std::thread::scope(|scope| {
            let asking = scope.spawn(|| cleanly(world, "mine"));
            std::thread::sleep(Duration::from_millis(delay));
            processes::signal(pid, Signal::SIGKILL);
            asking.join().map_err(|_| Fault::new("the asking thread panicked"))?
        })?;
        ensure!(row.text("outcome")? == "restarted", "{row}");
        end(child)?;
        world.rpc("service.stop", json!({"name": "mine"}))?;
        let _ = fs::remove_file(&path);
    }
    Ok(())
}

/// Another process has taken the path of a running service. A plain restart could only lose the instance.
fn stolen(world: &World) -> Result {
    world.start_daemon()?;
    let own = world.up(&specs::unixd(world, "mine", &[]))?;
    let path = world.socket("mine", "rpc.sock");
    fs::remove_file(&path)?;
    let (child, pid) = stranger(world, SockType::Stream, &path.display().to_string(), &[])?;
    world.wait_status("mine", "failed", SOON)?;
    wait_until(SOON, "the theft is known", || {
        let rows = world.rpc("socket.check", json!({"name": "mine"}));
        rows.is_ok_and(|rows| rows.only().is_ok_and(|row| row.field("verdict") == "replaced"))
    })?;
    let rows = world.rpc("service.restart", json!({"name": "mine"}))?;
    let row = rows.only()?;
    ensure!(row.text("outcome")? == "failed" && row.pid("new_pid")? == own, "{row}");
    let reason = row.text("health_reason")?;
    ensure!(reason.contains("foreign") && reason.contains(&format!("pid {pid} ")), "{row}");
    ensure!(reason.contains("was left as it is") && processes::alive(own) && processes::alive(pid), "{row}");
    taken_cleanly(world, "mine", child, pid)?;
    ensure!(!processes::alive(own), "the old instance is gone");
    Ok(())
}

/// A regular file lies at the second path: nobody is ended for the first.
fn not_removable(world: &World) -> Result {
    world.start_daemon()?;
    let path = |name| world.socket("mine", name);
    let (child, pid) = stranger(world, SockType::Stream, &path("a.sock").display().to_string(), &[])?;
    fs::write(path("b.sock"), "mine")?;
    world.register(&specs::unixd_on(world, "mine", &["a.sock", "b.sock"], &[]))?;
    let row = cleanly(world, "mine")?;
    ensure!(row.text("outcome")? == "failed" && row.field("killed") == &json!([]), "{row}");
    ensure!(row.text("health_reason")?.contains("a regular file lies here"), "{row}");
    ensure!(ping(&path("a.sock"))? == pid && fs::read(path("b.sock"))? == b"mine", "both are left alone");
    end(child)
}
