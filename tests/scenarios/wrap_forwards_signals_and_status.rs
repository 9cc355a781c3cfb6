//! `shimd wrap`: the supervisor above and the service below see each other as if it were not there.

use libtest_mimic::Trial;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::unistd::{Pid, setsid};
use scenarios::command::run;
use scenarios::{Need, Result, World, Wrapped, ensure, processes, scenario, wait_until};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A service that writes down each signal that it gets, in the file `got` of its folder, and ends at QUIT.
const WRITES_DOWN: &str = r#"
    for s in HUP INT TERM USR1 USR2 WINCH ALRM RTMIN+3; do trap "echo $s >> got" $s; done
    trap 'echo QUIT >> got; exit 3' QUIT
    echo up > up
    while :; do sleep 0.02; done
"#;

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Program("bash")];
    vec![
        scenario("wrap_forwards::exit_status", &needs, exit_status),
        scenario("wrap_forwards::death_by_signal", &needs, death_by_signal),
        scenario("wrap_forwards::program_that_cannot_run", &needs, cannot_run),
        scenario("wrap_forwards::usage", &needs, usage),
        scenario("wrap_forwards::each_signal_once", &needs, each_signal),
        scenario("wrap_forwards::a_signal_to_the_whole_group_once", &needs, whole_group),
        scenario("wrap_forwards::ctrl_c_at_a_terminal_once", &needs, ctrl_c),
        scenario("wrap_forwards::ctrl_z_and_back", &needs, ctrl_z),
        scenario("wrap_forwards::surroundings_are_the_same", &needs, surroundings),
        scenario("wrap_forwards::stdio_is_the_services_own", &needs, stdio),
        scenario("wrap_forwards::what_is_left_ends_with_the_main_process", &needs, rest_ends),
        scenario("wrap_forwards::first_process_of_a_container", &[Need::Daemon, Need::Root], first_process),
    ]
}

fn exit_status(world: &World) -> Result {
    for code in [0, 1, 7, 125, 255] {
        world.wrap(&["--", "/bin/sh", "-c", &format!("exit {code}")])?.exits(SOON, code)?;
    }
    Ok(())
}

fn death_by_signal(world: &World) -> Result {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSEGV, Signal::SIGPIPE] {
        let line = format!("ulimit -c 0; kill -{} $$", signal as i32);
        world.wrap(&["--", "/bin/sh", "-c", &line])?.dies_of(SOON, signal)?;
    }
    let mut wrapped = world.wrap(&["--", "/bin/sleep", "60"])?;
    wait_until(SOON, "it runs", || service(&wrapped).is_some())?;
    wrapped.signal(Signal::SIGTERM)?;
    wrapped.dies_of(SOON, Signal::SIGTERM)
}

/// The main process.
fn service(wrapped: &Wrapped) -> Option<i32> {
    let pid = processes::children(wrapped.keeper().ok()?).first().copied()?;
    // Before its exec it is still called by wrap's name.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (!name.starts_with("shimd")).then_some(pid)
}

fn cannot_run(world: &World) -> Result {
    let mut missing = world.wrap(&["--", "no-such-program"])?;
    missing.exits(SOON, 127)?;
    missing.says(SOON, "shimd wrap: PROGRAM: cannot run no-such-program: No such file or directory; ")?;
    let text = world.write("text", "not a program")?.display().to_string();
    let mut text = world.wrap(&["--", &text])?;
    text.exits(SOON, 126)?;
    text.says(SOON, "Permission denied; ")
}

fn usage(world: &World) -> Result {
    for (line, words) in [
        (&["--socket", "/run/", "--", "true"][..], "shimd wrap: --socket: /run/ does not end in a name; "),
        (&["--socket", "/run/a", "--", "x", "{socket:b}"], "argument 1: no one --socket is called b; "),
        (
            &["--notify-fd", "77", "--", "true"],
            "shimd wrap: --notify-fd: no descriptor of this number is open; ",
        ),
        (&["--on-missing", "pray", "--", "true"], "write relink, restart or report"),
        (&["--socket", "/run/a"], "PROGRAM"),
    ] {
        let mut wrapped = world.wrap(line)?;
        wrapped.exits(SOON, 2)?;
        wrapped.says(SOON, words)?;
    }
    Ok(())
}

