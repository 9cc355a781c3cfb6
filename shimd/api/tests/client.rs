//! The client against servers that behave, and against those that do not: each ends in time and says what happened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::{Value, json};
use shimd_api::wire::Progress;
use shimd_api::{Client, ClientError, Follow};

/// Long enough for any machine, short enough to see that something hangs.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

/// A server of one connection, in a folder of its own; dropped, it is joined.
struct Server {
    folder: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("rpc.sock")
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket(), LONG).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let failed = self.thread.take().unwrap().join().is_err();
        assert!(!failed || std::thread::panicking(), "the server failed");
    }
}

fn serve(answer: impl FnOnce(UnixStream) + Send + 'static) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("rpc.sock")).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // Dead clients must not leave the thread behind.
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        answer(stream);
    });
    Server { folder, thread: Some(thread) }
}

/// A server that reads a request, and sends `text` for it, `ID` being the request's.
fn answer_with(text: &'static str) -> Server {
    serve(move |mut stream| {
        let id = request(&stream)["id"].to_string();
        let _ = stream.write_all(text.replace("ID", &id).as_bytes());
    })
}

fn request(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// Blocks until the client is gone.
fn wait_for_end(mut stream: &UnixStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
}

fn call(client: &mut Client, deadline: Duration) -> Result<Value, ClientError> {
    client.call("shim.info", json!({}), deadline, &mut |_| {}, &|| false)
}

#[test]
fn a_call_gives_the_result_and_the_connection_serves_the_next() {
    let server = serve(|mut stream| {
        for _ in 0..2 {
            let request = request(&stream);
            assert_eq!((&request["jsonrpc"], &request["method"]), (&json!("2.0"), &json!("shim.info")));
            let response = json!({"jsonrpc": "2.0", "id": request["id"], "result": request["params"]});
            writeln!(stream, "{response}").unwrap();
        }
    });
    let mut client = server.client();
    for params in [json!({"a": "line\nbreak"}), Value::Null] {
        let result = client.call("shim.info", params.clone(), LONG, &mut |_| {}, &|| false);
        assert_eq!(result, Ok(params));
    }
}

#[test]
fn an_error_of_the_daemon_comes_through_and_the_connection_lives() {
    let server = serve(|mut stream| {
        for _ in 0..2 {
            let id = request(&stream)["id"].clone();
            let error = json!({"code": -32000, "message": "no", "data": {"kind": "busy", "help": "wait"}});
            writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": id, "error": error})).unwrap();
        }
    });
    let mut client = server.client();
    for _ in 0..2 {
        let error = call(&mut client, LONG).unwrap_err();
        assert_eq!((error.kind(), error.to_string(), error.help()), ("busy", "no".into(), "wait".into()));
    }
}

#[test]
fn nobody_at_the_socket_is_no_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("rpc.sock");
    let errno = |socket: &Path| match Client::connect(socket, LONG).unwrap_err() {
        ClientError::NoDaemon { socket: named, errno } => {
            assert_eq!(named, socket);
            errno
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(errno(&socket), Errno::ENOENT);
    assert_eq!(errno(&folder.path().join("no/rpc.sock")), Errno::ENOENT);
    assert_eq!(errno(&folder.path().join("no").join("x".repeat(120)).join("rpc.sock")), Errno::ENOENT);
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(errno(&socket), Errno::ECONNREFUSED, "a dead daemon's leftover");
    assert_eq!(errno(&socket.join("rpc.sock")), Errno::ENOTDIR);
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "").unwrap();
    assert_eq!(errno(&socket), Errno::ECONNREFUSED, "a regular file");
}

#[test]
fn a_socket_of_another_type_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("rpc.sock");
    let _other = UnixDatagram::bind(&socket).unwrap();
    let error = Client::connect(&socket, LONG).unwrap_err();
    assert!(matches!(error, ClientError::Io { errno: Errno::EPROTOTYPE, .. }), "{error:?}");
}

#[test]
fn a_folder_that_keeps_us_out_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("rpc.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o000)).unwrap();
    let connect = || {
        // Root is kept out of nothing; a thread of root's can give that up (setfsuid(2)), and to others it is a no-op.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        Client::connect(&socket, LONG).unwrap_err()
    };
    let error = std::thread::scope(|scope| scope.spawn(connect).join().unwrap());
    assert!(matches!(error, ClientError::Denied { errno: Errno::EACCES, .. }), "{error:?}");
}

