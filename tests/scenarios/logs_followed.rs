//! `proc logs` of real services in the real Nushell: past and future, across restarts, rotation and bad bytes, and what it
//! costs the daemon.

use libtest_mimic::Trial;
use scenarios::{Fault, Json, Need, Result, World, ensure, scenario, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("logs_followed::over_a_restart", &needs, over_a_restart),
        scenario("logs_followed::over_rotation_nothing_is_lost", &needs, over_rotation),
        scenario("logs_followed::ended_by_its_reader_and_by_ctrl_c", &needs, ended),
        scenario("logs_followed::the_daemon_dies", &needs, daemon_dies),
        scenario("logs_followed::a_slow_reader_is_waited_for", &needs, slow_reader),
        scenario("logs_followed::bytes_that_are_no_text", &needs, no_text),
        scenario("logs_followed::a_line_of_100_megabytes", &needs, huge_line),
        scenario("logs_followed::of_times", &needs, times),
    ]
}

/// A service without sockets that runs this script.
fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "exec": ["/bin/sh", "-c", script], "restart": {"policy": "never"},
        "stop": {"timeout": "5sec"}, "log": {"max_size": "500MB"}})
}

/// Waits for a file of this name, then goes on.
fn when(world: &World, file: &str) -> String {
    format!("while [ ! -e {} ]; do sleep 0.02; done", world.file(file).display())
}

fn following(world: &World, script: &str) -> Result<(Child, Receiver<String>)> {
    let mut child = world
        .nu_command(script)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(world.file("stderr"))?)
        .spawn()?;
    let (sender, lines) = channel();
    let output = child.stdout.take();
    std::thread::spawn(move || {
        let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
        for line in lines.map_while(|line| line.ok()) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok((child, lines))
}

fn next(lines: &Receiver<String>, part: &str) -> Result<String> {
    let until = Instant::now() + SOON;
    loop {
        let line = lines.recv_timeout(until.saturating_duration_since(Instant::now()));
        let line = line.map_err(|end| Fault(format!("no line with {part:?}: {end}")))?;
        if line.contains(part) {
            return Ok(line);
        }
    }
}

/// How many descriptors of the daemon watch files: a follower has one of its own.
fn watches(world: &World) -> Result<usize> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", world.daemon_pid()?))?;
    let targets = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(targets.filter(|target| target.to_string_lossy().contains("inotify")).count())
}

/// The daemon's greatest size so far, in KiB.
fn peak(world: &World) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", world.daemon_pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn over_a_restart(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&shell("web", "echo up $$; echo trouble >&2; exec sleep 1000"))?;
    let (mut nu, lines) = following(world, "proc logs web --follow --raw")?;
    let first = next(&lines, "up ")?;
    next(&lines, "trouble")?;
    world.nu("proc restart web")?.success()?;
    let second = next(&lines, "up ")?;
    ensure!(first != second, "another process: {first}, {second}");
    nu.kill()?;
    nu.wait()?;
    let rows = world.nu_json("proc logs web | select stream line")?;
    let out = rows.rows()?.iter().filter(|row| row.field("stream") == "out").count();
    ensure!(out == 2 && rows.rows()?.len() == 4, "{rows}");
    let row =
        world.nu_json("{service: web} | proc logs --lines 1 | first | {time: ($in.time | describe)}")?;
    ensure!(row.text("time")? == "datetime", "{row}");
    Ok(())
}

