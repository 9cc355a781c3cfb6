//! The fixture server has the habits that its options name. No daemon is needed.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::sys::socket::SockType;
use scenarios::client::{ask, ping, ping_as};
use scenarios::{Need, Result, World, ensure, processes, scenario, wait_until};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("fixture::answers_on_all_types", &[], answers),
        scenario("fixture::child_holds_the_listener", &[], child_holds),
        scenario("fixture::child_unlinks_late", &[], unlinks_late),
        scenario("fixture::workers_outlive_a_killed_main", &[], workers),
        scenario("fixture::reload_binds_anew", &[], reload),
        scenario("fixture::refuses_a_stale_file", &[], refuses),
        scenario("fixture::what_is_left_alive_is_found_and_killed", &[], left_alive),
        scenario("fixture::drops_its_user", &[Need::Root, Need::User("nobody")], drops),
    ]
}

/// A fixture server outside any daemon, and the path of its socket.
fn server(world: &World, options: &[&str]) -> Result<(Child, PathBuf)> {
    let path = world.file("a.sock");
    let mut command = world.command(world.unixd());
    let child = command.args(options).arg(&path).stdin(Stdio::null()).spawn()?;
    wait_until(SOON, "it answers", || ping(&path).is_ok())?;
    Ok((child, path))
}

fn end(mut child: Child) -> Result {
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn answers(world: &World) -> Result {
    for (name, kind) in
        [("stream", SockType::Stream), ("dgram", SockType::Datagram), ("seqpacket", SockType::SeqPacket)]
    {
        let path = world.file(name);
        let mut command = world.command(world.unixd());
        let child = command
            .args(["--bind-temp-rename", "--listen-after", "20"])
            .arg(format!("{name}:{}", path.display()));
        let child = child.stdin(Stdio::null()).spawn()?;
        wait_until(SOON, format!("{name} answers"), || ping_as(&path, kind).is_ok())?;
        ensure!(ping_as(&path, kind)? == i32::try_from(child.id())?, "{name}: not its own pid");
        ensure!(
            ask(&path, kind, "env HOME")?.starts_with(&world.folder().display().to_string()),
            "{name}: env"
        );
        end(child)?;
    }
    Ok(())
}

fn child_holds(world: &World) -> Result {
    for option in ["--child-holds", "--child-escapes"] {
        let (child, path) = server(world, &[option])?;
        end(child)?;
        // Nobody accepts any more, but the kernel still takes the connection.
        std::os::unix::net::UnixStream::connect(&path)?;
        let left = world.processes();
        ensure!(left.len() == 1, "{option}: one holder is left, not {left:?}");
        for process in left {
            processes::signal(process.pid, Signal::SIGKILL);
        }
        wait_until(SOON, "the holder is dead", || world.processes().is_empty())?;
    }
    Ok(())
}

fn unlinks_late(world: &World) -> Result {
    let (mut child, path) = server(world, &["--unlink-late-child", "200"])?;
    processes::signal(i32::try_from(child.id())?, Signal::SIGTERM);
    child.wait()?;
    ensure!(path.exists(), "the file is there when the main process has ended");
    wait_until(SOON, "its child unlinks the file", || !path.exists())?;
    wait_until(SOON, "the child has ended", || world.processes().is_empty())
}

fn workers(world: &World) -> Result {
    let (child, path) = server(world, &["--fork-workers", "2"])?;
    let main = i32::try_from(child.id())?;
    end(child)?;
    ensure!(ping(&path)? != main, "a worker answers");
    processes::kill_all(world.folder());
    Ok(())
}

fn reload(world: &World) -> Result {
    let (child, path) = server(world, &["--reload"])?;
    let keep = world.file("kept");
    std::fs::hard_link(&path, &keep)?;
    processes::signal(i32::try_from(child.id())?, Signal::SIGHUP);
    wait_until(SOON, "the old listener is closed", || ping(&keep).is_err())?;
    wait_until(SOON, "the new one answers", || ping(&path).is_ok())?;
    end(child)
}

fn refuses(world: &World) -> Result {
    let (child, path) = server(world, &["--refuse-stale"])?;
    end(child)?;
    let mut command = world.command(world.unixd());
    command.args(["--refuse-stale"]).arg(&path);
    let ran = scenarios::command::run(command, SOON)?;
    ensure!(ran.code == Some(1) && ran.stderr.contains("EADDRINUSE"), "it starts over a stale file:\n{ran}");
    Ok(())
}

fn drops(world: &World) -> Result {
    let (child, path) = server(world, &["--drop-user", "nobody"])?;
    ensure!(ask(&path, SockType::Stream, "uid")? == "65534", "it is not nobody");
    end(child)
}

/// The harness itself: a world with a living process in it does not end well.
fn left_alive(_: &World) -> Result {
    let inner = World::new("inner", None)?;
    let (child, _) = server(&inner, &["--child-escapes"])?;
    end(child)?;
    let left = inner.processes();
    let ended = inner.end();
    inner.remove();
    ensure!(left.len() == 1, "the escaped child is seen: {left:?}");
    ensure!(ended.is_err_and(|fault| fault.0.contains("__hold")), "and named");
    ensure!(!processes::alive(left[0].pid), "and killed");
    Ok(())
}