fn got(world: &World) -> Vec<String> {
    fs::read_to_string(world.file("got")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn each_signal(world: &World) -> Result {
    let mut wrapped = world.wrap(&["--", "/bin/bash", "-c", WRITES_DOWN])?;
    wait_until(SOON, "it is up", || world.file("up").exists())?;
    let mut sent = Vec::new();
    for signal in ["HUP", "USR1", "USR2", "WINCH", "ALRM", "RTMIN+3", "INT", "TERM"] {
        let mut sh = world.command("/bin/bash");
        sh.args(["-c", &format!("kill -{signal} {}", wrapped.pid())]);
        run(sh, SOON)?.success()?;
        sent.push(signal.to_owned());
        wait_until(SOON, format!("it got {signal}"), || got(world) == sent)?;
    }
    wrapped.signal(Signal::SIGQUIT)?;
    wrapped.exits(SOON, 3)?;
    sent.push("QUIT".into());
    ensure!(got(world) == sent, "{:?}", got(world));
    Ok(())
}

fn whole_group(world: &World) -> Result {
    let mut command = world.wrap_command(&["--", "/bin/bash", "-c", WRITES_DOWN]);
    command.process_group(0);
    let mut wrapped = world.wrap_by(command)?;
    wait_until(SOON, "it is up", || world.file("up").exists())?;
    let group = Pid::from_raw(-wrapped.pid());
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        kill(group, signal)?;
    }
    wait_until(SOON, "it got both", || got(world).len() >= 2)?;
    kill(group, Signal::SIGQUIT)?;
    wrapped.exits(SOON, 3)?;
    let mut got = got(world);
    got.sort();
    ensure!(got == ["HUP", "QUIT", "TERM"], "each once: {got:?}");
    Ok(())
}

/// Starts a command at a terminal of its own; gives the terminal's other side.
fn at_a_terminal(world: &World, mut command: Command) -> Result<(Wrapped, File)> {
    let terminal = openpty(None, None)?;
    for side in [&terminal.master, &terminal.slave] {
        // Other scenarios start processes at this moment.
        fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    let slave = terminal.slave.as_raw_fd();
    // SAFETY: between fork and exec two system calls are made, and no memory of the parent's is used.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            nix::errno::Errno::result(libc::ioctl(slave, libc::TIOCSCTTY, 0))?;
            Ok(())
        });
    }
    Ok((world.wrap_by(command)?, File::from(terminal.master)))
}

/// The group that the terminal's keys are for, as a process of its session sees it (proc_pid_stat(5), `tpgid`).
fn foreground(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(5)?.parse().ok()
}

fn ctrl_c(world: &World) -> Result {
    let command = world.wrap_command(&["--", "/bin/bash", "-c", WRITES_DOWN]);
    let (mut wrapped, mut terminal) = at_a_terminal(world, command)?;
    wait_until(SOON, "it is up", || world.file("up").exists())?;
    terminal.write_all(b"\x03")?;
    wait_until(SOON, "it got Ctrl-C", || !got(world).is_empty())?;
    terminal.write_all(b"\x1c")?;
    wrapped.exits(SOON, 3)?;
    ensure!(got(world) == ["INT", "QUIT"], "each once: {:?}", got(world));
    Ok(())
}

fn ctrl_z(world: &World) -> Result {
    // As below a shell: in a group of its own, in the foreground, whose parent is in another one of its session.
    let shell = format!(
        "exec 0</dev/tty 2>/dev/tty; set -m; {} wrap -- /bin/bash -c 'echo up > up; while :; do sleep 0.02; done' & echo $! > job; fg; echo $? > stopped; \
         while [ ! -e go ]; do sleep 0.02; done; bg; wait",
        world.bin("shimd").display()
    );
    let mut command = world.command("/bin/bash");
    command.args(["-c", &shell]);
    let (shell, mut terminal) = at_a_terminal(world, command)?;
    wait_until(SOON, "it is up", || world.file("up").exists())?;
    let wrap: i32 = fs::read_to_string(world.file("job"))?.trim().parse()?;
    let keeper = processes::children(wrap);
    let service = processes::children(*keeper.first().unwrap_or(&0));
    let both = [wrap, *service.first().unwrap_or(&0)];
    wait_until(SOON, "it is in the foreground", || foreground(wrap) == Some(wrap))?;
    terminal.write_all(b"\x1a")?;
    wait_until(SOON, "both are stopped", || both.iter().all(|pid| processes::stopped(*pid)))?;
    wait_until(SOON, "the shell sees it", || world.file("stopped").exists())?;
    fs::write(world.file("go"), "")?;
    wait_until(SOON, "both go on", || both.iter().all(|pid| !processes::stopped(*pid)))?;
    kill(Pid::from_raw(wrap), Signal::SIGTERM)?;
    wait_until(SOON, "both end", || both.iter().all(|pid| !processes::alive(*pid)))?;
    drop(shell);
    Ok(())
}

