//! Descriptors, processes and memory run out under the daemon: what runs is served and healed, what cannot be done is said
//! with its reason, requests are answered, and once there is enough again all is well without a new daemon.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::{Fault, Json, Need, Result, World, ensure, processes, scenario, specs, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const SERVICES: usize = 40;
/// Less than the services need, and more than the daemon itself.
const FILES: u64 = 90;
/// A request that is answered late is as good as none: the plugin waits for 10 s.
const ANSWER: Duration = Duration::from_secs(5);

pub fn trials() -> Vec<Trial> {
    let files = [Need::Daemon, Need::Nushell, Need::Program("prlimit")];
    let pids = [Need::Daemon, Need::Root];
    vec![
        scenario("resources_run_out::descriptors_taken_by_services", &files, by_services),
        scenario("resources_run_out::descriptors_taken_by_clients", &files, by_clients),
        scenario("resources_run_out::descriptors_while_a_service_crashes", &files, crash_meanwhile),
        scenario("resources_run_out::processes", &pids, no_processes),
        scenario("resources_run_out::memory", &files, no_memory),
    ]
}

/// Sets a soft limit of the daemon.
fn limit(daemon: i32, what: &str, value: u64) -> Result {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &daemon.to_string(), &format!("--{what}={value}:")]);
    run(command, SOON)?.success().map(drop).context("prlimit")
}

fn answered(world: &World) -> Result {
    let start = Instant::now();
    world.rpc("shim.info", json!({}))?;
    world.rpc("service.list", json!({}))?;
    ensure!(start.elapsed() < ANSWER, "answered after {:?}", start.elapsed());
    Ok(())
}

/// A lost dentry is put back.
fn healed(world: &World, name: &str) -> Result {
    let path = world.socket(name, "rpc.sock");
    let pid = ping(&path)?;
    fs::remove_file(&path)?;
    wait_until(SOON, format!("{name} is put back"), || path.exists())?;
    ensure!(ping(&path)? == pid, "{name} was restarted");
    world.wait_status(name, "running", SOON).map(drop)
}

/// How many events the daemon has written, and how much processor time it has used.
fn effort(world: &World, daemon: i32) -> Result<(i64, Duration)> {
    let events = world.rpc("event.list", json!({"limit": 1}))?;
    let last = events.rows()?.last().map(|row| row.int("id")).transpose()?.unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{daemon}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").context("stat")?.1.split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    Ok((last, Duration::from_millis(ticks * 10)))
}

/// It neither spins nor floods its history.
fn at_rest(world: &World, daemon: i32) -> Result {
    let (events, time) = effort(world, daemon)?;
    let start = Instant::now();
    wait_until(SOON, "a while has passed", || start.elapsed() > Duration::from_secs(2))?;
    let (more, later) = effort(world, daemon)?;
    let used = later - time;
    ensure!(used < start.elapsed() / 3, "it used {used:?} of processor time in {:?}", start.elapsed());
    ensure!(more - events < 100, "{} events in {:?}", more - events, start.elapsed());
    Ok(())
}

fn healing(world: &World, name: &str) -> Value {
    let restart = json!({"policy": "always", "delay": "100ms", "max_delay": "500ms", "limit": 100});
    specs::with(specs::unixd(world, name, &[]), json!({"on_missing": "relink", "restart": restart}))
}

/// It is to be started again, and for now cannot be: the reason holds `why`.
fn waits_for(world: &World, name: &str, why: &str) -> Result {
    let says = || {
        let row = world.service(name).ok()?;
        let reason = row.text("health_reason").unwrap_or_default();
        (row.field("status") == "backoff" && reason.contains(why)).then_some(())
    };
    wait_until(SOON, format!("{name} waits: {why}"), || says().is_some())
        .map_err(|fault| Fault(format!("{fault}; it is {:?}", world.service(name))))
}

fn by_services(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    let names: Vec<String> = (0..SERVICES).map(|number| format!("web-{number}")).collect();
    let mut all: Vec<Value> = names.iter().map(|name| healing(world, name)).collect();
    // With a limit a start that fails again and again is over at some time.
    all.iter_mut().for_each(|spec| {
        let few = json!({"restart": {"policy": "on-failure", "delay": "20ms", "limit": 2}});
        *spec = specs::with(spec.clone(), few);
    });
    world.rpc("service.set", json!({"specs": all}))?;
    world.rpc("service.start", json!({"name": names.first()}))?;
    limit(daemon, "nofile", FILES)?;
    let rows = world.rpc("service.start", json!({"names": names}))?;
    let (up, failed): (Vec<&Value>, Vec<&Value>) =
        rows.rows()?.iter().partition(|row| row.field("status") == "running");
    ensure!(!up.is_empty() && !failed.is_empty(), "{} up, {} failed", up.len(), failed.len());
    for row in &failed {
        let reason = row.text("health_reason")?;
        ensure!(reason.contains("open files") || reason.contains("may open"), "{row}");
    }
    answered(world)?;
    for row in &up {
        let path = world.socket(row.text("name")?, "rpc.sock");
        ensure!(ping(&path)? == row.pid("pid")?, "what runs is served: {row}");
    }
    healed(world, up.first().context("none is up")?.text("name")?)?;
    at_rest(world, daemon)?;
    limit(daemon, "nofile", 4096)?;
    world.rpc("service.reset_failed", json!({"names": names}))?;
    for row in world.rpc("service.start", json!({"names": names}))?.rows()? {
        ensure!(row.text("status")? == "running", "with enough again: {row}");
    }
    for row in &up {
        let now = world.service(row.text("name")?)?;
        ensure!(now.field("pid") == row.field("pid"), "never restarted: {row} {now}");
    }
    Ok(())
}

