//! Specs from JSON: what is filled in, what is refused and how it is said, and where sockets lie.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Tests.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use shimd_api::place::generation_of;
use shimd_api::spec::{
    Log, OnMissing, Ready, Restart, RestartPolicy, SocketKind, SocketMode, SocketSpec, Spec, SpecError, Stop,
};

const ROOT: &str = "/srv/sockets";

fn parse(value: Value) -> Result<Spec, SpecError> {
    Spec::parse(&value.to_string())
}

/// A spec with these fields besides `name` and `exec`.
fn with(fields: Value) -> Value {
    let mut spec = json!({"name": "web", "exec": ["server"]});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

fn socket(path: &str) -> SocketSpec {
    SocketSpec {
        path: path.into(),
        kind: SocketKind::Stream,
        mode: SocketMode::Bind,
        optional: false,
        clients: vec![],
        backlog: None,
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let spec = Spec {
        name: "web".into(),
        exec: vec!["server".into()],
        cwd: None,
        env: [].into(),
        user: None,
        group: None,
        umask: None,
        sockets: vec![],
        kill_other: vec![],
        ready: Ready { timeout: Duration::from_secs(30), marker: None, notify: false },
        stop: Stop { signal: 15, timeout: Duration::from_secs(10) },
        restart: Restart {
            policy: RestartPolicy::OnFailure,
            delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            limit: 5,
            window: Duration::from_secs(60),
        },
        on_missing: OnMissing::Relink,
        settle: Duration::from_millis(100),
        depends_on: vec![],
        log: Log { max_size: 10_000_000, keep: 3 },
        autostart: None,
        wedged_after: Duration::from_secs(5),
    };
    assert_eq!(spec.ready.marker_name(), ".ready");
    assert_eq!(parse(with(json!({}))).as_ref(), Ok(&spec));
    let null = json!({
        "cwd": null, "env": null, "user": null, "group": null, "umask": null, "sockets": null, "kill_other": null,
        "ready": null, "stop": null, "restart": null, "on_missing": null, "settle": null, "depends_on": null,
        "log": null, "autostart": null, "wedged_after": null,
    });
    assert_eq!(parse(with(null)).as_ref(), Ok(&spec), "null means the default");
    let inner = json!({
        "ready": {"timeout": null, "marker": null, "notify": null}, "stop": {"signal": null, "timeout": null},
        "restart": {"policy": null, "delay": null, "max_delay": null, "limit": null, "window": null},
        "log": {"max_size": null, "keep": null}, "kill_other": {"socket": null}, "env": {"A": null},
    });
    assert_eq!(parse(with(inner)).as_ref(), Ok(&spec), "null inside a record too");
    let empty = json!({"ready": {}, "stop": {}, "restart": {}, "log": {}, "kill_other": {}, "env": {}, "sockets": []});
    assert_eq!(parse(with(empty)).as_ref(), Ok(&spec));
}

#[test]
fn every_field_is_read() {
    let spec = parse(json!({
        "name": "a.b_c-9", "exec": ["/bin/server", "--socket={socket:rpc.sock}", ""], "cwd": "/srv",
        "env": {"MODE": "x", "EMPTY": ""}, "user": "www-data", "group": 33, "umask": "027",
        "sockets": ["rpc.sock", {"path": "/run/x/log.sock", "type": "dgram", "mode": "activate", "optional": true,
            "clients": ["alice", 1000], "backlog": 64}, {"path": "@bus", "type": "seqpacket"}],
        "kill_other": {"socket": ["rpc.sock", "/run/old.sock"]},
        "ready": {"timeout": 5_000_000_000u64, "marker": "up", "notify": true},
        "stop": {"signal": "INT", "timeout": "0sec"},
        "restart": {"policy": "always", "delay": "1sec", "max_delay": "1min", "limit": 2, "window": "10min"},
        "on_missing": "report", "settle": 0, "depends_on": ["db", "cache", "db"],
        "log": {"max_size": "1MiB", "keep": 0}, "autostart": false, "wedged_after": "500ms",
    }));
    let expected = Spec {
        name: "a.b_c-9".into(),
        exec: vec!["/bin/server".into(), "--socket={socket:rpc.sock}".into(), "".into()],
        cwd: Some("/srv".into()),
        env: [("MODE".into(), "x".into()), ("EMPTY".into(), "".into())].into(),
        user: Some("www-data".into()),
        group: Some("33".into()),
        umask: Some(0o027),
        sockets: vec![
            socket("rpc.sock"),
            SocketSpec {
                kind: SocketKind::Dgram,
                mode: SocketMode::Activate,
                optional: true,
                clients: vec!["alice".into(), "1000".into()],
                backlog: Some(64),
                ..socket("/run/x/log.sock")
            },
            SocketSpec { kind: SocketKind::Seqpacket, ..socket("@bus") },
        ],
        kill_other: vec!["rpc.sock".into(), "/run/old.sock".into()],
        ready: Ready { timeout: Duration::from_secs(5), marker: Some("up".into()), notify: true },
        stop: Stop { signal: 2, timeout: Duration::ZERO },
        restart: Restart {
            policy: RestartPolicy::Always,
            delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            limit: 2,
            window: Duration::from_secs(600),
        },
        on_missing: OnMissing::Report,
        settle: Duration::ZERO,
        depends_on: vec!["db".into(), "cache".into()],
        log: Log { max_size: 1_048_576, keep: 0 },
        autostart: Some(false),
        wedged_after: Duration::from_millis(500),
    };
    assert_eq!(spec, Ok(expected));
}

#[test]
fn a_hero_spec_works_unchanged() {
    let spec = parse(json!({
        "name": "hero_books", "exec": ["hero_books", "serve"],
        "sockets": ["rpc.sock", "ui.sock"],
        "kill_other": {"socket": ["rpc.sock", "ui.sock"], "port": [9988], "process_filters": ["hero_books"]},
        "health_checks": [{"http": {"url": "x"}}], "description": "books",
    }))
    .unwrap();
    let paths: Vec<PathBuf> = spec.sockets.iter().map(|s| spec.socket_path(Path::new(ROOT), s)).collect();
    assert_eq!(
        paths,
        [Path::new("/srv/sockets/hero_books/rpc.sock"), Path::new("/srv/sockets/hero_books/ui.sock")]
    );
    assert_eq!(spec.kill_other_paths(Path::new(ROOT)), paths);
    assert_eq!(spec.check_placed(Path::new(ROOT)), Ok(()));
}

#[test]
fn signals_have_names_and_numbers() {
    for (signal, number) in [
        (json!("SIGTERM"), 15),
        (json!("TERM"), 15),
        (json!("term"), 15),
        (json!("15"), 15),
        (json!(15), 15),
        (json!("SIGRTMIN"), libc::SIGRTMIN()),
        (json!("RTMIN+3"), libc::SIGRTMIN() + 3),
        (json!("SIGRTMAX-1"), libc::SIGRTMAX() - 1),
        (json!(libc::SIGRTMAX()), libc::SIGRTMAX()),
    ] {
        let spec = parse(with(json!({"stop": {"signal": signal}})));
        assert_eq!(spec.map(|spec| spec.stop.signal), Ok(number), "{signal}");
    }
}

#[test]
fn a_umask_is_octal_in_a_string_and_itself_as_a_number() {
    for (umask, value) in [
        (json!("027"), 0o27),
        (json!("0o27"), 0o27),
        (json!("0"), 0),
        (json!(0o027), 0o27),
        (json!(511), 0o777),
    ] {
        assert_eq!(parse(with(json!({"umask": umask}))).map(|spec| spec.umask), Ok(Some(value)), "{umask}");
    }
}

#[test]
fn delays_follow_one_another() {
    let delays = |restart: Value| {
        parse(with(json!({"restart": restart}))).map(|s| (s.restart.delay, s.restart.max_delay))
    };
    let minute = Duration::from_secs(60);
    assert_eq!(
        delays(json!({"delay": "1min"})),
        Ok((minute, minute)),
        "the longest pause is not under the first"
    );
    let short = Duration::from_millis(5);
    assert_eq!(delays(json!({"max_delay": "5ms"})), Ok((short, short)));
}

#[test]
fn each_wrong_field_is_named_with_what_was_found() {
    let long = "x".repeat(65);
    for (fields, field, problem) in [
        (json!({"name": null}), "name", "is missing"),
        (json!({"name": ""}), "name", "is empty"),
        (json!({"name": "a/b"}), "name", "\"a/b\" holds a `/`"),
        (json!({"name": ".a"}), "name", "\".a\" does not begin with a letter or digit"),
        (json!({"name": "a b"}), "name", "\"a b\" holds ' '"),
        (json!({"name": "é"}), "name", "\"é\" does not begin with a letter or digit"),
        (json!({"name": long}), "name", "is 65 bytes long, the limit is 64"),
        (json!({"name": 5}), "name", "is a number (5), not a string"),
        (json!({"exec": null}), "exec", "is missing"),
        (json!({"exec": []}), "exec", "is empty"),
        (json!({"exec": ["", "x"]}), "exec[0]", "is empty"),
        (json!({"exec": "redis-server"}), "exec", "is a string (\"redis-server\"), not a list"),
        (json!({"exec": ["a", 6379]}), "exec[1]", "is a number (6379), not a string"),
        (json!({"exec": ["a", null]}), "exec[1]", "is null, not a string"),
        (json!({"exec": ["a", "b\0"]}), "exec[1]", "holds a NUL byte"),
        (json!({"cwd": "srv"}), "cwd", "\"srv\" is a relative path"),
        (json!({"cwd": "~/srv"}), "cwd", "\"~/srv\" is a relative path"),
        (json!({"cwd": ["/srv"]}), "cwd", "is a list, not a string"),
        (json!({"env": ["A=b"]}), "env", "is a list, not a record"),
        (json!({"env": {"A": 1}}), "env.A", "is a number (1), not a string"),
        (json!({"env": {"A=B": "1"}}), "env.A=B", "is no name of a variable"),
        (json!({"user": ""}), "user", "is empty"),
        (json!({"user": -1}), "user", "is a number (-1), not a string"),
        (json!({"group": {}}), "group", "is a record, not a string"),
        (json!({"umask": "028"}), "umask", "\"028\" is no file mode mask"),
        (json!({"umask": ""}), "umask", "\"\" is no file mode mask"),
        (json!({"umask": "1000"}), "umask", "\"1000\" is out of range"),
        (json!({"umask": 512}), "umask", "512 is out of range"),
        (json!({"umask": -1}), "umask", "-1 is out of range"),
        (json!({"umask": true}), "umask", "is a boolean (true)"),
        (json!({"sockets": "rpc.sock"}), "sockets", "is a string (\"rpc.sock\"), not a list"),
        (json!({"sockets": ["a", 3]}), "sockets[1]", "is a number (3), not a socket"),
        (json!({"sockets": [{}]}), "sockets[0].path", "is missing"),
        (json!({"sockets": [""]}), "sockets[0].path", "is empty"),
        (
            json!({"sockets": ["run/a.sock"]}),
            "sockets[0].path",
            "\"run/a.sock\" is neither a file name nor an absolute path",
        ),
        (json!({"sockets": ["a", {"path": "./a"}]}), "sockets[1].path", "\"./a\" goes through `.` or `..`"),
        (json!({"sockets": ["."]}), "sockets[0].path", "\".\" is a folder"),
        (json!({"sockets": [".."]}), "sockets[0].path", "\"..\" is a folder"),
        (json!({"sockets": ["/run/../a"]}), "sockets[0].path", "\"/run/../a\" goes through `.` or `..`"),
        (json!({"sockets": ["/run/a/"]}), "sockets[0].path", "\"/run/a/\" is a folder: it ends in `/`"),
        (json!({"sockets": ["@"]}), "sockets[0].path", "names no abstract socket"),
        (json!({"sockets": ["a\0b"]}), "sockets[0].path", "holds a NUL byte"),
        (
            json!({"sockets": ["a", {"path": "a"}]}),
            "sockets[1].path",
            "\"a\" is declared twice (sockets[0] is the same)",
        ),
        (
            json!({"sockets": ["/r/a", "/r//a"]}),
            "sockets[1].path",
            "\"/r//a\" is declared twice (sockets[0] is the same)",
        ),
        (json!({"sockets": [{"path": "a", "type": "raw"}]}), "sockets[0].type", "\"raw\" is unknown"),
        (json!({"sockets": [{"path": "a", "type": 1}]}), "sockets[0].type", "is a number (1), not a string"),
        (json!({"sockets": [{"path": "a", "mode": "listen"}]}), "sockets[0].mode", "\"listen\" is unknown"),
        (
            json!({"sockets": [{"path": "@a", "mode": "publish"}]}),
            "sockets[0].mode",
            "publish needs a file name",
        ),
        (
            json!({"sockets": [{"path": "a", "optional": "no"}]}),
            "sockets[0].optional",
            "is a string (\"no\"), not true or false",
        ),
        (
            json!({"sockets": [{"path": "a", "clients": "bob"}]}),
            "sockets[0].clients",
            "is a string (\"bob\"), not a list",
        ),
        (json!({"sockets": [{"path": "a", "clients": ["bob", ""]}]}), "sockets[0].clients[1]", "is empty"),
        (json!({"sockets": [{"path": "a", "backlog": -1}]}), "sockets[0].backlog", "-1 is out of range"),
        (
            json!({"sockets": [{"path": "a", "backlog": 1.5}]}),
            "sockets[0].backlog",
            "1.5 is not a whole number",
        ),
        (json!({"kill_other": ["a"]}), "kill_other", "is a list, not a record"),
        (json!({"kill_other": {"socket": "a"}}), "kill_other.socket", "is a string (\"a\"), not a list"),
        (
            json!({"kill_other": {"socket": ["a/b"]}}),
            "kill_other.socket[0]",
            "\"a/b\" is neither a file name nor an absolute path",
        ),
        (json!({"ready": "notify"}), "ready", "is a string (\"notify\"), not a record"),
        (json!({"ready": {"timeout": "-5sec"}}), "ready.timeout", "\"-5sec\" is negative"),
        (json!({"ready": {"timeout": 0}}), "ready.timeout", "is zero"),
        (json!({"ready": {"marker": "a/b"}}), "ready.marker", "\"a/b\" is no file name"),
        (json!({"ready": {"marker": ".."}}), "ready.marker", "\"..\" is no file name"),
        (json!({"ready": {"notify": 1}}), "ready.notify", "is a number (1), not true or false"),
        (json!({"stop": {"signal": "SIGNOPE"}}), "stop.signal", "\"SIGNOPE\" is no signal"),
        (json!({"stop": {"signal": 0}}), "stop.signal", "0 is no signal"),
        (json!({"stop": {"signal": 32}}), "stop.signal", "32 is no signal"),
        (json!({"stop": {"signal": "RTMIN+99"}}), "stop.signal", "\"RTMIN+99\" is no signal"),
        (json!({"stop": {"signal": []}}), "stop.signal", "is a list, not a signal"),
        (json!({"stop": {"timeout": "10"}}), "stop.timeout", "\"10\" has no unit after 10"),
        (json!({"restart": {"policy": "sometimes"}}), "restart.policy", "\"sometimes\" is unknown"),
        (json!({"restart": {"delay": "soon"}}), "restart.delay", "\"soon\" is not a duration"),
        (json!({"restart": {"delay": -1}}), "restart.delay", "-1 is negative"),
        (
            json!({"restart": {"delay": "2sec", "max_delay": "1sec"}}),
            "restart.max_delay",
            "is shorter than restart.delay",
        ),
        (json!({"restart": {"limit": 0}}), "restart.limit", "0 is out of range"),
        (json!({"restart": {"limit": 4_294_967_296u64}}), "restart.limit", "4294967296 is out of range"),
        (json!({"restart": {"window": {}}}), "restart.window", "is a record, not a duration"),
        (json!({"on_missing": "panic"}), "on_missing", "\"panic\" is unknown"),
        (json!({"settle": 0.5}), "settle", "0.5 is not a whole number of nanoseconds"),
        (json!({"depends_on": "db"}), "depends_on", "is a string (\"db\"), not a list"),
        (json!({"depends_on": ["db", "a/b"]}), "depends_on[1]", "\"a/b\" holds a `/`"),
        (json!({"depends_on": ["db", "web"]}), "depends_on[1]", "\"web\" is the service itself"),
        (json!({"log": {"max_size": "10"}}), "log.max_size", "\"10\" has no unit"),
        (json!({"log": {"max_size": 0}}), "log.max_size", "is zero"),
        (json!({"log": {"keep": -1}}), "log.keep", "-1 is out of range"),
        (json!({"autostart": "yes"}), "autostart", "is a string (\"yes\"), not true or false"),
        (
            json!({"wedged_after": "5 parsecs"}),
            "wedged_after",
            "\"5 parsecs\" has an unknown unit \"parsecs\"",
        ),
    ] {
        let error = parse(with(fields.clone())).expect_err(&fields.to_string());
        assert_eq!(error.field, field, "{error}");
        assert!(error.problem.starts_with(problem), "{fields}: {error}");
        assert!(!error.fix.is_empty(), "{error}");
    }
}

#[test]
fn what_is_no_record_is_refused_as_a_whole() {
    for (text, problem) in [
        ("", "is not JSON: EOF while parsing a value at line 1 column 0"),
        ("{\"name\": \"web\",\n \"exec\": [,]}", "is not JSON: expected value at line 2 column 11"),
        ("{\"name\": \"web\"} x", "is not JSON: trailing characters at line 1 column 17"),
        ("{name: web}", "is not JSON: key must be a string at line 1 column 2"),
        ("[]", "is a list, not a record"),
        ("null", "is null, not a record"),
        ("\"web\"", "is a string (\"web\"), not a record"),
    ] {
        let error = Spec::parse(text).expect_err(text);
        assert_eq!((error.field.as_str(), error.problem.as_str()), ("spec", problem), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(Spec::parse(&deep).expect_err("deep").problem.contains("recursion limit"));
}

#[test]
fn an_error_reads_as_a_sentence() {
    let error = parse(with(json!({"exec": ["redis-server", "--port", 6379]}))).unwrap_err();
    assert_eq!(error.to_string(), "exec[2]: is a number (6379), not a string; write it in quotes: \"6379\"");
}

fn placed(fields: Value) -> Spec {
    parse(with(fields)).unwrap()
}

#[test]
fn sockets_lie_where_the_contract_says() {
    let root = Path::new(ROOT);
    for (sockets, folder) in [
        (json!([]), "/srv/sockets/web"),
        (json!(["a"]), "/srv/sockets/web"),
        (json!(["@a"]), "/srv/sockets/web"),
        (json!(["/run/x/a", "b"]), "/srv/sockets/web"),
        (json!(["@a", "/run//x/a", "/run/y/b"]), "/run/x"),
    ] {
        let spec = placed(json!({"sockets": sockets, "ready": {"marker": "up"}}));
        assert_eq!(spec.socket_dir(root), Path::new(folder), "{sockets}");
        assert_eq!(spec.marker_path(root), Path::new(folder).join("up"), "{sockets}");
    }
    let spec = placed(json!({"sockets": ["a", "/run//x/a", "@a"]}));
    let paths: Vec<String> =
        spec.sockets.iter().map(|s| spec.socket_path(root, s).to_str().unwrap().to_string()).collect();
    assert_eq!(paths, ["/srv/sockets/web/a", "/run/x/a", "@a"], "one spelling a file");
}

#[test]
fn placeholders_become_paths_and_other_braces_stay() {
    let root = Path::new(ROOT);
    let spec = placed(json!({
        "exec": ["server", "unix:{socket:a.sock},{socket:/run/x/b.sock}", "{socket:b.sock}", "{socket_dir}/{x}", "{socket}", "{socket:@bus}"],
        "env": {"LISTEN": "{socket:a.sock}", "{socket_dir}": "{}"},
        "sockets": ["a.sock", "/run/x/b.sock", "@bus"],
    }));
    assert_eq!(
        spec.argv(root, 1).unwrap(),
        [
            "server",
            "unix:/srv/sockets/web/a.sock,/run/x/b.sock",
            "/run/x/b.sock",
            "/srv/sockets/web/{x}",
            "{socket}",
            "@bus"
        ]
    );
    let env =
        [("LISTEN".into(), "/srv/sockets/web/a.sock".into()), ("{socket_dir}".into(), "{}".into())].into();
    assert_eq!(spec.environment(root, 1), Ok(env));
    assert_eq!(spec.check_placed(root), Ok(()));
}

#[test]
fn a_spec_that_does_not_fit_its_place_is_refused() {
    let root = Path::new(ROOT);
    let long = "s".repeat(100);
    for (fields, error) in [
        (
            json!({"sockets": ["a", long]}),
            format!(
                "sockets[1].path: /srv/sockets/web/{long} is 117 bytes long, the limit is 107; use a shorter file name \
                 or service name, or set HERO_SOCKET_DIR to a shorter folder"
            ),
        ),
        (
            json!({"sockets": [format!("/run/abc/{long}")]}),
            format!("sockets[0].path: /run/abc/{long} is 109 bytes long, the limit is 107; use a shorter path"),
        ),
        (
            json!({"sockets": ["a", "/srv/sockets/web/a"]}),
            "sockets[1].path: /srv/sockets/web/a is declared twice (sockets[0] is the same); leave one of them out".into(),
        ),
        (
            json!({"sockets": ["a"], "ready": {"marker": "a"}}),
            "ready.marker: /srv/sockets/web/a is a declared socket too; write another file name".into(),
        ),
        (
            json!({"sockets": ["a", "/b"], "exec": ["x", "{socket:c}"]}),
            "exec[1]: {socket:c} names no declared socket; declare it in sockets, or name a declared one: a, /b".into(),
        ),
        (
            json!({"env": {"S": "{socket:c}"}}),
            "env.S: {socket:c} names no declared socket; declare it in sockets (none is declared)".into(),
        ),
        (
            json!({"sockets": ["/a/s", "/b/s"], "exec": ["{socket:s}"]}),
            "exec[0]: {socket:s} could be more than one declared socket; write its whole path: /a/s, /b/s".into(),
        ),
        (
            json!({"sockets": ["s"], "exec": ["{socket:s"]}),
            "exec[0]: \"{socket:s\" has a {socket: without its closing brace; write {socket:NAME}".into(),
        ),
    ] {
        assert_eq!(placed(fields).check_placed(root).unwrap_err().to_string(), error);
    }
    let publish = |path: &str, exec: &str| {
        placed(json!({"sockets": [{"path": path, "mode": "publish"}], "exec": [exec]}))
    };
    assert_eq!(
        publish("s", "{socket_dir}").check_placed(root).unwrap_err().to_string(),
        "sockets[0].mode: each instance binds s at a path of its own, and nothing tells it which; write {socket:s} in \
         exec or env, where the program takes the path"
    );
    let long = "s".repeat(95 - "/srv/sockets/web/".len());
    assert_eq!(publish(&long, "{socket:L}".replace('L', &long).as_str()).check_placed(root), Ok(()));
    let longer = format!("{long}s");
    let error = publish(&longer, &format!("{{socket:{longer}}}")).check_placed(root).unwrap_err();
    assert!(error.to_string().contains("96 bytes long, the limit of a publish socket is 95"), "{error}");
    let fits = "s".repeat(107 - "/srv/sockets/web/".len());
    assert_eq!(
        placed(json!({"sockets": [fits, format!("@{}", "b".repeat(107))]})).check_placed(root),
        Ok(())
    );
}

#[test]
fn each_generation_has_a_path_of_its_own_for_a_publish_socket() {
    let root = Path::new(ROOT);
    let spec = placed(json!({
        "exec": ["server", "unix:{socket:a.sock}", "{socket:b}"],
        "env": {"LISTEN": "{socket:a.sock}"},
        "sockets": [{"path": "a.sock", "mode": "publish"}, "b"],
    }));
    assert_eq!(
        spec.argv(root, 17).unwrap(),
        ["server", "unix:/srv/sockets/web/.a.sock.17", "/srv/sockets/web/b"]
    );
    let env = [("LISTEN".into(), "/srv/sockets/web/.a.sock.17".into())].into();
    assert_eq!(spec.environment(root, 17), Ok(env));
    assert_eq!(spec.check_placed(root), Ok(()));
    let public = spec.socket_path(root, &spec.sockets[0]);
    let of = |name: &str| generation_of(&public, std::ffi::OsStr::new(name));
    assert_eq!(of(".a.sock.17"), Some(17));
    for other in ["a.sock", ".a.sock", ".a.sock.", ".a.sock.x", ".a.sock.017", ".a.sock.+1", ".b.sock.1"] {
        assert_eq!(of(other), None, "{other}");
    }
}