/// Signals, descriptors, limits and environment as the service sees them.
const SEES: &str = "grep -E '^(SigBlk|SigIgn|NoNewPrivs|Seccomp|Cap...):' /proc/self/status; ulimit -a; umask; pwd; \
     ls -l /proc/$$/fd > fds; sed -E 's/.*:[0-9]+ //; s/pipe:.*/a pipe/' fds; env | grep -vE '^(SHIMD_INSTANCE|_|SHLVL)='";

fn surroundings(world: &World) -> Result {
    for ignored in [false, true] {
        let seen = |mut command: Command| {
            command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").env("ODD", "a=b\tc");
            // SAFETY: between fork and exec only system calls are made, and no memory of the parent's is used.
            #[allow(unsafe_code)]
            unsafe {
                command.pre_exec(move || {
                    let mut set = SigSet::empty();
                    if ignored {
                        set.add(Signal::SIGUSR2);
                    }
                    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&set), None)?;
                    let disposition = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
                    for signal in [libc::SIGHUP, libc::SIGPIPE, libc::SIGCHLD] {
                        libc::signal(signal, disposition);
                    }
                    // One descriptor to inherit, and none that another scenario has open at this moment.
                    libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int);
                    libc::dup2(2, 9);
                    Ok(())
                });
            }
            run(command, SOON)?.success()
        };
        let mut bare = world.command("/bin/bash");
        bare.args(["-c", SEES]);
        let (bare, wrapped) = (seen(bare)?, seen(world.wrap_command(&["--", "/bin/bash", "-c", SEES]))?);
        ensure!(
            bare.stdout == wrapped.stdout && bare.stdout.contains("9 -> a pipe"),
            "ignored: {ignored}\nwithout wrap:\n{bare}\nwith it:\n{wrapped}"
        );
    }
    // systemd's sockets are for the process whose number LISTEN_PID is: wrap's becomes the service's.
    let mut activated = world.command("/bin/bash");
    let line = format!(
        "LISTEN_FDS=1 LISTEN_PID=$$ exec {} wrap -- /bin/bash -c '[ $LISTEN_PID = $$ ]'",
        world.bin("shimd").display()
    );
    activated.args(["-c", &line]);
    run(activated, SOON)?.success().map(drop)
}

fn stdio(world: &World) -> Result {
    let mut command = world.command("/bin/bash");
    let line = format!(
        "echo in | {} wrap -- /bin/bash -c 'read x; echo out:$x; echo err >&2'",
        world.bin("shimd").display()
    );
    command.args(["-c", &line]);
    let ran = run(command, SOON)?.success()?;
    ensure!(ran.stdout == "out:in\n" && ran.stderr == "err\n", "{ran}");
    Ok(())
}

fn rest_ends(world: &World) -> Result {
    let line = "setsid sleep 77 & setsid sh -c 'trap \"\" TERM; echo $$ > stubborn; while :; do sleep 0.05; done' & \
                while [ ! -e stubborn ]; do sleep 0.02; done; exit 4";
    let mut wrapped = world.wrap(&["--stop-timeout", "300ms", "--", "/bin/bash", "-c", line])?;
    wrapped.exits(SOON, 4)?;
    ensure!(world.processes().is_empty(), "left: {:?}", world.processes());
    Ok(())
}

fn first_process(world: &World) -> Result {
    if run(world.command("/usr/bin/unshare"), SOON).is_err() {
        return Ok(());
    }
    let shimd = world.bin("shimd").display().to_string();
    // An orphan of a process that entered the container is the first process's to reap.
    let line = "sh -c 'sleep 0.1 &'; sleep 0.3; ps -eo stat= | grep -c Z; kill -KILL $$";
    let mut command = world.command("/usr/bin/unshare");
    command.args(["--fork", "--pid", "--mount-proc", &shimd, "wrap", "--", "/bin/bash", "-c", line]);
    let ran = run(command, SOON)?;
    ensure!(ran.stdout.trim() == "0" && ran.code == Some(137), "as a shell tells a death: {ran}");
    Ok(())
}