fn by_clients(world: &World) -> Result {
    let mut command = world.command("/bin/sh");
    let script = format!("ulimit -n {FILES}; exec {} run", world.bin("shimd").display());
    command.args(["-c", &script]).stdin(std::process::Stdio::null());
    let daemon = world.start_daemon_by(command)?;
    world.up(&healing(world, "web"))?;
    let idle: Vec<UnixStream> = (0..2 * FILES)
        .map(|_| UnixStream::connect(world.control_socket()))
        .collect::<std::io::Result<_>>()?;
    // A seat is its client's for 5 s, and then the next one's.
    wait_until(SOON, "a request is answered", || world.rpc("shim.info", json!({})).is_ok())?;
    answered(world)?;
    healed(world, "web")?;
    at_rest(world, daemon)?;
    drop(idle);
    answered(world)?;
    world.up(&healing(world, "more")).map(drop)
}

fn crash_meanwhile(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    let pid = world.up(&healing(world, "web"))?;
    world.up(&healing(world, "other"))?;
    let open = fs::read_dir(format!("/proc/{daemon}/fd"))?.count() as u64;
    limit(daemon, "nofile", open)?;
    processes::signal(pid, Signal::SIGKILL);
    waits_for(world, "web", "may open")?;
    answered(world)?;
    let files = world.nu_json("proc doctor")?.row("check", "files")?.clone();
    ensure!(files.field("ok") == false && files.text("detail")?.contains("prlimit"), "{files}");
    healed(world, "other")?;
    limit(daemon, "nofile", 4096)?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == row.pid("pid")?, "{row}");
    Ok(())
}

/// A group of the controller `pids`, which bounds how many processes and threads there may be.
struct Group(PathBuf);

impl Group {
    /// `None` where there is no such controller that may be used.
    fn around(pid: i32) -> Result<Option<Group>> {
        let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let group = places.map(|place| PathBuf::from(place).join(format!("shim-test-{pid}")));
        for folder in group {
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Group(folder);
            if group.0.join("pids.max").exists() && group.put(pid).is_ok() {
                // Before any service is up it has one child: the template that its services' processes are made from.
                processes::children(pid).into_iter().try_for_each(|child| group.put(child))?;
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    fn put(&self, pid: i32) -> std::io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// No more, however many of those that are there end.
    fn close(&self) -> Result {
        Ok(fs::write(self.0.join("pids.max"), "1")?)
    }

    fn open(&self) -> Result {
        Ok(fs::write(self.0.join("pids.max"), "max")?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.open();
        let parent = self.0.parent().map(|parent| parent.join("cgroup.procs")).unwrap_or_default();
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&parent, pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn no_processes(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    let Some(group) = Group::around(daemon)? else {
        world.note("no controller of processes");
        return Ok(());
    };
    let late = json!({"restart": {"policy": "always", "delay": "1sec", "max_delay": "1sec", "limit": 100}});
    let pid = world.up(&specs::with(healing(world, "web"), late))?;
    world.up(&healing(world, "other"))?;
    group.close()?;
    processes::signal(pid, Signal::SIGKILL);
    waits_for(world, "web", "EAGAIN")?;
    answered(world)?;
    healed(world, "other")?;
    at_rest(world, daemon)?;
    group.open()?;
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == row.pid("pid")?, "{row}");
    ensure!(world.daemon_pid()? == daemon, "the same daemon");
    Ok(())
}

fn no_memory(world: &World) -> Result {
    let daemon = world.start_daemon()?;
    let pid = world.up(&healing(world, "web"))?;
    let status = fs::read_to_string(format!("/proc/{daemon}/status"))?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).context("no VmSize")?;
    let size: u64 = size.trim().trim_end_matches(" kB").parse()?;
    limit(daemon, "as", size * 1024)?;
    answered(world)?;
    healed(world, "web")?;
    // What it needs more for is refused, or ends it: then services live on, and the next daemon has them again.
    let large = specs::with(healing(world, "large"), json!({"note": "x".repeat(900_000)}));
    let refused = world.request("service.set", json!({"spec": large}));
    world.note(format!("a large spec: {refused:?}"));
    ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "what runs is served");
    if !processes::alive(daemon) {
        world.note("the daemon ended");
        world.start_daemon()?;
    }
    let row = world.wait_status("web", "running", SOON)?;
    ensure!(row.pid("pid")? == pid, "{row}");
    healed(world, "web")
}
