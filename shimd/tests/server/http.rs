//! HTTP/1.1.

use serde_json::{Value, json};
use shimd::server::Limits;
use shimd_api::rpc::code;

use crate::support::{Fixture, Wire, error, hold, reached, request};

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("a JSON body")
}

fn post(body: &str) -> String {
    format!(
        "POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn get(client: &mut Wire, path: &str) -> (u16, String, Vec<u8>) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    client.http(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_every_path_in_turn() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;

    client.send(post(&request(1, "shim.info", json!({})))).await;
    let (status, head, body) = client.http(false).await;
    assert_eq!((status, &parsed(&body)["id"]), (200, &json!(1)));
    assert!(head.contains("content-type: application/json\r\n"), "{head}");

    let (status, _, body) = get(&mut client, "/openrpc.json").await;
    assert_eq!((status, &parsed(&body)["info"]["title"]), (200, &json!("shimd")));

    let (status, _, body) = get(&mut client, "/health").await;
    assert_eq!((status, parsed(&body)), (200, json!({"status": "ok", "services": 3})));

    let (status, head, body) = get(&mut client, "/metrics").await;
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(body.ends_with(b"# EOF\n"));

    let (status, _, body) = get(&mut client, "/.well-known/heroservice.json").await;
    let manifest = parsed(&body);
    assert_eq!((status, &manifest["name"], &manifest["protocol"]), (200, &json!("shimd"), &json!("openrpc")));
    for link in ["openrpc", "health"] {
        let path = manifest[link].as_str().expect("a path");
        assert_eq!(get(&mut client, path).await.0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_gives_the_head_alone() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    for path in ["/health", "/metrics", "/openrpc.json", "/.well-known/heroservice.json"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let (status, head, _) = client.http(true).await;
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("content-length: ") && !head.contains("content-length: 0"), "{head}");
    }
    assert_eq!(get(&mut client, "/health").await.0, 200, "nothing was left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_says_what_is() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let (status, _, body) = get(&mut client, "/nothing?here").await;
    assert_eq!((status, error(&parsed(&body)).0), (404, code::INVALID_REQUEST));
    let (status, head, body) = get(&mut client, "/rpc").await;
    assert_eq!((status, error(&parsed(&body)).0), (405, code::INVALID_REQUEST));
    assert!(head.contains("allow: post\r\n"), "{head}");
    client.send("DELETE /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (status, head, _) = client.http(false).await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head\r\n"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_a_batch_and_notifications() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send("POST /rpc HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for part in request(1, "shim.info", json!({})).as_bytes().chunks(7) {
        client.send(format!("{:x}\r\n", part.len())).await;
        client.send(part).await;
        client.send("\r\n").await;
    }
    client.send("0\r\n\r\n").await;
    let (status, _, body) = client.http(false).await;
    assert_eq!((status, &parsed(&body)["id"]), (200, &json!(1)));

    let call = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "shim.info"});
    client.send(post(&json!([call(1), call(2), {"foo": 1}]).to_string())).await;
    let (status, _, body) = client.http(false).await;
    assert_eq!((status, parsed(&body).as_array().map(Vec::len)), (200, Some(3)));

    client.send(post(r#"{"jsonrpc":"2.0","method":"service.stop","params":{"name":"hold"}}"#)).await;
    let (status, _, body) = client.http(false).await;
    assert_eq!((status, body), (204, vec![]), "nobody waits for a notification");
    reached(&fixture.handler.begun, 4).await;
    fixture.handler.release();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_call_is_a_200_and_progress_is_not_sent() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    for (body, code) in [
        ("{", code::PARSE),
        ("", code::PARSE),
        ("3", code::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#, code::NO_METHOD),
        (r#"{"jsonrpc":"2.0","id":1,"method":"service.get"}"#, code::INVALID_PARAMS),
    ] {
        client.send(post(body)).await;
        let (status, _, answer) = client.http(false).await;
        assert_eq!((status, error(&parsed(&answer)).0), (200, code), "{body}");
    }
    client.send(post(&request(2, "service.start", json!({"name": "news", "progress": true})))).await;
    assert_eq!(parsed(&client.http(false).await.2)["result"]["progress"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_not_well_is_a_503() {
    let fixture = Fixture::ill();
    let mut client = fixture.connect().await;
    let (status, _, body) = get(&mut client, "/health").await;
    assert_eq!((status, &parsed(&body)["status"]), (503, &json!("failing")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_end_is_answered_and_one_that_leaves_is_noticed() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(post(&hold(1))).await;
    client.shut().await;
    reached(&fixture.handler.begun, 1).await;
    let mut leaver = fixture.connect().await;
    leaver.send(post(&hold(2))).await;
    reached(&fixture.handler.begun, 2).await;
    drop(leaver);
    reached(&fixture.handler.dropped, 1).await;
    fixture.handler.release();
    assert_eq!(parsed(&client.http(false).await.2)["id"], 1);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_after_a_letter_is_a_bad_request() {
    let fixture = Fixture::start(Limits::default());
    for garbage in
        ["null\n\n", "hello there\r\n\r\n", "GET /\u{1} HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut client = fixture.connect().await;
        client.send(garbage).await;
        client.shut().await;
        let answer = client.rest().await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{garbage:?}: {answer:?}");
    }
}

/// What a program prints, or `None`, said as a skip, where there is no such program.
async fn printed(test: &str, program: &'static str, args: Vec<String>) -> Option<Vec<u8>> {
    let run = move || std::process::Command::new(program).args(args).output();
    match tokio::task::spawn_blocking(run).await.expect("no panic") {
        Ok(output) => {
            assert!(output.status.success(), "{output:?}");
            Some(output.stdout)
        }
        Err(error) => {
            eprintln!("skipped: {test}: no {program} here ({error})");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_is_served() {
    let fixture = Fixture::start(Limits::default());
    let socket = fixture.path().display().to_string();
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"shim.info"}"#;
    let args = ["--silent", "--show-error", "--max-time", "10", "--data", call, "http://localhost/rpc"];
    let args = args.map(String::from).into_iter().chain(["--unix-socket".into(), socket]).collect();
    if let Some(output) = printed("curl_is_served", "curl", args).await {
        assert_eq!(parsed(&output)["result"]["method"], "shim.info");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nushell_is_served() {
    let fixture = Fixture::start(Limits::default());
    let socket = fixture.path().display();
    let script = format!(
        "let call = {{jsonrpc: '2.0', id: 1, method: 'shim.info'}}
        let info = http post -U '{socket}' -t application/json http://localhost/rpc $call
        let health = http get -U '{socket}' http://localhost/health
        [$info.result.method $health.status] | to json -r"
    );
    let args = ["-n", "--no-std-lib", "-c", &script].map(String::from).to_vec();
    if let Some(output) = printed("nushell_is_served", "nu", args).await {
        assert_eq!(parsed(&output), json!(["shim.info", "ok"]));
    }
}
