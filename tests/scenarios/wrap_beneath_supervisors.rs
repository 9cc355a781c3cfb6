//! `shimd wrap` beneath real supervisors: what each sees, and how soon a client connects again.
//!
//! Each trial holds the same: the service comes up, twenty removals cost no restart, a SIGKILL of wrap takes the old tree and
//! brings a new one by the supervisor, a stop through the supervisor leaves nothing. The median of the twenty is printed.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::client::ping;
use scenarios::command::run;
use scenarios::fault::Context;
use scenarios::systemd::{self, Systemd};
use scenarios::{Need, Record, Result, World, Wrapped, ensure, processes, record, scenario, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(15);

/// What systemd calls it.
const UNIT: &str = "app.service";

/// Removals of which the median is told.
const REMOVALS: usize = 20;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        scenario("wrap_beneath::runit", &[Need::Daemon, Need::Program("runsv")], runit),
        scenario("wrap_beneath::s6", &[Need::Daemon, Need::Program("s6-supervise")], s6),
        scenario(
            "wrap_beneath::systemd_verifies_the_unit",
            &[Need::Daemon, Need::Program("systemd-analyze")],
            verified,
        ),
    ];
    let systemd = [Need::Daemon, Need::Root, Need::Program("systemctl"), Need::Program("unshare")];
    trials.push(scenario("wrap_beneath::systemd", &systemd, systemd_runs));
    trials.push(scenario("wrap_beneath::systemd_stops_the_whole_cgroup", &systemd, systemd_cgroup));
    let records = Record::all().unwrap_or_default();
    if let Some(record) = records.into_iter().find(|record| record.name == "supervisord") {
        let needs = [Need::Daemon, Need::Server(Box::new(record))];
        trials.push(scenario("wrap_beneath::supervisord", &needs, supervisord));
    }
    trials
}

/// The command line that a supervisor is given.
fn line(world: &World, options: &str) -> String {
    let (shimd, path) = (world.bin("shimd"), socket(world));
    format!(
        "{} wrap {options} --socket {} -- {} {}",
        shimd.display(),
        path.display(),
        world.unixd(),
        path.display()
    )
}

fn socket(world: &World) -> PathBuf {
    world.folder().join("run/a.sock")
}

fn script(path: &Path, text: &str) -> Result {
    fs::create_dir_all(path.parent().context("a folder")?)?;
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn up(world: &World) -> Result<i32> {
    wait_until(SOON, "it answers", || ping(&socket(world)).ok())
}

/// What holds beneath each.
fn holds(world: &World, who: &str) -> Result {
    let path = socket(world);
    let first = up(world)?;
    let wrap = wrap_of(first)?;
    wait_until(SOON, "there is a pin", || {
        fs::symlink_metadata(&path).is_ok_and(|found| std::os::unix::fs::MetadataExt::nlink(&found) == 2)
    })?;
    let mut took = Vec::new();
    for _ in 0..REMOVALS {
        // Before: whoever is asked for by fanotify is held until it is known.
        let gone = Instant::now();
        fs::remove_file(&path)?;
        while UnixStream::connect(&path).is_err() {
            ensure!(gone.elapsed() < SOON, "not back within {SOON:?}");
            std::hint::spin_loop();
        }
        took.push(gone.elapsed());
        ensure!(ping(&path)? == first, "by no restart");
    }
    took.sort();
    let median = took.get(REMOVALS / 2).copied().unwrap_or_default();
    println!(
        "wrap beneath {who}: removal to the next connection, median of {REMOVALS}: {median:?}, longest {:?}",
        took.last()
    );

    ensure!(processes::signal(wrap, Signal::SIGKILL), "wrap lives");
    wait_until(SOON, "a new one answers", || ping(&path).is_ok_and(|pid| pid != first))?;
    ensure!(!processes::alive(first), "the old one went along");
    Ok(())
}

/// The service's parent is the keeper, and wrap is the keeper's.
fn wrap_of(service: i32) -> Result<i32> {
    let parent = |pid: i32| -> Result<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(')').context("stat")?.1;
        Ok(fields.split_whitespace().nth(1).context("ppid")?.parse()?)
    };
    parent(parent(service)?)
}

fn nothing_left(world: &World) -> Result {
    wait_until(SOON, "nothing is left", || world.processes().is_empty())?;
    ensure!(ping(&socket(world)).is_err(), "nobody answers");
    Ok(())
}

fn start(world: &World, program: &str, arguments: &[&str]) -> Result<Wrapped> {
    fs::create_dir_all(world.folder().join("run"))?;
    let mut command = world.command(program);
    command.args(arguments);
    world.wrap_by(command)
}

fn supervisord(world: &World) -> Result {
    let file = |name: &str| world.file(name).display().to_string();
    let conf = format!(
        "[supervisord]\nnodaemon=true\nlogfile={}\npidfile={}\nchildlogdir={}\n\
         [program:app]\ncommand={}\nautorestart=true\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile={}\n",
        file("s.log"),
        file("s.pid"),
        world.folder().join("w").display(),
        line(world, ""),
        file("app.err")
    );
    let conf = world.write("s.conf", &conf)?.display().to_string();
    let bin = |name: &str| record::installed().join("venv/bin").join(name).display().to_string();
    // By the interpreter: a script's first line does not follow an environment that was moved.
    let mut supervisor = start(world, &bin("python3"), &[&bin("supervisord"), "-n", "-c", &conf])?;
    holds(world, "supervisord")?;
    supervisor.signal(Signal::SIGTERM)?;
    supervisor.ends(SOON)?;
    nothing_left(world)
}