/// A listener whose queue is full, and the connections that fill it.
fn full(folder: &Path) -> (UnixListener, Vec<UnixStream>) {
    let listener = UnixListener::bind(folder.join("rpc.sock")).unwrap();
    // A second listen(2) sets the queue's size anew.
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let waiting = vec![UnixStream::connect(folder.join("rpc.sock")).unwrap()];
    (listener, waiting)
}

#[test]
fn a_full_queue_is_tried_until_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let (_listener, _waiting) = full(folder.path());
    let start = Instant::now();
    let error = Client::connect(&folder.path().join("rpc.sock"), SHORT).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { waited: SHORT, .. }), "{error:?}");
    assert!(start.elapsed() >= SHORT);
    let cancelled = AtomicBool::new(false);
    let gave_up = Client::connect_unless(&folder.path().join("rpc.sock"), LONG, &|| {
        cancelled.swap(true, Ordering::Relaxed)
    });
    assert_eq!(gave_up.unwrap_err(), ClientError::Cancelled);
}

#[test]
fn a_queue_with_room_again_is_entered() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, waiting) = full(folder.path());
    let accepted = std::cell::RefCell::new(Vec::new());
    // The first attempt finds the queue full; then one connection is accepted.
    let client = Client::connect_unless(&folder.path().join("rpc.sock"), LONG, &|| {
        if accepted.borrow().is_empty() {
            accepted.borrow_mut().push(listener.accept().unwrap());
        }
        false
    });
    assert!(client.is_ok() && accepted.borrow().len() == 1 && waiting.len() == 1);
}

#[test]
fn a_server_that_never_answers_times_out_and_is_not_asked_again() {
    let server = serve(|stream| wait_for_end(&stream));
    let mut client = server.client();
    let error = call(&mut client, SHORT).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    let socket = server.socket();
    assert_eq!(
        error.to_string(),
        format!("shimd at {} did not answer shim.info within 100ms", socket.display())
    );
    assert!(
        matches!(call(&mut client, LONG), Err(ClientError::Closed { .. })),
        "the late answer must not be the next's"
    );
}

#[test]
fn a_server_that_never_reads_times_out() {
    let server = serve(|stream| wait_for_end_of_time(&stream));
    let mut client = server.client();
    let large = json!({"specs": "x".repeat(2 << 20)});
    let error = client.call("service.set", large, SHORT, &mut |_| {}, &|| false).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}

/// Blocks, without reading, until the client is gone.
fn wait_for_end_of_time(stream: &UnixStream) {
    use std::os::fd::AsFd;
    let mut fds = [nix::poll::PollFd::new(stream.as_fd(), nix::poll::PollFlags::empty())];
    nix::poll::poll(&mut fds, nix::poll::PollTimeout::try_from(LONG).unwrap()).unwrap();
}

#[test]
fn a_server_that_hangs_up_is_closed() {
    for text in ["", "{\"jsonrpc\": \"2.0\", \"id\": ID, \"res"] {
        let server = answer_with(text);
        let error = call(&mut server.client(), LONG).unwrap_err();
        assert!(matches!(error, ClientError::Closed { .. }), "{text}: {error:?}");
    }
    let server = serve(drop);
    let mut client = server.client();
    let error = call(&mut client, LONG).unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error:?}");
}

#[test]
fn what_is_no_answer_is_a_protocol_error() {
    for (text, problem) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ("\n", "EOF while parsing"),
        ("[]\n", "[]"),
        ("\u{0}\u{7f}\n", "expected value"),
        ("{\"jsonrpc\":\"1.0\",\"id\":ID,\"result\":1}\n", "jsonrpc is \"1.0\""),
        ("{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":1}\n", "an answer to request 99"),
        ("{\"jsonrpc\":\"2.0\",\"id\":ID}\n", "neither a result nor an error"),
        ("{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":3}\n", "invalid type"),
    ] {
        let server = answer_with(text);
        let error = call(&mut server.client(), LONG).unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{text}: {error:?}");
        assert!(error.to_string().contains(problem), "{text}: {error}");
        assert_eq!(error.kind(), "version");
    }
}

#[test]
fn a_result_of_null_is_a_result() {
    let server = answer_with("{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":null}\n");
    assert_eq!(call(&mut server.client(), LONG), Ok(Value::Null));
}

