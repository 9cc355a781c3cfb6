//! An adopted process is not the daemon's child: how it ends is known all the same where the kernel tells (PIDFD_GET_INFO,
//! Linux 6.15); and another process that merely has its number is never touched.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::fault::Context;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::json;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Where the next process's number can be set, less one.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

pub fn trials() -> Vec<Trial> {
    let reaped = [Need::Daemon, Need::Program("python3")];
    vec![
        scenario("adopted_ends::with_its_exit_status", &reaped, exit_status),
        scenario("adopted_ends::by_a_signal", &reaped, by_signal),
        scenario("adopted_ends::and_its_number_is_anothers", &[Need::Root, Need::Daemon], number_reused),
    ]
}

/// Whether this kernel tells a process that is no parent how another one ended.
fn kernel_tells() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return Ok(false) };
    Ok((major, minor) >= (6, 15))
}

/// Becomes the parent of all orphans below it, and reaps them, as an init does: not each machine's does so soon.
const INIT: &str = "
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
subprocess.Popen(sys.argv[1:])
try:
    while True: os.wait()
except ChildProcessError:
    pass
";

fn adopted(world: &World, options: &[&str]) -> Result<i32> {
    let mut init = world.command("/usr/bin/python3");
    init.args(["-c", INIT]).arg(world.bin("shimd")).arg("run").stdin(Stdio::null()).stdout(Stdio::null());
    let mut init = init.stderr(Stdio::null()).spawn()?;
    wait_until(SOON, "the daemon answers", || world.daemon_pid().is_ok())?;
    let adopted = adopted_below(world, options);
    // It ends with the last of its children.
    std::thread::spawn(move || init.wait());
    adopted
}

fn adopted_below(world: &World, options: &[&str]) -> Result<i32> {
    let pid = world.up(&specs::unixd(world, "web", options))?;
    world.kill_daemon()?;
    world.start_daemon()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == pid, "it is adopted: {row}");
    Ok(pid)
}

fn ended_with(world: &World, known: &str) -> Result {
    let row = world.wait_status("web", "failed", SOON)?;
    let reason = row.text("health_reason")?;
    let wanted = if kernel_tells()? { known } else { "not known" };
    ensure!(reason.contains(wanted), "the reason tells {wanted:?}: {row}");
    Ok(())
}

fn exit_status(world: &World) -> Result {
    adopted(world, &["--exit-after", "1500", "--exit-code", "7"])?;
    ended_with(world, "exited with status 7")
}

fn by_signal(world: &World) -> Result {
    let pid = adopted(world, &[])?;
    processes::signal(pid, Signal::SIGKILL);
    ended_with(world, "SIGKILL")
}

/// The service ends while no daemon runs, and a stranger gets its number.
fn number_reused(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&specs::unixd(world, "web", &[]))?;
    world.kill_daemon()?;
    processes::signal(pid, Signal::SIGKILL);
    wait_until(SOON, "it is dead, and reaped", || fs::metadata(format!("/proc/{pid}")).is_err())?;
    let mut stranger = with_number(world, pid)?;
    let told = number_is_strangers(world, pid);
    stranger.kill()?;
    stranger.wait()?;
    told
}

fn number_is_strangers(world: &World, pid: i32) -> Result {
    world.start_daemon()?;
    let row = world.wait_status("web", "failed", SOON)?;
    ensure!(row.field("pid").is_null(), "the stranger is not taken for the service: {row}");
    let started = world.rpc("service.start", json!({"name": "web"}))?;
    let own = started.only()?.pid("pid")?;
    ensure!(own != pid, "a new process serves: {started}");
    let path = world.socket("web", "rpc.sock");
    let answer = ask(&path, SockType::Stream, "ping").context("ping")?;
    ensure!(answer == format!("pong {own}"), "and answers: {answer}");
    world.rpc("service.restart", json!({"name": "web", "clean": true}))?;
    world.rpc("service.stop", json!({"name": "web"}))?;
    ensure!(processes::alive(pid), "the stranger with the number {pid} was ended");
    Ok(())
}

/// A process with this number: it is asked for until no other process on the machine takes it first.
fn with_number(world: &World, pid: i32) -> Result<Child> {
    for _ in 0..500 {
        fs::write(LAST_PID, (pid - 1).to_string()).context(LAST_PID)?;
        let mut child =
            Command::new("sleep").arg("600").stdin(Stdio::null()).current_dir(world.folder()).spawn()?;
        if i32::try_from(child.id())? == pid {
            return Ok(child);
        }
        child.kill()?;
        child.wait()?;
    }
    Err(scenarios::Fault(format!("no process got the number {pid}")))
}