fn runit(world: &World) -> Result {
    let folder = world.file("sv");
    script(&folder.join("run"), &format!("#!/bin/sh\nexec {}\n", line(world, "")))?;
    // How it ended, as runit sees it: exit status, and the signal.
    script(
        &folder.join("finish"),
        &format!("#!/bin/sh\necho \"$1 $2\" >> {}\n", world.file("ends").display()),
    )?;
    let folder = folder.display().to_string();
    let mut supervisor = start(world, "runsv", &[&folder])?;
    holds(world, "runit")?;
    let mut down = world.command("sv");
    down.args(["-w", "10", "down", &folder]);
    run(down, SOON)?.success()?;
    let ends = fs::read_to_string(world.file("ends"))?;
    ensure!(
        ends == "-1 9\n0 0\n",
        "killed, then down by SIGTERM, at which this server exits with 0: {ends:?}"
    );
    supervisor.signal(Signal::SIGTERM)?;
    supervisor.ends(SOON)?;
    nothing_left(world)
}

fn s6(world: &World) -> Result {
    let folder = world.file("sv");
    script(
        &folder.join("run"),
        &format!("#!/bin/sh\nexec {} --listen-after 300\n", line(world, "--notify-fd 3")),
    )?;
    fs::write(folder.join("notification-fd"), "3\n")?;
    let folder = folder.display().to_string();
    let mut supervisor = start(world, "s6-supervise", &[&folder])?;
    // Ready, for s6, is what wrap says.
    let waited = || {
        let mut wait = world.command("s6-svwait");
        wait.args(["-U", "-t", "10000", &folder]);
        run(wait, SOON).and_then(|ran| ran.success())
    };
    wait_until(SOON, "s6 supervises it", || waited().is_ok())?;
    ping(&socket(world)).context("ready, and it answers at once")?;
    holds(world, "s6")?;
    waited()?;
    let mut down = world.command("s6-svc");
    down.args(["-wD", "-T", "10000", "-d", &folder]);
    run(down, SOON)?.success()?;
    supervisor.signal(Signal::SIGTERM)?;
    supervisor.ends(SOON)?;
    nothing_left(world)
}

/// The unit that the documentation shows.
fn unit(world: &World, exec: &str, more: &str) -> Result<PathBuf> {
    let text = format!(
        "[Unit]\nDescription=App\nDefaultDependencies=no\n[Service]\nType=notify\nExecStart={exec}\n{more}\n\
         Restart=on-failure\nRestartSec=100ms\n"
    );
    systemd::wanted(world, UNIT, &text)
}

fn verified(world: &World) -> Result {
    let unit = unit(world, &line(world, "--notify"), "KillMode=mixed\nWatchdogSec=30s")?;
    systemd::verify(world, &unit)
}

fn systemd_runs(world: &World) -> Result {
    unit(world, &format!("{} --listen-after 300", line(world, "")), "KillMode=mixed")?;
    let Some(manager) = Systemd::start(world, UNIT)? else { return Ok(()) };
    ping(&socket(world)).context("active, and it answers at once")?;
    let show = |what: &str| manager.show(UNIT, what);
    let main: i32 = show("MainPID")?.parse()?;
    ensure!(wrap_of(ping(&socket(world))?)? == main, "wrap is the main process");
    ensure!(show("StatusText")? == "the socket is ok", "{}", show("StatusText")?);
    holds(world, "systemd")?;
    wait_until(SOON, "active again", || manager.is_active(UNIT))?;
    ensure!(show("NRestarts")? == "1", "only for the SIGKILL: {}", show("NRestarts")?);
    manager.ctl(&["stop", UNIT])?;
    ensure!(show("Result")? == "success", "{}", show("Result")?);
    ensure!(show("ActiveState")? == "inactive", "{}", show("ActiveState")?);
    manager.end()
}

/// With the default KillMode every process of the cgroup gets SIGTERM from systemd: the service once, all the same.
fn systemd_cgroup(world: &World) -> Result {
    let got = world.file("got").display().to_string();
    let begun = world.file("begun").display().to_string();
    let service = world.write(
        "service.sh",
        &format!(
            "trap 'echo TERM >> {got}' TERM; trap 'exit 0' HUP; echo > {begun}; while :; do sleep 0.02; done"
        ),
    )?;
    let exec = format!("{} wrap -- /bin/bash {}", world.bin("shimd").display(), service.display());
    unit(world, &exec, "KillMode=control-group\nTimeoutStopSec=1s")?;
    let Some(manager) = Systemd::start(world, UNIT)? else { return Ok(()) };
    wait_until(SOON, "it is up", || Path::new(&begun).exists())?;
    manager.ctl(&["kill", "--signal=TERM", UNIT])?;
    wait_until(SOON, "it got the signal", || Path::new(&got).exists())?;
    scenarios::wait::holds_for(Duration::from_millis(300), "once", || {
        Ok(fs::read_to_string(&got)? == "TERM\n")
    })?;
    manager.ctl(&["stop", UNIT])?;
    manager.end()
}