#[test]
fn each_progress_renews_the_deadline() {
    let pause = Duration::from_millis(250);
    let server = serve(move |mut stream| {
        let id = request(&stream)["id"].clone();
        for elapsed in 0..9 {
            // The pause is the test's matter: together they are longer than the deadline.
            std::thread::sleep(pause);
            let params = json!({"services": [{"name": "web", "status": "starting"}], "elapsed": elapsed});
            writeln!(stream, "{}", json!({"jsonrpc": "2.0", "method": "progress", "params": params}))
                .unwrap();
        }
        writeln!(stream, "{}", json!({"jsonrpc": "2.0", "method": "news", "params": null})).unwrap();
        writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": id, "result": "up"})).unwrap();
    });
    let mut seen: Vec<i64> = Vec::new();
    let mut on_progress = |progress: Progress| seen.push(progress.elapsed);
    let deadline = pause * 8;
    let result = server.client().call("service.start", json!({}), deadline, &mut on_progress, &|| false);
    assert_eq!((result, seen), (Ok(json!("up")), (0..9).collect::<Vec<_>>()));
}

#[test]
fn other_notifications_do_not_renew_it() {
    let server = serve(|mut stream| {
        let _ = request(&stream);
        while writeln!(stream, "{{\"jsonrpc\":\"2.0\",\"method\":\"news\"}}").is_ok() {}
    });
    let mut client = server.client();
    let error = call(&mut client, SHORT).unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
    drop(client);
}

#[test]
fn a_call_is_cancelled_within_two_ticks() {
    let server = serve(|stream| wait_for_end(&stream));
    let mut client = server.client();
    let asked = std::cell::RefCell::new(Vec::new());
    let cancelled = || {
        asked.borrow_mut().push(Instant::now());
        asked.borrow().len() > 5
    };
    let result = client.call("shim.info", json!({}), LONG, &mut |_| {}, &cancelled);
    assert_eq!(result, Err(ClientError::Cancelled));
    let asked = asked.into_inner();
    // Told once per tick: five ticks, with room for a machine that is busy.
    assert!(asked[5] - asked[0] < Duration::from_secs(5), "{:?}", asked[5] - asked[0]);
}

#[test]
fn large_lines_pass_both_ways() {
    let server = serve(|mut stream| {
        let request = request(&stream);
        let response = json!({"jsonrpc": "2.0", "id": request["id"], "result": request["params"]});
        writeln!(stream, "{response}").unwrap();
    });
    let params = json!({"text": "x".repeat(2 << 20)});
    let result = server.client().call("echo", params.clone(), LONG, &mut |_| {}, &|| false);
    assert!(result == Ok(params));
}

#[test]
fn a_line_without_end_is_refused() {
    let server = serve(|mut stream| {
        let _ = request(&stream);
        let chunk = vec![b'x'; 1 << 20];
        while stream.write_all(&chunk).is_ok() {}
    });
    let mut client = server.client();
    let error = call(&mut client, LONG).unwrap_err();
    assert!(error.to_string().contains("a line of more than 67108864 bytes"), "{error}");
    drop(client);
}

#[test]
fn a_refusal_before_the_request_is_read_comes_through() {
    let server = serve(|mut stream| {
        // As a daemon refuses what is over its limit: the answer, then the end, with most of the request unread.
        let error = json!({"code": -32000, "message": "too large", "data": {"kind": "too_large"}});
        writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": null, "error": error})).unwrap();
        wait_for_end_of_time(&stream);
    });
    let mut client = server.client();
    let large = json!({"specs": "x".repeat(2 << 20)});
    let error = client.call("service.set", large, LONG, &mut |_| {}, &|| false).unwrap_err();
    assert_eq!(error.kind(), "too_large");
    assert!(
        matches!(call(&mut client, LONG), Err(ClientError::Closed { .. })),
        "the rest of the request is not sent"
    );
    drop(client);
}

#[test]
fn a_path_too_long_for_an_address_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    // Bound by a short name and moved, for bind(2) has the same limit.
    let listener = UnixListener::bind(folder.path().join("rpc.sock")).unwrap();
    std::fs::rename(folder.path().join("rpc.sock"), long.join("rpc.sock")).unwrap();
    let _client = Client::connect(&long.join("rpc.sock"), LONG).unwrap();
    listener.accept().unwrap();
}

/// A notification of stream `id`, as a line.
fn told(stream: &mut UnixStream, id: &Value, method: &str, event: u64) {
    let params = json!({"id": event, "kind": "state", "stream": id});
    writeln!(stream, "{}", json!({"jsonrpc": "2.0", "method": method, "params": params})).unwrap();
}

