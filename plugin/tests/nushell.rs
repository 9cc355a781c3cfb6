//! The plugin in the real Nushell, against a stand-in for `shimd`.
//!
//! This program is that stand-in as well: linked as `shimd` beside the plugin it is what `shimd run --detach` starts, and
//! does as `$SHIMD_HOME/manner` says. Without a Nushell of the right version every test is reported as ignored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on is to stop there

#[path = "../src/testing/fake.rs"]
mod fake;
#[path = "../src/testing/folder.rs"]
mod folder;
#[path = "nushell/world.rs"]
mod world;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value as Json, json};

use fake::Manner;
use world::World;

/// A test: its name, and what it does.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("examples_run", examples_run),
    ("help_is_complete", help_is_complete),
    ("each_code_is_read_from_details", each_code_is_read_from_details),
    ("rows_flow_between_commands", rows_flow_between_commands),
    ("arguments_win_inside_each", arguments_win_inside_each),
    ("nuon_files_are_parsed_by_nushell", nuon_files_are_parsed_by_nushell),
    ("key_columns_survive_a_narrow_terminal", key_columns_survive_a_narrow_terminal),
    ("progress_is_silent_without_a_terminal", progress_is_silent_without_a_terminal),
    ("ctrl_c_ends_a_wait", ctrl_c_ends_a_wait),
    ("ctrl_c_ends_each_stream", ctrl_c_ends_each_stream),
    ("raw_lines_come_at_once", raw_lines_come_at_once),
    ("a_reader_that_goes_lets_the_daemon_go", a_reader_that_goes_lets_the_daemon_go),
    ("a_shell_that_goes_leaves_nothing_behind", a_shell_that_goes_leaves_nothing_behind),
    ("the_daemons_end_is_read_from_details", the_daemons_end_is_read_from_details),
    ("a_command_that_acts_starts_a_daemon", a_command_that_acts_starts_a_daemon),
    ("a_pipe_is_not_held_by_the_daemon", a_pipe_is_not_held_by_the_daemon),
    ("a_daemon_that_cannot_start_says_why", a_daemon_that_cannot_start_says_why),
    ("two_commands_at_once_share_a_daemon", two_commands_at_once_share_a_daemon),
    ("a_stopped_daemon_is_gone", a_stopped_daemon_is_gone),
];

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("run") {
        return world::stand_in();
    }
    let arguments = Arguments::from_args();
    let _programs = world::place_programs();
    let ignored = world::nushell().is_none();
    if ignored {
        eprintln!("no Nushell {}: set SCENARIOS_NU, or put it on PATH", world::NU_VERSION);
    }
    let trials = TESTS.iter().map(|(name, test)| {
        let run = move || std::panic::catch_unwind(test).map_err(|_| Failed::from("see the panic above"));
        Trial::test(*name, run).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Every example in the help of every command, each in a world of its own.
fn examples_run() {
    let world = World::good();
    let find =
        "scope commands | where name =~ '^proc' and type == plugin | get examples | flatten | get example";
    let examples = world.json(find);
    let examples: Vec<&str> =
        examples.as_array().unwrap().iter().map(|example| example.as_str().unwrap()).collect();
    assert!(examples.len() > 20, "{examples:?}");
    for example in examples {
        let world = World::with(Manner::Live);
        world.file("web.nuon", "{name: web, exec: [web], settle: 200ms}");
        if example.starts_with("proc logs") && example.contains("--follow") {
            let mut nu = world.start(example);
            world.wait(example, || world.daemon().followers() == 1);
            let row = |line: &str| json!({ "time": null, "stream": "out", "line": line });
            world.daemon().write(match example.ends_with("--raw") {
                true => json!({ "text": "listening\n" }),
                false => json!({ "rows": [row("starting"), row("listening")] }),
            });
            let mut lines = BufReader::new(nu.output()).lines().map(Result::unwrap);
            assert!(lines.any(|line| line.contains("listening")), "{example}");
            continue;
        }
        if example.ends_with("--follow --raw") || example.contains("--watch | each") {
            let mut nu = world.start(example);
            let lines: Vec<String> =
                BufReader::new(nu.output()).lines().take(2).map(Result::unwrap).collect();
            assert!(lines.iter().all(|line| line.contains(".sock ")), "{lines:?}");
            continue;
        }
        if example == "proc top" {
            // Its terminal is the scenarios'.
            assert_eq!(world.error(example)["details"]["code"], "proc::bad_input");
            continue;
        }
        let ran = world.nu(&format!("{example} | to json -r"));
        assert!(ran.status.success(), "{example}\n{}", ran.stderr);
    }
}

fn help_is_complete() {
    let world = World::good();
    let help = world.nu("proc").stdout;
    for part in ["proc socket-check", "proc register", "proc shim start", "Run services"] {
        assert!(help.contains(part), "no {part} in {help}");
    }
    let bare = "scope commands | where name =~ '^proc' and type == plugin | where ($it.examples | is-empty) or \
                ($it.search_terms | is-empty) or ($it.extra_description | is-empty) or category != services | get name";
    assert_eq!(world.json(bare), json!([]));
}

fn each_code_is_read_from_details() {
    let code = |world: &World, source: &str| world.error(source)["details"]["code"].clone();
    let good = World::good();
    for (source, expected) in [
        ("proc status nowhere", "proc::unknown_service"),
        ("proc logs nowhere --follow", "proc::unknown_service"),
        ("proc logs web redis", "proc::bad_input"),
        ("proc start", "proc::bad_input"),
        ("5 | proc start", "proc::bad_input"),
        ("proc restart web --clean --fail", "proc::failed"),
        ("proc register {name: 'a/b', exec: [a]}", "proc::bad_spec"),
        ("proc register {name: a, exec: []}", "proc::bad_spec"),
        ("with-env {SHIMD_HOME: here} { proc list }", "proc::bad_home"),
        ("with-env {SHIMD_HOME: /nonexistent} { proc list }", "proc::no_daemon"),
    ] {
        assert_eq!(code(&good, source), expected, "{source}");
    }
    assert_eq!(code(&World::with(Manner::Version("9.0.0")), "proc list"), "proc::version");
    assert_eq!(code(&World::with(Manner::Garbage), "proc list"), "proc::version");
    assert_eq!(code(&World::with(Manner::OddResult), "proc list"), "proc::version");
    assert_eq!(code(&World::with(Manner::DieMidAnswer), "proc list"), "proc::failed");
    let error = good.error("proc status nowhere");
    assert_eq!(error["details"]["help"], "proc list names them");
    assert_eq!(error["details"]["labels"][0]["text"], "not registered");
}

fn rows_flow_between_commands() {
    let world = World::good();
    let outcomes = world.json("proc list | where status == failed | proc restart --clean | get outcome");
    assert_eq!(outcomes, json!(["failed"]));
    assert_eq!(world.json("proc list | where status == backoff | proc restart --clean"), json!([]));
    assert_eq!(world.json("proc socket-check | where verdict != ok | proc start | get name"), json!(["web"]));
    assert_eq!(world.json("proc status redis | get spec | proc register | get change"), json!(["unchanged"]));
    assert_eq!(world.json("[redis web] | proc stop | get status"), json!(["inactive", "inactive"]));
    assert_eq!(world.json("proc list | get 0.uptime | describe"), json!("duration"));
    assert_eq!(world.json("proc socket-check web | get 0.since | describe"), json!("datetime"));
}

fn arguments_win_inside_each() {
    let world = World::good();
    assert_eq!(
        world.json("[redis web] | each { |name| proc status $name | get name }"),
        json!(["redis", "web"])
    );
    assert_eq!(world.json("1..2 | each { |n| proc list web | get 0.name }"), json!(["web", "web"]));
    let rows = "[{port: 1, to: redis}] | each { |row| proc start $row.to | get 0.name }";
    assert_eq!(world.json(rows), json!(["redis"]));
}

fn nuon_files_are_parsed_by_nushell() {
    let world = World::good();
    world.file(
        "one.nuon",
        "{name: one, exec: [one --port 80] # a comment\n settle: 200ms, log: {max_size: 1MB}}",
    );
    world.file("two.nuon", "[[name, exec]; [two, [a]], [three, [b]]]");
    world.file("torn.nuon", "{name: web, exec: [");
    world.file("closure.nuon", "{name: web, exec: [{|| 1}]}");
    assert_eq!(world.json("proc register one.nuon"), json!([{ "name": "one", "change": "created" }]));
    let specs = "cd /; ['~/two.nuon' '~/one.nuon'] | proc register | get name";
    assert_eq!(world.json(specs), json!(["two", "three", "one"]));
    let sent: Vec<Json> =
        world.requests().into_iter().map(|request| request["params"]["spec"].clone()).collect();
    let spec = json!({ "name": "one", "exec": ["one", "--port", "80"], "settle": 200_000_000, "log": { "max_size": 1_000_000 } });
    assert_eq!(sent.first(), Some(&spec));
    for torn in ["torn.nuon", "closure.nuon"] {
        let error = world.error(&format!("proc register {torn}"));
        assert_eq!(error["details"]["code"], "proc::bad_spec");
        let message = error["msg"].as_str().unwrap();
        assert!(message.starts_with(&world.path(torn)) && message.contains("not NUON: "), "{message}");
    }
}

/// Up to 120 columns `table` drops columns from the right, whatever is said of them: the first ones are to be the keys.
fn key_columns_survive_a_narrow_terminal() {
    let world = World::good();
    let table = world.nu("proc socket-check | table --width 80").stdout;
    for part in ["service", "socket", "verdict", "dangling"] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
    let table = world.nu("proc list | table --width 60").stdout;
    for part in ["name", "status", "health_reason", "failed", "missing"] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
    let first = "proc list | metadata | get table_width_priority_columns";
    assert_eq!(world.json(first), json!(["name", "status", "health_reason"]));
    let table = world.nu("proc events | table --width 60").stdout;
    for part in ["time", "service", "kind", "detail", "verdict"] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
    let table = world.nu("proc logs web | table --width 60").stdout;
    for part in ["time", "stream", "line", "listening"] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
    let raw = "proc events --raw | lines | length";
    assert_eq!(world.json(raw), json!(2));
}

fn progress_is_silent_without_a_terminal() {
    let ran = World::with(Manner::Slow(3)).nu("proc restart redis | get 0.outcome");
    assert_eq!((ran.stdout.trim(), ran.stderr.as_str()), ("restarted", ""));
}

fn ctrl_c_ends_a_wait() {
    let world = World::with(Manner::Hang);
    let nu = world.start("proc restart redis");
    world.wait("the request", || !world.requests().is_empty());
    nu.interrupt();
    let ran = nu.ends_within(Duration::from_secs(2));
    assert!(ran.stderr.contains("cancelled"), "{}", ran.stderr);
}

fn ctrl_c_ends_each_stream() {
    for (source, streams) in [
        ("proc events --follow --raw", true),
        ("proc events --follow", true),
        ("proc events --follow | where kind == none", true),
        ("proc logs web --follow --raw", true),
        ("proc logs web --follow", true),
        ("proc logs web --follow --lines 0 | where line == none", true),
        ("proc socket-check --watch", true),
        ("proc socket-check ./a.sock --watch", false),
        ("proc socket-check web ./a.sock --watch", true),
        ("proc socket-check --system --watch", false),
    ] {
        let world = World::good();
        // Nushell's own tables wait for their rows: what is printed tells that the stream has begun.
        let mut nu = world.start(&format!("print begun; {source}"));
        let mut begun = [0; 6];
        nu.output().read_exact(&mut begun).unwrap();
        world.wait(source, || !streams || world.daemon().followers() == 1);
        nu.interrupt();
        let ran = nu.ends_within(Duration::from_secs(5));
        assert!(!ran.stderr.contains("panicked"), "{source}: {}", ran.stderr);
        world.wait(source, || world.daemon().followers() == 0);
    }
}

fn raw_lines_come_at_once() {
    let world = World::good();
    let mut nu = world.start("proc events --follow --raw --limit 1");
    let mut lines = BufReader::new(nu.output()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    assert!(first.contains("  web  verdict  rpc.sock ok -> dangling after 3min 2sec: "), "{first}");
    for status in ["starting", "running"] {
        world.daemon().emit(json!({ "time": "2026-01-02T03:04:06Z", "service": "web", "kind": "state",
            "detail": { "status": status } }));
        let line = lines.next().unwrap();
        assert!(line.ends_with(&format!("  web  state  {status}")), "{line}");
    }
}

fn a_reader_that_goes_lets_the_daemon_go() {
    let world = World::with(Manner::Live);
    for stream in [
        "proc events --follow",
        "proc events --follow --raw | lines",
        "proc logs web --follow",
        "proc logs redis --follow --raw | lines",
        "proc socket-check --watch",
    ] {
        let mut nu = world.start(&format!("{stream} | first 2 | length | print; sleep 1min"));
        let mut told = [0; 2];
        nu.output().read_exact(&mut told).unwrap();
        assert_eq!(&told, b"2\n");
        // No event happens any more, and the shell lives.
        world.wait("the plugin to hang up", || world.daemon().followers() == 0);
        nu.interrupt();
        nu.ends_within(Duration::from_secs(5));
    }
}

fn a_shell_that_goes_leaves_nothing_behind() {
    let world = World::good();
    let nu = world.start("proc events --follow");
    world.wait("the follower", || world.daemon().followers() == 1);
    let plugin = nu.children();
    assert!(!plugin.is_empty());
    // Killed, without a word to its plugin.
    drop(nu);
    world.wait("the plugin to hang up", || world.daemon().followers() == 0);
    world.wait("its end", || !plugin.iter().any(|pid| world::lives(*pid)));
}

fn the_daemons_end_is_read_from_details() {
    let world = World::good();
    for source in [
        "proc events --follow",
        "proc events --follow --raw",
        "proc logs web --follow",
        "proc logs web --follow --raw",
        "proc socket-check --watch",
    ] {
        let nu = world.start(&format!("try {{ let all = ({source}); $all }} catch {{|e| $e.details.code }}"));
        world.wait("the follower", || world.daemon().followers() == 1);
        world.daemon().end_streams();
        let ran = nu.ends_within(Duration::from_secs(5));
        assert_eq!(ran.stdout.lines().last(), Some("proc::no_daemon"), "{source}: {}", ran.stderr);
        world.wait("the follower's end", || world.daemon().followers() == 0);
    }
}

fn a_command_that_acts_starts_a_daemon() {
    let world = World::without_daemon("serve");
    assert_eq!(world.error("proc list")["details"]["code"], "proc::no_daemon");
    // The socket file of a daemon that died.
    drop(UnixListener::bind(world.home().join("rpc.sock")).unwrap());
    assert_eq!(world.error("proc list")["details"]["code"], "proc::no_daemon");
    std::fs::remove_file(world.home().join("rpc.sock")).unwrap();
    assert_eq!(world.json("proc start redis | get status"), json!(["running"]));
    assert_eq!(world.json("proc list | get name"), json!(["redis", "web"]));
    let home = world.path("");
    let told = world.told();
    assert_eq!(told["arguments"], json!(["run", "--detach"]));
    assert_eq!(told["folder"], "/");
    assert_eq!(told["SHIMD_HOME"], home.trim_end_matches('/'));
    assert_eq!(told["SECRET"], Json::Null);
    assert!(told["PATH"].as_str().unwrap().contains("/bin"));
}

fn a_pipe_is_not_held_by_the_daemon() {
    let world = World::without_daemon("serve");
    let mut nu = world.start("proc shim start | get version");
    // Until every writer has closed its end: the shell, the plugin, and whoever inherited it.
    let mut output = String::new();
    nu.output().read_to_string(&mut output).unwrap();
    assert_eq!(output.trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(world.json("proc list | length"), json!(2), "the daemon lives on");
    let mut errors = String::new();
    nu.errors().read_to_string(&mut errors).unwrap();
    assert_eq!(errors, "");
}

fn a_daemon_that_cannot_start_says_why() {
    let world = World::without_daemon("fail");
    let error = world.error("proc start redis");
    assert_eq!(error["details"]["code"], "proc::no_daemon");
    let message = error["msg"].as_str().unwrap();
    assert!(message.contains("exit status: 1") && message.contains("shimd: the store is full"), "{message}");
    assert!(error["details"]["help"].as_str().unwrap().contains("shimd.log"));
}

fn two_commands_at_once_share_a_daemon() {
    let world = World::without_daemon("serve");
    let both: Vec<_> = (0..2).map(|_| world.start("proc start redis | get 0.status")).collect();
    for nu in both {
        let ran = nu.ends_within(Duration::from_secs(30));
        assert!(ran.status.success(), "{}", ran.stderr);
        assert_eq!(ran.stdout.trim(), "running");
    }
}

fn a_stopped_daemon_is_gone() {
    let world = World::without_daemon("serve");
    // In one shell, so that its plugin is the daemon's parent: no zombie may look like a daemon that lives.
    let source = "proc shim start; let old = proc shim stop | get pid; \
                  let new = proc shim start | get pid; {old: ($old != $new), list: (proc list | length)}";
    assert_eq!(world.json(source), json!({ "old": true, "list": 2 }));
    world.nu("proc shim stop");
    assert_eq!(world.error("proc shim stop")["details"]["code"], "proc::no_daemon");
}
