//! HTTP/1.1, as Hero services speak it.
//!
//! | path | method | gives |
//! | --- | --- | --- |
//! | `/rpc` | POST | JSON-RPC, one message or a batch: 200, or 204 where nothing is to be answered |
//! | `/openrpc.json` | GET | the OpenRPC document |
//! | `/health` | GET | the handler's health: 200 if its `status` is `ok`, else 503 |
//! | `/metrics` | GET | OpenMetrics |
//! | `/.well-known/heroservice.json` | GET | the discovery manifest |
//!
//! HEAD goes where GET does. An error of a call is a 200 with a JSON-RPC error, as its client expects; what never got
//! to be a call has its own status (403, 404, 405, 413, 503) and a JSON-RPC error with a null id as its body.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shimd_api::rpc::{RpcError, code};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::clients::Client;
use super::connection::hangup;
use super::deadline::WriteDeadline;
use super::dispatch::{Calls, Evicted};
use super::{Handler, Shared, message, openrpc};

/// The largest head of a request, in bytes.
const HEAD: usize = 64 << 10;
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PATHS: &str =
    "the paths are /rpc (POST), /openrpc.json, /health, /metrics and /.well-known/heroservice.json";

type Answer = Response<Full<Bytes>>;

/// Serves one client until it is done, the server is, or it takes no answers any more.
pub(super) async fn serve<H: Handler>(
    stream: &mut UnixStream,
    client: &Arc<Client>,
    shared: &Arc<Shared<H>>,
) {
    let mut gone = pin!(hangup(stream.as_fd().try_clone_to_owned()));
    let io = TokioIo::new(WriteDeadline::new(stream, shared.limits.write));
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(request, client, shared).await));
    let connection = http1::Builder::new()
        .half_close(true)
        // No time limits: a slow client keeps nothing but its seat, and that only until another wants it.
        .header_read_timeout(None)
        .max_buf_size(HEAD)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut closing = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "an HTTP client was dropped");
                }
                return;
            }
            () = gone.as_mut() => return,
            () = shared.closing(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer<H: Handler>(
    request: Request<Incoming>,
    client: &Arc<Client>,
    shared: &Arc<Shared<H>>,
) -> Answer {
    let path = request.uri().path();
    let allowed = match path {
        "/rpc" => "POST",
        "/openrpc.json" | "/health" | "/metrics" | "/.well-known/heroservice.json" => "GET, HEAD",
        other => return refusal(StatusCode::NOT_FOUND, no_route(format!("there is no {other}"))),
    };
    if !allowed.split(", ").any(|method| method == request.method().as_str()) {
        let problem = format!("{path} takes {allowed}, not {}", request.method());
        let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, no_route(problem));
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return answer;
    }
    if request.method() == Method::POST {
        return rpc(request.into_body(), client, shared).await;
    }
    // As a call is, what is asked of the handler here is under way and keeps the client's seat.
    let Some(_work) = client.begin().await else { return evicted() };
    match path {
        "/openrpc.json" => json_answer(StatusCode::OK, &openrpc::document()),
        "/health" => {
            let health = shared.handler.health().await;
            let ok = health.get("status").and_then(Value::as_str) == Some("ok");
            json_answer(if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &health)
        }
        "/metrics" => text_answer(StatusCode::OK, OPENMETRICS, shared.handler.metrics().await),
        _ => json_answer(StatusCode::OK, &manifest()),
    }
}

async fn rpc<H: Handler>(body: Incoming, client: &Arc<Client>, shared: &Arc<Shared<H>>) -> Answer {
    let limit = shared.limits.message;
    if body.size_hint().lower() > limit as u64 {
        return too_large(limit);
    }
    let message = match Limited::new(body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return too_large(limit),
        Err(error) => {
            let problem = RpcError::invalid_request(format!("the body broke off: {error}"));
            return refusal(StatusCode::BAD_REQUEST, problem);
        }
    };
    let (out, mut answers) = mpsc::channel(1);
    let mut calls = Calls::new(shared, client, out, false);
    if let Err(Evicted) = calls.submit(&message).await {
        return evicted();
    }
    // The channel ends without an answer when there were only notifications.
    let (answer, ()) = tokio::join!(answers.recv(), calls.finish());
    match answer {
        Some(outgoing) => text_answer(StatusCode::OK, JSON, outgoing.text),
        None => text_answer(StatusCode::NO_CONTENT, JSON, String::new()),
    }
}

/// Where the Hero conventions look for what a service is (`/.well-known/heroservice.json`).
fn manifest() -> Value {
    json!({
        "name": "shimd",
        "title": "shimd",
        "version": env!("CARGO_PKG_VERSION"),
        "description": env!("CARGO_PKG_DESCRIPTION"),
        "protocol": "openrpc",
        "socket": "rpc",
        "rpc": "/rpc",
        "openrpc": "/openrpc.json",
        "health": "/health",
        "metrics": "/metrics",
    })
}

fn no_route(problem: String) -> RpcError {
    RpcError { code: code::INVALID_REQUEST, ..RpcError::failed(problem, PATHS) }
}

fn too_large(limit: usize) -> Answer {
    let mut answer = refusal(StatusCode::PAYLOAD_TOO_LARGE, RpcError::too_large(limit));
    // The rest of the body is not read as a request.
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn evicted() -> Answer {
    let error = RpcError::busy("this idle connection's seat went to another client", "connect again");
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, error);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn refusal(status: StatusCode, error: RpcError) -> Answer {
    text_answer(status, JSON, message::refusal(error))
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    text_answer(status, JSON, value.to_string())
}

fn text_answer(status: StatusCode, content_type: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    answer
}

/// The whole answer, head and all, for a client that is refused before its request is read.
pub(super) fn raw_refusal(status: StatusCode, error: RpcError) -> String {
    let body = message::refusal(error);
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {JSON}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