/// A server that answers a request to follow, and goes on as `then` says, with the request's id.
fn stream_with(then: impl FnOnce(&mut UnixStream, Value) + Send + 'static) -> Server {
    serve(move |mut stream| {
        let request = request(&stream);
        assert_eq!(request["method"], "event.follow");
        let id = request["id"].clone();
        writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": id, "result": request["params"]["past"]}))
            .unwrap();
        then(&mut stream, id);
    })
}

fn follow(client: Client) -> (Value, Follow) {
    client.follow("event.follow", json!({"past": [{"id": 1}]}), LONG, &|| false).unwrap()
}

#[test]
fn a_stream_gives_its_result_then_each_event_then_its_end() {
    let server = stream_with(|stream, id| {
        // All at once: with the result's own bytes, or after them.
        told(stream, &id, "event", 2);
        told(stream, &json!("another"), "event", 3);
        told(stream, &id, "news", 4);
        writeln!(stream, "{{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":null}}").unwrap();
        told(stream, &id, "event", 5);
        told(stream, &json!("another"), "end", 6);
        told(stream, &id, "end", 7);
        wait_for_end(stream);
    });
    let (past, mut events) = follow(server.client());
    assert_eq!(past, json!([{"id": 1}]));
    for id in [2, 5] {
        assert_eq!(events.next(&|| false), Ok(Some(json!({"id": id, "kind": "state"}))));
    }
    for _ in 0..2 {
        assert_eq!(events.next(&|| false), Ok(None));
    }
    drop(events);
}

#[test]
fn a_call_before_a_stream_leaves_its_id_the_stream_s_own() {
    let server = serve(|mut stream| {
        for event in [8, 9] {
            let id = request(&stream)["id"].clone();
            writeln!(stream, "{}", json!({"jsonrpc": "2.0", "id": id, "result": []})).unwrap();
            told(&mut stream, &id, "event", event);
        }
    });
    let mut client = server.client();
    assert_eq!(call(&mut client, LONG), Ok(json!([])));
    let (_, mut events) = follow(client);
    assert_eq!(events.next(&|| false), Ok(Some(json!({"id": 9, "kind": "state"}))), "8 is not the stream's");
}

#[test]
fn a_daemon_that_dies_in_a_stream_is_told_after_what_it_sent() {
    let server = stream_with(|stream, id| {
        told(stream, &id, "event", 2);
        let _ = stream.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"ev");
    });
    let (_, mut events) = follow(server.client());
    assert!(events.next(&|| false).unwrap().is_some());
    for _ in 0..2 {
        let error = events.next(&|| false).unwrap_err();
        assert!(matches!(error, ClientError::Closed { .. }), "{error:?}");
        assert!(error.to_string().ends_with("hung up in the midst of event.follow"), "{error}");
    }
}

#[test]
fn a_stream_waits_without_a_deadline_until_cancelled_and_loses_nothing() {
    let (go, gone) = std::sync::mpsc::channel();
    let server = stream_with(move |stream, id| {
        gone.recv().unwrap();
        told(stream, &id, "event", 2);
        wait_for_end(stream);
    });
    let client = server.client();
    let (_, mut events) = client.follow("event.follow", json!({}), SHORT, &|| false).unwrap();
    let start = Instant::now();
    // Longer than the deadline of the answer.
    let asked = std::cell::RefCell::new(Vec::new());
    let cancelled = || {
        asked.borrow_mut().push(Instant::now());
        start.elapsed() > SHORT * 3
    };
    assert_eq!(events.next(&cancelled), Err(ClientError::Cancelled));
    let asked = asked.into_inner();
    assert!(asked.len() >= 10, "asked every 20 ms, with room for a machine that is busy: {}", asked.len());
    go.send(()).unwrap();
    assert_eq!(events.next(&|| false), Ok(Some(json!({"id": 2, "kind": "state"}))));
    drop(events);
}

#[test]
fn a_refused_stream_is_the_daemon_s_error_and_what_is_no_event_a_protocol_error() {
    let server = answer_with(
        "{\"jsonrpc\":\"2.0\",\"id\":ID,\"error\":{\"code\":-32000,\"message\":\"no\",\"data\":{\"kind\":\"busy\"}}}\n",
    );
    let refused = server.client().follow("event.follow", json!({}), LONG, &|| false).unwrap_err();
    assert_eq!(refused.kind(), "busy");
    for text in ["garbage\n", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[]}\n"] {
        let server = stream_with(move |stream, _| stream.write_all(text.as_bytes()).unwrap());
        let (_, mut events) = follow(server.client());
        let error = events.next(&|| false).unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{text}: {error:?}");
    }
}
