//! Requests that go on telling.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use shimd::server::{Limits, News};
use shimd_api::client::{Client, ClientError};
use shimd_api::rpc::{RpcError, code};
use shimd_api::wire::{LogLines, LogRow};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::support::{BOUND, Fixture, PATIENCE, Wire, error, event, hold, reached, request, soon};

type Events = Sender<News>;

/// Begins a stream, and gives where its events go.
async fn follow(fixture: &Fixture, client: &mut Wire, id: u32) -> Events {
    let answer = client.ask(id, "event.follow", json!({})).await;
    assert_eq!(answer["result"], json!([]), "{answer}");
    fixture.handler.follower().await
}

/// The stream and the id of the next line, which is an event.
async fn next(client: &mut Wire) -> (Value, u64) {
    let line = client.line().await;
    assert_eq!((&line["jsonrpc"], &line["method"]), (&json!("2.0"), &json!("event")), "{line}");
    let mut params = line["params"].clone();
    let stream = params.as_object_mut().expect("params").remove("stream").expect("a stream");
    let row: shimd_api::event::EventRow = serde_json::from_value(params.clone()).expect("an event");
    assert_eq!(serde_json::to_value(&row).expect("JSON"), params, "nothing but an event");
    (stream, row.id)
}

async fn send(events: &Events, id: u64) {
    soon("room", events.send(event(id).into())).await.expect("followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_comes_first_then_each_event_then_the_end() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send("{\"jsonrpc\":\"2.0\",\"id\":\"a\\u0062\",\"method\":\"event.follow\",\"params\":{\"after\":1}}\n").await;
    let events = fixture.handler.follower().await;
    for id in 3..6 {
        send(&events, id).await;
    }
    let answer = client.line().await;
    assert_eq!((&answer["id"], &answer["result"][0]["id"]), (&json!("ab"), &json!(2)), "{answer}");
    for id in 3..6 {
        assert_eq!(next(&mut client).await, (json!("ab"), id));
    }
    drop(events);
    assert_eq!(client.line().await, json!({"jsonrpc": "2.0", "method": "end", "params": {"stream": "ab"}}));
    assert_eq!(client.ask(1, "shim.info", json!({})).await["id"], 1, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_a_large_number_loses_no_digit() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let id = "123456789012345678901234567890";
    client.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"event.follow\"}}\n")).await;
    drop(fixture.handler.follower().await);
    client.shut().await;
    // The end of a stream ends a connection that asks nothing more.
    let text = String::from_utf8(client.rest().await).expect("text");
    assert_eq!(text.matches(&format!(":{id}")).count(), 2, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_streams_and_calls_share_a_connection() {
    let fixture = Fixture::start(Limits { in_flight: 2, streams: 3, ..Limits::default() });
    let mut client = fixture.connect().await;
    let mut streams = Vec::new();
    for id in 0..3 {
        streams.push(follow(&fixture, &mut client, id).await);
    }
    let refused = client.ask(9, "event.follow", json!({})).await;
    assert_eq!(error(&refused), (code::APP, "busy"));
    for id in 10..20 {
        assert_eq!(client.ask(id, "shim.info", json!({})).await["id"], id, "calls have room of their own");
    }
    for (stream, events) in streams.iter().enumerate() {
        send(events, 7).await;
        assert_eq!(next(&mut client).await, (json!(stream), 7));
    }
    drop(streams.remove(1));
    assert_eq!(client.line().await["params"], json!({"stream": 1}));
    let _again = follow(&fixture, &mut client, 30).await;
    send(&streams[1], 8).await;
    assert_eq!(next(&mut client).await, (json!(2), 8), "the others go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_is_noticed_without_an_event() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    drop(client);
    soon("the receiver's drop", events.closed()).await;

    // Also while its further calls wait for room, and so nothing is read.
    let fixture = Fixture::start(Limits { in_flight: 1, ..Limits::default() });
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    client.send([hold(2), hold(3), hold(4)].concat()).await;
    reached(&fixture.handler.begun, 1).await;
    drop(client);
    soon("the receiver's drop", events.closed()).await;
    reached(&fixture.handler.dropped, 3).await;

    // Also with events that it never read.
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    for id in 0..5 {
        send(&events, id).await;
    }
    drop(client);
    soon("the receiver's drop", events.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_writes_no_more_still_follows() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    client.send(request(1, "event.follow", json!({})).trim_end()).await;
    client.shut().await;
    let events = fixture.handler.follower().await;
    assert_eq!(client.line().await["result"], json!([]));
    for id in 0..100 {
        send(&events, id).await;
        assert_eq!(next(&mut client).await, (json!(1), id));
    }
    drop(client);
    soon("the receiver's drop", events.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_keeps_its_seat() {
    let fixture = Fixture::start(Limits { clients: 4, seat: Duration::ZERO, ..Limits::default() });
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(fixture.connect().await);
    }
    for evicted in &mut others[..16] {
        assert_eq!(evicted.rest().await, b"");
    }
    send(&events, 7).await;
    assert_eq!(next(&mut client).await, (json!(1), 7));
    drop(events);
    assert_eq!(client.line().await["method"], "end");
    for _ in 0..8 {
        others.push(fixture.connect().await);
    }
    assert_eq!(client.rest().await, b"", "and none longer than it follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_what_has_come_and_ends_the_streams() {
    let mut fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    for id in 0..10 {
        send(&events, id).await;
    }
    fixture.begin_stop();
    for id in 0..10 {
        assert_eq!(next(&mut client).await, (json!(1), id));
    }
    assert_eq!(client.line().await["method"], "end");
    assert_eq!(client.rest().await, b"");
    soon("the receiver's drop", events.closed()).await;
    fixture.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_too_long_ends_the_streams_too() {
    let fixture = Fixture::start(Limits { message: 1000, ..Limits::default() });
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    client.send("x".repeat(1001)).await;
    let mut last = [client.line().await, client.line().await];
    last.sort_by_key(|line| line.get("id").is_none());
    assert_eq!(error(&last[0]).1, "too_large");
    assert_eq!(last[1]["method"], "end");
    assert_eq!(client.rest().await, b"");
    soon("the receiver's drop", events.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_fills_the_daemon_s_bound_and_one_that_reads_nothing_is_dropped() {
    let fixture = Fixture::start(Limits { in_flight: 4, write: Duration::from_secs(1), ..Limits::default() });
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    let mut sent = 0;
    let fill = async {
        // A daemon never waits for a reader: it sends what there is room for.
        loop {
            match events.try_send(event(sent).into()) {
                Ok(()) => sent += 1,
                Err(TrySendError::Full(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(TrySendError::Closed(_)) => return,
            }
        }
    };
    soon("the drop", fill).await;
    assert!(sent < 100_000, "bounded: {sent}");
    let mut got = Vec::new();
    let _ = soon("what fitted the socket's buffer", client.stream.read_to_end(&mut got)).await;
    let whole = got.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert!(whole > 10 && sent - whole <= (BOUND + 2 * 4 + 2) as u64, "{whole} of {sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_all_arrive_in_order() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let events = follow(&fixture, &mut client, 1).await;
    let sender = tokio::spawn(async move {
        for id in 0..20_000 {
            send(&events, id).await;
        }
    });
    for id in 0..20_000 {
        assert_eq!(next(&mut client).await, (json!(1), id));
    }
    sender.await.expect("all sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_had_says_why() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let refused = client.ask(1, "event.follow", json!({"since": -1})).await;
    assert_eq!(
        (error(&refused).0, &refused["error"]["data"]["field"]),
        (code::INVALID_PARAMS, &json!("since"))
    );
    let refused = client.ask(2, "event.follow", json!({"name": "nobody"})).await;
    assert_eq!(error(&refused).1, "unknown_service");
    let refused = client.ask(3, "event.follow", json!({"name": "panic"})).await;
    assert_eq!(error(&refused).0, code::INTERNAL);

    let call = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "event.follow"});
    client.send(format!("{}\n", json!([call(4), call(5)]))).await;
    for refused in client.line().await.as_array().expect("a batch's answers") {
        assert_eq!(error(refused).0, code::INVALID_REQUEST);
    }
    client.send("{\"jsonrpc\":\"2.0\",\"method\":\"event.follow\"}\n").await;
    assert_eq!(client.ask(6, "shim.info", json!({})).await["id"], 6, "nothing came of a notification");

    let mut http = fixture.connect().await;
    let body = request(7, "event.follow", json!({}));
    http.send(format!("POST /rpc HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    let (status, _, body) = http.http(false).await;
    let refused: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!((status, error(&refused).0), (200, code::INVALID_REQUEST));
    assert!(refused["error"]["message"].as_str().is_some_and(|text| text.contains("HTTP")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_project_s_own_client_follows() {
    let mut fixture = Fixture::start(Limits::default());
    let path = fixture.path().to_owned();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let talk = tokio::task::spawn_blocking(move || {
        let client = Client::connect(&path, PATIENCE).expect("connected");
        let params = json!({"after": 4});
        let (past, mut events) =
            client.follow("event.follow", params, PATIENCE, &|| false).expect("a stream");
        assert_eq!(past[0]["id"], 5);
        while let Some(row) = events.next(&|| false).expect("an event or the end") {
            told.send(serde_json::from_value(row).expect("an event")).expect("the test lives");
        }
        let client = Client::connect(&path, PATIENCE);
        assert!(matches!(client, Err(ClientError::NoDaemon { .. })), "the file went first: {client:?}");
    });
    let events = fixture.handler.follower().await;
    send(&events, 6).await;
    assert_eq!(soon("an event", heard.recv()).await, Some(event(6)));
    fixture.begin_stop();
    soon("the end", talk).await.expect("no panic");
    fixture.stopped().await;
}

fn text(bytes: usize) -> News {
    News::Log(LogLines::Text("x".repeat(bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_come_in_batches_and_the_end_says_whether_they_are_all() {
    let fixture = Fixture::start(Limits::default());
    let mut client = fixture.connect().await;
    let row = LogRow { time: None, stream: "err".into(), line: "é".into() };
    let ends = [
        (Some(News::Complete), json!({"stream": 1, "complete": true})),
        (Some(News::Failed(RpcError::internal("the disk"))), json!(null)),
        (None, json!({"stream": 1})),
    ];
    for (end, told) in ends {
        client.send(request(1, "log.stream", json!({"name": "web", "follow": true})) + "\n").await;
        let news = fixture.handler.follower().await;
        client.line().await;
        for lines in [LogLines::Rows(vec![row.clone()]), LogLines::Bytes(vec![255])] {
            soon("room", news.send(News::Log(lines))).await.expect("followed");
        }
        let lines = client.line().await;
        assert_eq!(lines["method"], "log");
        assert_eq!(lines["params"]["lines"], json!({"rows": [{"time": null, "stream": "err", "line": "é"}]}));
        assert_eq!(client.line().await["params"], json!({"lines": {"bytes": [255]}, "stream": 1}));
        if let Some(end) = end {
            soon("room", news.send(end)).await.expect("followed");
        }
        drop(news);
        let end = client.line().await;
        match told.is_null() {
            true => assert_eq!(end["params"]["error"]["message"], "the disk", "{end}"),
            false => assert_eq!(end["params"], told),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_lines_slowly_is_waited_for_and_fills_nothing() {
    const BATCH: usize = 64 << 10;
    let fixture = Fixture::start(Limits { write: Duration::from_millis(200), ..Limits::default() });
    let mut client = fixture.connect().await;
    client.send(request(1, "log.stream", json!({"name": "web"})) + "\n").await;
    let news = fixture.handler.follower().await;
    client.line().await;
    let sent = AtomicUsize::new(0);
    let send = async {
        for _ in 0..200 {
            news.send(text(BATCH)).await.expect("followed");
            sent.fetch_add(1, Ordering::Relaxed);
        }
        news.send(News::Complete).await.expect("followed");
    };
    let read = async {
        // Several times the limit of an answer that nobody reads.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let unread = sent.load(Ordering::Relaxed);
        assert!(unread < BOUND + 20, "{unread} batches wait in the daemon and the socket");
        for _ in 0..200 {
            assert_eq!(client.line().await["params"]["lines"]["text"].as_str().map(str::len), Some(BATCH));
        }
        assert_eq!(client.line().await["params"]["complete"], true);
    };
    soon("all of it", async { tokio::join!(send, read) }).await;
}