fn over_rotation(world: &World) -> Result {
    world.start_daemon()?;
    let numbers = "for i in 1 2 3 4; do seq 1 50000; seq 1 1000 >&2; sleep 0.3; done";
    let mut spec = shell("web", &format!("echo ready; {}; {numbers}; exec sleep 1000", when(world, "go")));
    spec["log"] = json!({"max_size": 100_000, "keep": 30});
    world.up(&spec)?;
    let script = "proc logs web --follow | each {|it| if $it.line == ready { print begun }; $it} \
        | where line != ready | first 204000 \
        | group-by stream | items {|stream, rows| {stream: $stream, sum: ($rows.line | into int | math sum), \
            steps: ($rows.line | into int | window 2 | where {|pair| $pair.1 != $pair.0 + 1} | length)}} | to json -r";
    let (mut nu, lines) = following(world, script)?;
    next(&lines, "begun")?;
    world.write("go", "")?;
    let text = lines.recv_timeout(Duration::from_secs(60))?;
    let found: Value = serde_json::from_str(&text)?;
    let rotated = world.home().join("logs/web.out.1").exists();
    let info = world.rpc("shim.info", json!({}))?;
    ensure!(rotated || info.field("troubles") != &json!([]), "nothing was cut: {info}");
    let (out, err) = (found.row("stream", "out")?, found.row("stream", "err")?);
    ensure!(out.int("sum")? == 4 * 50_000 * 50_001 / 2, "each once: {found}");
    ensure!(err.int("sum")? == 4 * 1000 * 1001 / 2, "each once: {found}");
    ensure!(out.int("steps")? == 3 && err.int("steps")? == 3, "in order: {found}");
    let status = wait_until(SOON, "Nushell ends", || nu.try_wait().ok().flatten())?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn ended(world: &World) -> Result {
    world.start_daemon()?;
    let script = format!("echo one; echo two; echo three; {}; exec sleep 1000", when(world, "never"));
    world.up(&shell("web", &script))?;
    let before = watches(world)?;
    for reader in
        ["| first 3 | length | print; sleep 1min", "--raw | lines | first 3 | length | print; sleep 1min"]
    {
        let (mut nu, lines) = following(world, &format!("proc logs web --follow {reader}"))?;
        next(&lines, "3")?;
        wait_until(SOON, "the daemon's side is gone while the shell lives", || {
            watches(world).is_ok_and(|now| now == before)
        })?;
        ensure!(nu.try_wait()?.is_none(), "the shell ended");
        nu.kill()?;
        nu.wait()?;
    }
    for flags in ["--follow", "--follow --raw"] {
        let (mut nu, _) = following(world, &format!("proc logs web {flags} | ignore"))?;
        wait_until(SOON, "it follows", || watches(world).is_ok_and(|now| now > before))?;
        let began = Instant::now();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(nu.id() as i32), nix::sys::signal::Signal::SIGINT)?;
        wait_until(SOON, "Ctrl-C ends the daemon's side", || watches(world).is_ok_and(|now| now == before))?;
        let took = began.elapsed();
        ensure!(took < Duration::from_millis(500), "{flags}: Ctrl-C took {took:?}");
        wait_until(SOON, "Nushell ends", || nu.try_wait().is_ok_and(|ended| ended.is_some()))?;
    }
    Ok(())
}

fn daemon_dies(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&shell("web", "echo one; exec sleep 1000"))?;
    for flags in ["--follow", "--follow --raw"] {
        let script = format!(
            "try {{ proc logs web {flags} | each {{|it| print seen}} | ignore }} catch {{|e| print $e.details.code}}"
        );
        let before = watches(world)?;
        let (mut nu, lines) = following(world, &script)?;
        wait_until(SOON, "it follows", || watches(world).is_ok_and(|now| now > before))?;
        world.kill_daemon()?;
        next(&lines, "proc::no_daemon")?;
        nu.wait()?;
        let failure = world.nu_refuses("proc logs web --follow", "proc::no_daemon")?;
        ensure!(failure.mentions("proc shim start"), "{failure}");
        world.start_daemon()?;
    }
    let failure = world.nu_refuses("proc logs wob --follow", "proc::unknown_service")?;
    ensure!(failure.mentions("proc list") && failure.labels == ["not registered"], "{failure}");
    let rows = world.nu_json("proc logs web | get line")?;
    ensure!(rows == json!(["one"]), "the service went on: {rows}");
    Ok(())
}

fn slow_reader(world: &World) -> Result {
    world.start_daemon()?;
    let mut spec = shell("web", &format!("echo ready; {}; seq 1 400000; exec sleep 1000", when(world, "go")));
    spec["log"] = json!({"max_size": 200_000, "keep": 1});
    world.up(&spec)?;
    let resume = world.file("resume").display().to_string();
    let script = format!(
        "proc logs web --follow | each {{|it| if $it.line == ready {{ print begun }}; if $it.line == '1' {{ print stopped; \
         while not ('{resume}' | path exists) {{ sleep 20ms }} }}; $it.line }} | where $it in ['1' '400000'] or $it =~ 'cut off' \
         | first 3 | to json -r"
    );
    let (mut nu, lines) = following(world, &script)?;
    let before = peak(world)?;
    next(&lines, "begun")?;
    world.write("go", "")?;
    next(&lines, "stopped")?;
    let has_all =
        || world.nu_json("proc logs web --lines 1 | get line").is_ok_and(|line| line == json!(["400000"]));
    wait_until(SOON, "all is written", has_all)?;
    world.write("resume", "")?;
    let told = next(&lines, "[")?;
    let told: Vec<String> = serde_json::from_str(&told)?;
    ensure!(told.first().is_some_and(|line| line == "1"), "{told:?}");
    ensure!(told.get(1).is_some_and(|line| line.contains("bytes of web.out were cut off")), "{told:?}");
    ensure!(told.get(2).is_some_and(|line| line == "400000"), "and then it goes on: {told:?}");
    let grown = peak(world)?.saturating_sub(before);
    ensure!(grown < 16 << 10, "the daemon grew by {grown} KiB");
    nu.wait()?;
    Ok(())
}

