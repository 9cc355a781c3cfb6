//! JSON-RPC 2.0 in lines.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use shimd::server::Limits;
use shimd_api::client::Client;
use shimd_api::rpc::code;

use crate::support::{Fixture, error, hold, reached, request, soon};

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_error_and_the_connection_goes_on() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    for (text, id, code) in [
        ("{\"jsonrpc\":\"2.0\",", json!(null), code::PARSE),
        (" \u{1}", json!(null), code::PARSE),
        ("[", json!(null), code::PARSE),
        ("17", json!(null), code::INVALID_REQUEST),
        ("[]", json!(null), code::INVALID_REQUEST),
        ("{}", json!(null), code::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, json!(null), code::INVALID_REQUEST),
        (r#"{"jsonrpc":"1.0","id":"a","method":"shim.info"}"#, json!("a"), code::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":{},"method":"shim.info"}"#, json!(null), code::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":"b","method":"foobar"}"#, json!("b"), code::NO_METHOD),
        (r#"{"jsonrpc":"2.0","id":4,"method":"service.get"}"#, json!(4), code::INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":5,"method":"service.get","params":["x"]}"#, json!(5), code::INVALID_PARAMS),
        (
            r#"{"jsonrpc":"2.0","id":6,"method":"service.get","params":{"name":1}}"#,
            json!(6),
            code::INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":7,"method":"service.get","params":{"nmae":"x"}}"#,
            json!(7),
            code::INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":8,"method":"service.get","params":{"name":"nobody"}}"#,
            json!(8),
            code::APP,
        ),
    ] {
        // A leading blank makes the first of them a line whatever it begins with.
        client.send(format!(" {text}\n")).await;
        let answer = client.line().await;
        assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &id), "{text}: {answer}");
        assert_eq!(error(&answer).0, code, "{text}: {answer}");
    }
    assert_eq!(client.ask(9, "shim.info", json!({})).await["result"]["method"], "shim.info");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_param_and_the_service() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let answer = client.ask(1, "service.start", json!({"nmae": "x"})).await;
    assert_eq!(answer["error"]["data"]["field"], "nmae");
    let answer = client.ask(2, "service.start", json!({"name": "nobody"})).await;
    assert_eq!((error(&answer).1, &answer["error"]["data"]["name"]), ("unknown_service", &json!("nobody")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_in_one_line_without_its_notifications() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": "1", "method": "service.get", "params": {"name": "a"}},
        {"jsonrpc": "2.0", "method": "service.get", "params": {"name": "b"}},
        {"foo": "boo"},
        1,
        {"jsonrpc": "2.0", "id": "5", "method": "foo.get"},
        {"jsonrpc": "2.0", "id": null, "method": "shim.info"},
    ]);
    client.send(format!("{batch}\n")).await;
    let Value::Array(answers) = client.line().await else { panic!("an array") };
    assert_eq!(answers.len(), 5, "{answers:?}");
    let of = |id: Value| answers.iter().filter(|answer| answer["id"] == id).collect::<Vec<_>>();
    assert_eq!(of(json!("1"))[0]["result"]["params"]["name"], "a");
    assert_eq!(error(of(json!("5"))[0]).0, code::NO_METHOD);
    assert_eq!(of(Value::Null).len(), 3);

    let notifications = json!([{"jsonrpc": "2.0", "method": "shim.info"}, {"jsonrpc": "2.0", "method": "x"}]);
    client.send(format!("{notifications}\n")).await;
    assert_eq!(client.ask(6, "shim.info", json!({})).await["id"], 6, "nothing came before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_what_may_be_under_way_is_answered_whole() {
    let fixture = Fixture::start(Limits { in_flight: 4, ..Limits::default() });
    let mut client = fixture.connect().await;
    let calls: Vec<Value> =
        (0..100).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "shim.info"})).collect();
    client.send(format!("{}\n", json!(calls))).await;
    let answers = client.line().await;
    let ids: BTreeSet<u64> =
        answers.as_array().expect("an array").iter().filter_map(|answer| answer["id"].as_u64()).collect();
    assert_eq!(ids, (0..100).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_is_carried_out_and_never_answered() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client
        .send("{\"jsonrpc\":\"2.0\",\"method\":\"shim.info\"}\n{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n")
        .await;
    assert_eq!(client.ask(1, "shim.info", json!({})).await["id"], 1);
    reached(&fixture.handler.ended, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_call_holds_up_no_other() {
    let fixture = Fixture::start(Limits::default());
    let mut slow = fixture.connect().await;
    slow.send(hold(1)).await;
    reached(&fixture.handler.begun, 1).await;
    assert_eq!(slow.ask(2, "shim.info", json!({})).await["id"], 2, "on the same connection");
    let mut other = fixture.connect().await;
    assert_eq!(other.ask(3, "shim.info", json!({})).await["id"], 3, "on another");
    fixture.handler.release();
    assert_eq!(slow.line().await["id"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_under_way_are_bounded_and_the_rest_waits() {
    let fixture = Fixture::start(Limits { in_flight: 8, ..Limits::default() });
    let mut client = fixture.connect().await;
    client.send((0..20).map(hold).collect::<String>()).await;
    reached(&fixture.handler.begun, 8).await;
    let mut other = fixture.connect().await;
    for id in 0..20 {
        other.ask(id, "shim.info", json!({})).await;
    }
    assert_eq!(*fixture.handler.begun.borrow(), 28, "no more of the first client's began meanwhile");
    fixture.handler.release();
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        ids.insert(client.line().await["id"].as_u64().expect("an id"));
    }
    assert_eq!(ids, (0..20).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_goes_to_who_asked_for_it() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(request(1, "service.start", json!({"name": "news", "progress": true}))).await;
    let mut told = Vec::new();
    let answer = loop {
        let line = client.line().await;
        if line.get("id").is_some() {
            break line;
        }
        assert_eq!(line["method"], "progress");
        told.push(line["params"]["elapsed"].as_u64().expect("a time"));
    };
    assert_eq!(answer["result"]["progress"], true);
    // The last may still be on its way when the answer is there.
    assert!(told.starts_with(&[1, 2]) || told == [1], "{told:?}");
    let answer = client.ask(2, "service.start", json!({"name": "news"})).await;
    assert_eq!(answer["result"]["progress"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_handler_is_an_internal_error_of_that_call() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let answer = client.ask(1, "service.status", json!({"name": "panic"})).await;
    assert_eq!(error(&answer), (code::INTERNAL, "internal"));
    assert_eq!(client.ask(2, "shim.info", json!({})).await["id"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_end_still_gets_its_answers() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(hold(1)).await;
    // The last line may lack its newline.
    client.send(request(2, "shim.info", json!({})).trim_end()).await;
    client.shut().await;
    assert_eq!(client.line().await["id"], 2);
    fixture.handler.release();
    assert_eq!(client.line().await["id"], 1);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_a_client_that_left_are_dropped_and_its_notifications_are_not() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(hold(1)).await;
    client.send(hold(2)).await;
    client.send("{\"jsonrpc\":\"2.0\",\"method\":\"service.stop\",\"params\":{\"name\":\"hold\"}}\n").await;
    reached(&fixture.handler.begun, 3).await;
    drop(client);
    reached(&fixture.handler.dropped, 2).await;
    fixture.handler.release();
    reached(&fixture.handler.ended, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_that_then_leaves_is_noticed() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(hold(1)).await;
    client.shut().await;
    reached(&fixture.handler.begun, 1).await;
    drop(client);
    reached(&fixture.handler.dropped, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_what_the_methods_are() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let document = client.ask(1, "rpc.discover", json!([])).await["result"].clone();
    assert!(document["openrpc"].as_str().is_some_and(|version| version.starts_with("1.")));
    let names: BTreeSet<&str> =
        document["methods"].as_array().expect("methods").iter().filter_map(|m| m["name"].as_str()).collect();
    for name in ["service.set", "service.restart", "socket.check", "shim.shutdown", "rpc.discover"] {
        assert!(names.contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_project_s_own_client_is_understood() {
    let fixture = Fixture::start(Limits::default());
    let path = fixture.path().to_owned();
    let talk = tokio::task::spawn_blocking(move || {
        let patience = Duration::from_secs(10);
        let mut client = Client::connect(&path, patience).expect("connected");
        let mut told = 0;
        let params = json!({"name": "news", "progress": true});
        let result = client.call("service.start", params, patience, &mut |_| told += 1, &|| false);
        assert_eq!(result.expect("an answer")["params"]["name"], "news");
        assert!(told > 0);
        let params = json!({"name": "nobody"});
        let refused = client.call("service.get", params, patience, &mut |_| {}, &|| false);
        assert_eq!(refused.expect_err("unknown").kind(), "unknown_service");
        let params = json!({"specs": [{"name": "x".repeat(2 << 20)}]});
        let refused = client.call("service.set", params, patience, &mut |_| {}, &|| false);
        assert_eq!(refused.expect_err("over 1 MiB").kind(), "too_large");
    });
    soon("the client's talk", talk).await.expect("no panic");
}
