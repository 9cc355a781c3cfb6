//! What a client may cost the others.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use shimd::server::Limits;
use shimd_api::rpc::code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Fixture, PATIENCE, Wire, error, hold, reached, request, soon};

const MIB: usize = 1 << 20;

/// A request of so many bytes, without its newline.
fn sized(length: usize) -> String {
    let around = request(1, "service.set", json!({"spec": ""})).len() - 1;
    let mut line = request(1, "service.set", json!({"spec": "x".repeat(length - around)}));
    line.pop();
    assert_eq!(line.len(), length);
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_mebibyte_passes_and_one_byte_more_does_not() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(sized(MIB) + "\n").await;
    assert_eq!(client.line().await["id"], 1);
    client.send(sized(MIB + 1) + "\n").await;
    let answer = client.line().await;
    assert_eq!((error(&answer), &answer["id"]), ((code::APP, "too_large"), &Value::Null));
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_far_too_much_still_gets_to_read_why() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(vec![b'['; 8 * MIB]).await;
    assert_eq!(error(&client.line().await).1, "too_large");
    client.shut().await;
    assert_eq!(client.rest().await, b"");

    let mut client = fixture.connect().await;
    client.send(format!("POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 8 * MIB)).await;
    client.send(vec![b'x'; 8 * MIB]).await;
    let (status, _, body) = client.http(false).await;
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((status, error(&body).1), (413, "too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_body_is_bounded_whether_its_length_is_told_or_not() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client
        .send(format!("POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n{}", sized(MIB)))
        .await;
    assert_eq!(client.http(false).await.0, 200);
    client.send("POST /rpc HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(format!("{:x}\r\n{}\r\n", MIB + 1, sized(MIB + 1))).await;
    assert_eq!(client.http(false).await.0, 413);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_more_than_there_are_seats_is_told_so_at_once() {
    // Seats that nobody gives up.
    let fixture = Fixture::start(Limits { seat: Duration::from_secs(3600), ..Limits::default() });
    let mut seated = Vec::new();
    for _ in 0..256 {
        seated.push(fixture.connect().await);
    }
    for client in seated.iter_mut().step_by(50) {
        client.ask(1, "shim.info", json!({})).await;
    }
    let began = Instant::now();
    let mut more = fixture.connect().await;
    more.send(request(1, "shim.info", json!({}))).await;
    assert_eq!(error(&more.line().await), (code::APP, "busy"));
    assert_eq!(more.rest().await, b"");

    let mut more = fixture.connect().await;
    more.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (status, _, body) = more.http(false).await;
    assert_eq!((status, error(&serde_json::from_slice(&body).expect("JSON")).1), (503, "busy"));

    let mut silent = fixture.connect().await;
    assert_eq!(error(&silent.line().await).1, "busy");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    drop(seated.pop());
    let served = async {
        loop {
            let mut client = fixture.connect().await;
            client.send(request(2, "shim.info", json!({}))).await;
            if client.line().await["id"] == 2 {
                return;
            }
        }
    };
    soon("a seat once one is free", served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_lock_nobody_out_and_busy_ones_keep_their_seats() {
    let fixture = Fixture::start(Limits { clients: 8, seat: Duration::ZERO, ..Limits::default() });
    let mut busy = fixture.connect().await;
    busy.send(hold(1)).await;
    reached(&fixture.handler.begun, 1).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(fixture.connect().await);
    }
    for start in ["{", "POST /rpc HTTP/1.1\r\nContent-Length: 10\r\n\r\n{", "  ", "GET"] {
        let mut unfinished = fixture.connect().await;
        unfinished.send(start).await;
        idle.push(unfinished);
    }
    for id in 0..50 {
        let mut client = fixture.connect().await;
        assert_eq!(client.ask(id, "shim.info", json!({})).await["id"], id);
        idle.push(client);
    }
    for mut evicted in idle.drain(..40) {
        assert_eq!(evicted.rest().await, b"");
    }
    fixture.handler.release();
    assert_eq!(busy.line().await["id"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_dropped_and_costs_nobody_anything() {
    let fixture = Fixture::start(Limits { write: Duration::from_secs(1), ..Limits::default() });
    let big = json!({"name": "big"});
    let mut lines = fixture.connect().await;
    lines.send(request(1, "service.status", big.clone())).await;
    let mut http = fixture.connect().await;
    let body = request(1, "service.status", big.clone());
    http.send(format!("POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    reached(&fixture.handler.ended, 2).await;

    let mut other = fixture.connect().await;
    assert_eq!(other.ask(2, "shim.info", json!({})).await["id"], 2);
    let whole = other.ask(3, "service.status", big).await;
    assert_eq!(whole["result"].as_str().map(str::len), Some(8 * MIB), "who reads gets all of it");

    for mut slow in [lines, http] {
        soon("the drop", hung_up(&slow)).await;
        let got = soon("what fitted the socket's buffer", read_what_is_left(&mut slow)).await;
        assert!(got < 8 * MIB, "{got}");
    }
}

async fn hung_up(client: &Wire) {
    loop {
        let ready = client.stream.ready(tokio::io::Interest::WRITABLE).await.expect("ready");
        if ready.is_write_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn read_what_is_left(client: &mut Wire) -> usize {
    let mut left = Vec::new();
    // The end may be a reset: the server closed with a request of ours answered in part.
    let _ = client.stream.read_to_end(&mut left).await;
    left.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_neither_protocol_ends_with_a_parse_error() {
    let fixture = Fixture::start(Limits::default());
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"\0", b"\xff\xfe", b"\"text\""] {
        let mut client = fixture.connect().await;
        client.send(garbage).await;
        assert_eq!(error(&client.line().await).0, code::PARSE, "{garbage:?}");
        assert_eq!(client.rest().await, b"");
    }
}

#[test]
fn any_bytes_get_an_end_and_break_nothing() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let guard = runtime.enter();
    let fixture = Fixture::start(Limits::default());
    let start = prop::sample::select(vec![
        "",
        "{",
        "[",
        " ",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"shim.info\"}\n",
        "POST /rpc HTTP/1.1\r\nContent-Length: 30\r\n\r\n",
        "POST /rpc HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /health HTTP/1.1\r\n",
    ]);
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "[{}\\[\\]\",:0-9a-z \n]{0,300}".prop_map(String::into_bytes),
    ];
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let result = runner.run(&(start, bytes), |(start, bytes)| {
        runtime.block_on(async {
            let sent = [start.as_bytes(), &bytes].concat();
            let mut client = fixture.connect().await;
            // A server that has said its last word takes no more: that is an end too.
            let _ = client.stream.write_all(&sent).await;
            let _ = client.stream.shutdown().await;
            let mut answer = Vec::new();
            let end = tokio::time::timeout(PATIENCE, client.stream.read_to_end(&mut answer)).await;
            prop_assert!(end.is_ok(), "no end to {:?}", sent);
            let answer = String::from_utf8_lossy(&answer);
            let json = || answer.lines().all(|line| serde_json::from_str::<Value>(line).is_ok());
            prop_assert!(answer.starts_with("HTTP/1.1 ") || json(), "{}", answer);
            let may_be_silent =
                sent.trim_ascii().is_empty() || sent.first().is_some_and(u8::is_ascii_alphabetic);
            prop_assert!(may_be_silent || !answer.is_empty(), "no word for {:?}", sent);
            Ok(())
        })
    });
    result.expect("no bytes are too much");
    runtime.block_on(async {
        let mut client = fixture.connect().await;
        assert_eq!(client.ask(1, "shim.info", json!({})).await["id"], 1);
    });
    drop(guard);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_refused_by_the_file_and_by_the_kernel_s_word() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: another_user_is_refused_by_the_file_and_by_the_kernel_s_word: not root");
        return;
    }
    let fixture = Fixture::start(Limits::default());
    let talk = |text: &'static str| {
        let path = fixture.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(10)\ns.connect(sys.argv[1])\n\
                s.sendall(sys.argv[2].encode())\nd=b''\nwhile True:\n  c=s.recv(4096)\n  d+=c\n  if not c: break\n\
                sys.stdout.buffer.write(d)";
            Command::new("python3").args(["-c", script]).arg(path).arg(text).uid(65534).gid(65534).output()
        })
    };
    let Ok(refused) = talk("{}\n").await.expect("no panic") else {
        eprintln!("skipped: another_user_is_refused_by_the_file_and_by_the_kernel_s_word: no python3");
        return;
    };
    assert!(String::from_utf8_lossy(&refused.stderr).contains("PermissionError"), "{refused:?}");

    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    open(fixture.path().parent().expect("a folder"), 0o755);
    open(fixture.path(), 0o666);
    let refused = talk("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"shim.info\"}\n").await.expect("no panic");
    let refused = refused.expect("python3 ran");
    let answer: Value = serde_json::from_slice(&refused.stdout).expect("one line of JSON");
    assert_eq!(error(&answer), (code::APP, "denied"), "{refused:?}");
    let refused =
        talk("GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("no panic").expect("python3 ran");
    assert!(refused.stdout.starts_with(b"HTTP/1.1 403 Forbidden\r\n"), "{refused:?}");
    assert_eq!(*fixture.handler.begun.borrow(), 0);
}