fn no_text(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&shell("web", "printf 'a\\377b\\n\\000\\nend'; exec sleep 1000"))?;
    let wrote = b"a\xffb\n\0\nend";
    wait_until(SOON, "all is written", || {
        fs::read(world.home().join("logs/web.out")).is_ok_and(|bytes| bytes == wrote)
    })?;
    let rows = world.nu_json("proc logs web | get line")?;
    ensure!(rows == json!(["a\u{fffd}b", "\0", "end"]), "{rows}");
    world.nu("proc logs web --raw | save saved")?.success()?;
    let saved = fs::read(world.file("saved"))?;
    ensure!(saved == wrote, "{saved:?}");
    let kind = world.nu_json("proc logs web --raw | do {|| let bytes = $in; $bytes | describe}")?;
    ensure!(kind == "binary", "{kind}");
    Ok(())
}

fn huge_line(world: &World) -> Result {
    world.start_daemon()?;
    let script =
        format!("head -c 104857600 /dev/zero | tr '\\0' x; echo; echo after; {}", when(world, "never"));
    world.up(&shell("web", &script))?;
    let before = peak(world)?;
    let lines = wait_until(Duration::from_secs(60), "the line after it", || {
        let lines = world.nu_json("proc logs web --lines 2 | get line").ok()?;
        lines.rows().ok().filter(|rows| rows.len() == 2 && rows[1] == "after").cloned()
    })?;
    let first = lines.first().and_then(Value::as_str).unwrap_or_default();
    ensure!(
        first.ends_with("x [cut here: the line has 104857601 bytes]"),
        "{}",
        &first[first.len().min(65_500)..]
    );
    ensure!(first.len() < 66_000, "{} bytes", first.len());
    world.nu("proc logs web --raw --lines 2 | save whole")?.success()?;
    let whole = fs::metadata(world.file("whole"))?.len();
    ensure!(whole == 104_857_601 + 6, "{whole} bytes");
    let grown = peak(world)?.saturating_sub(before);
    ensure!(grown < 16 << 10, "the daemon grew by {grown} KiB");
    Ok(())
}

fn times(world: &World) -> Result {
    world.start_daemon()?;
    let script = format!(
        "echo old; {}; echo to-out; sleep 2; echo to-err >&2; sleep 2; echo last; exec sleep 1000",
        when(world, "go")
    );
    world.up(&shell("web", &script))?;
    wait_until(SOON, "it has a time", || {
        world
            .nu_json("proc logs web | get time")
            .is_ok_and(|times| times.rows().is_ok_and(|rows| rows.len() == 1))
    })?;
    world.write("go", "")?;
    let has = |count: usize| {
        world
            .nu_json("proc logs web | get line")
            .is_ok_and(|lines| lines.rows().is_ok_and(|rows| rows.len() == count))
    };
    wait_until(SOON, "all is written", || has(4))?;
    let lines = world.nu_json("proc logs web | get line")?;
    ensure!(lines == json!(["old", "to-out", "to-err", "last"]), "out and err by time: {lines}");
    // Between the two lines there are 2 s: room for a busy machine between the two looks at the clock.
    let since = world.nu_json(
        "let rows = proc logs web; let back = (date now) - $rows.2.time + 900ms; proc logs web --since $back | get line",
    )?;
    ensure!(since == json!(["to-err", "last"]), "{since}");
    let none = world.nu_json("sleep 20ms; proc logs web --since 1ms")?;
    ensure!(none == json!([]), "{none}");
    Ok(())
}
