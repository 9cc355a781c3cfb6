//! A stand-in for `shimd`: a thread that answers JSON-RPC lines with canned results, or misbehaves.
//!
//! It knows two services, `redis` (running) and `web` (failed: one of its two sockets is dangling), and two events of the
//! past. Who follows events stays connected, and is told what the test emits.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::fstat;
use serde_json::{Value as Json, json};

/// How the daemon answers whatever comes after `shim.info`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// As it should.
    Good,
    /// Never.
    Hang,
    /// With half an answer, then it hangs up.
    DieMidAnswer,
    /// With what is no JSON.
    Garbage,
    /// With JSON that is not the result of the method.
    OddResult,
    /// Only to `shim.info`, as another version.
    Version(&'static str),
    /// As it should, and tells followers at once that web's lost socket is back, and lost again.
    Live,
    /// After these many `progress` notifications, 100 ms apart.
    Slow(u32),
}

/// The stand-in, gone with the value.
pub struct FakeDaemon {
    listener: UnixListener,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    manner: Manner,
    pid: u32,
    socket: PathBuf,
    requests: Mutex<Vec<Json>>,
    clients: Mutex<Vec<UnixStream>>,
    /// Each with the id of the request that streams.
    followers: Mutex<Vec<(Json, UnixStream)>>,
}

impl FakeDaemon {
    /// One in this home, which says that it is this process.
    pub fn at(home: &Path, manner: Manner, pid: u32) -> FakeDaemon {
        let socket = home.join("rpc.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (requests, clients, followers) = (Mutex::default(), Mutex::default(), Mutex::default());
        let shared = Shared { manner, pid, socket, requests, clients, followers };
        let shared = Arc::new(shared);
        let thread = std::thread::spawn({
            let (listener, shared) = (listener.try_clone().unwrap(), shared.clone());
            move || serve(&listener, &shared)
        });
        FakeDaemon { listener, shared, thread: Some(thread) }
    }

    /// What it was asked, `shim.info` left out.
    pub fn requests(&self) -> Vec<Json> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many follow events.
    pub fn followers(&self) -> usize {
        self.shared.followers.lock().unwrap().len()
    }

    /// Tells the followers an event, without its `id`.
    pub fn emit(&self, mut event: Json) {
        event["id"] = json!(99);
        for (stream, follower) in self.shared.followers.lock().unwrap().iter_mut() {
            let _ = notify(follower, stream, &event);
        }
    }

    /// Has a service write what its followers are told; an `error` ends the log.
    pub fn write(&self, lines: Json) {
        let (method, news) = match lines.get("error") {
            None => ("log", json!({ "lines": lines })),
            Some(_) => ("end", lines),
        };
        for (stream, follower) in self.shared.followers.lock().unwrap().iter_mut() {
            let _ = notify_of(follower, method, stream, &news);
        }
    }

    /// Hangs up on the followers.
    pub fn end_streams(&self) {
        for (_, follower) in self.shared.followers.lock().unwrap().iter() {
            let _ = follower.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        // Ends the thread's wait for a client, also where the socket's file is gone.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        for client in self.shared.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &UnixListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        shared.clients.lock().unwrap().push(client.try_clone().unwrap());
        let shared = shared.clone();
        std::thread::spawn(move || talk(client, &shared));
    }
}

/// One client, until it or the daemon hangs up.
fn talk(mut client: UnixStream, shared: &Shared) {
    let lines = BufReader::new(client.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        let request: Json = serde_json::from_str(&line).unwrap();
        if !answer(&mut client, &request, shared).unwrap_or(false) {
            let _ = client.shutdown(std::net::Shutdown::Both);
            break;
        }
    }
    shared.followers.lock().unwrap().retain(|(_, follower)| socket_inode(follower) != socket_inode(&client));
}

/// What two descriptors of one socket have in common.
fn socket_inode(socket: &UnixStream) -> u64 {
    fstat(socket).unwrap().st_ino
}

/// Answers one request; says whether to go on.
fn answer(client: &mut UnixStream, request: &Json, shared: &Shared) -> std::io::Result<bool> {
    let (method, params) = (request["method"].as_str().unwrap(), &request["params"]);
    if method == "shim.info" {
        let mut info = canned::info(shared);
        if let Manner::Version(version) = shared.manner {
            info = json!({ "version": version, "pid": info["pid"] });
        }
        return send(client, &json!({ "jsonrpc": "2.0", "id": request["id"], "result": info }));
    }
    shared.requests.lock().unwrap().push(json!({ "method": method, "params": params }));
    match shared.manner {
        Manner::Hang => return Ok(true),
        Manner::DieMidAnswer => {
            client.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":")?;
            return Ok(false);
        }
        Manner::Garbage => {
            client.write_all(b"SSH-2.0-OpenSSH_9.9\r\n")?;
            return Ok(true);
        }
        Manner::OddResult => {
            return send(
                client,
                &json!({ "jsonrpc": "2.0", "id": request["id"], "result": [{ "name": 1 }] }),
            );
        }
        Manner::Slow(times) => {
            for time in 1..=times {
                std::thread::sleep(Duration::from_millis(100));
                let services =
                    [json!({ "name": "redis", "status": "stopping", "settled": false, "took": 0 })];
                let progress = json!({ "services": services, "elapsed": u64::from(time) * 100_000_000 });
                send(client, &json!({ "jsonrpc": "2.0", "method": "progress", "params": progress }))?;
            }
        }
        Manner::Good | Manner::Live | Manner::Version(_) => {}
    }
    let response = match canned::result(method, params, shared) {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }),
    };
    if method == "shim.shutdown" {
        send(client, &response)?;
        std::fs::remove_file(&shared.socket)?;
        return Ok(false);
    }
    if method == "log.stream" && response["error"].is_null() {
        let mut followers = shared.followers.lock().unwrap();
        send(client, &response)?;
        let past = canned::log(params);
        notify_of(client, "log", &request["id"], &json!({ "lines": past }))?;
        if params["follow"] != true {
            return notify_of(client, "end", &request["id"], &json!({ "complete": true }));
        }
        followers.push((request["id"].clone(), client.try_clone()?));
        return Ok(true);
    }
    if method == "event.follow" && response["error"].is_null() {
        let mut followers = shared.followers.lock().unwrap();
        send(client, &response)?;
        if shared.manner == Manner::Live {
            canned::live().iter().try_for_each(|event| notify(client, &request["id"], event).map(drop))?;
        }
        followers.push((request["id"].clone(), client.try_clone()?));
        return Ok(true);
    }
    send(client, &response)
}

fn notify(follower: &mut UnixStream, stream: &Json, event: &Json) -> std::io::Result<bool> {
    notify_of(follower, "event", stream, event)
}

fn notify_of(follower: &mut UnixStream, method: &str, stream: &Json, news: &Json) -> std::io::Result<bool> {
    let mut params = news.clone();
    params["stream"] = stream.clone();
    send(follower, &json!({ "jsonrpc": "2.0", "method": method, "params": params }))
}

fn send(client: &mut UnixStream, message: &Json) -> std::io::Result<bool> {
    client.write_all(format!("{message}\n").as_bytes())?;
    Ok(true)
}

/// What the two services' daemon answers.
mod canned {
    use super::*;

    const SINCE: &str = "2026-01-02T03:04:05.678Z";

    pub fn info(shared: &Shared) -> Json {
        let socket = &shared.socket;
        json!({
            "pid": shared.pid, "version": env!("CARGO_PKG_VERSION"), "uptime": 3_600_000_000_000_i64, "services": 2,
            "socket": socket, "home": socket.parent(), "socket_root": "/run/sockets", "troubles": [],
        })
    }

    pub fn result(method: &str, params: &Json, shared: &Shared) -> Result<Json, Json> {
        let names = names(params)?;
        let rows = |row: fn(&str) -> Json| Ok(names.iter().map(|name| row(name)).collect::<Json>());
        match method {
            "service.list" => rows(service),
            "service.status" => Ok(status(&names[0])),
            "service.start" => rows(|name| {
                json!({ "name": name, "status": service(name)["status"], "pid": service(name)["pid"],
                    "health_reason": service(name)["health_reason"], "took": 42_000_000 })
            }),
            "service.stop" => rows(
                |name| json!({ "name": name, "status": "inactive", "health_reason": null, "pid": null, "took": 9_000_000 }),
            ),
            "service.restart" => rows(restart),
            "service.reset_failed" => rows(|name| json!({ "name": name, "status": "inactive" })),
            "service.delete" => rows(|name| json!({ "name": name, "change": "deleted" })),
            "service.set" => set(params),
            "socket.check" => Ok(names.iter().flat_map(|name| sockets(name)).collect()),
            "socket.heal" => {
                let row = |path: String| {
                    json!({ "path": path, "outcome": if path.contains("ok") { "not_possible" }
                    else { "bridged" }, "reason": if path.contains("ok") { "it is ok: nothing is lost" }
                    else { "bridged: connections are passed on" } })
                };
                let sockets = match params["names"].is_array() {
                    true => {
                        names.iter().flat_map(|name| sockets(name)).map(|row| row["path"].clone()).collect()
                    }
                    false => Vec::new(),
                };
                let paths = params["paths"].as_array().cloned().unwrap_or_default();
                Ok(sockets.iter().chain(&paths).map(|path| row(path.as_str().unwrap().into())).collect())
            }
            "event.list" => events(params, &names).map(|events| of_kinds(events, params)),
            "event.follow" if !params["limit"].is_null() => {
                Err(json!({ "code": -32602, "message": "event.follow: no such param: limit" }))
            }
            "event.follow" if params["since"].is_null() => Ok(json!([])),
            "event.follow" => events(params, &names),
            "log.stream" => Ok(json!(true)),
            "shim.doctor" => Ok(json!([
                { "check": "sock_diag", "ok": true, "detail": "answers", "help": null },
                { "check": "fanotify", "ok": false, "detail": "not permitted", "help": "run shimd as root" },
            ])),
            "shim.shutdown" => Ok(info(shared)),
            _ => Err(json!({ "code": -32601, "message": format!("no method {method:?}") })),
        }
    }

    /// The services that a request is about.
    fn names(params: &Json) -> Result<Vec<String>, Json> {
        let given = params["names"].as_array().cloned();
        let given = given.or_else(|| params["name"].is_string().then(|| vec![params["name"].clone()]));
        let names: Vec<String> = match given {
            Some(names) => names.iter().map(|name| name.as_str().unwrap().to_owned()).collect(),
            None => vec!["redis".into(), "web".into()],
        };
        match names.iter().find(|name| !["redis", "web"].contains(&name.as_str())) {
            None => Ok(names),
            Some(unknown) => Err(json!({
                "code": -32000, "message": format!("no service named {unknown:?}"),
                "data": { "kind": "unknown_service", "name": unknown, "help": "proc list names them" },
            })),
        }
    }

    /// What a service wrote.
    pub fn log(params: &Json) -> Json {
        let row = |time: Option<&str>, stream: &str, line: &str| json!({ "time": time, "stream": stream, "line": line });
        match (params["raw"] == true, params["name"] == "web") {
            (true, true) => json!({ "bytes": b"listening\n\xff\n" }),
            (true, false) => json!({ "text": "starting\nready\n" }),
            (false, _) => {
                let mut rows = vec![
                    row(None, "out", "starting"),
                    row(Some(SINCE), "out", "listening"),
                    row(Some("2026-01-02T03:04:06.1Z"), "err", "rpc.sock: no such file"),
                ];
                let lines = params["lines"].as_u64().map_or(rows.len(), |lines| lines.try_into().unwrap());
                json!({ "rows": rows.split_off(rows.len().saturating_sub(lines)) })
            }
        }
    }

    fn service(name: &str) -> Json {
        match name {
            "redis" => json!({ "name": "redis", "status": "running", "health_reason": null, "pid": 4711,
                "uptime": 7_500_000_000_i64, "restarts": 0, "sockets_ok": 1, "sockets": 1 }),
            _ => {
                json!({ "name": "web", "status": "failed", "pid": 4712, "uptime": 60_000_000_000_i64, "restarts": 2,
                "health_reason": "declared socket missing on disk: rpc.sock", "sockets_ok": 1, "sockets": 2 })
            }
        }
    }

    fn socket(service: &str, name: &str, verdict: &str) -> Json {
        json!({
            "service": service, "socket": name, "path": format!("/run/sockets/{service}/{name}"), "verdict": verdict,
            "reason": (verdict != "ok").then_some("nothing is at the path; the listener is alive"),
            "pid": service_pid(service), "inode": 90_210, "pending": 0, "backlog": 128, "since": SINCE,
            "culprit": (verdict != "ok").then(|| json!({ "pid": 99, "name": "rm", "exe": "/usr/bin/rm", "uid": 0 })),
            "relinked": 0,
        })
    }

    /// The past, of these services.
    fn events(params: &Json, names: &[String]) -> Result<Json, Json> {
        let up = json!({ "id": 1, "time": "2026-01-02T03:00:00Z", "service": "redis", "kind": "state",
            "detail": { "status": "running", "was": "starting", "lasted": 40_000_000, "pid": 4711 } });
        let lost = rpc_sock(2, SINCE, "dangling", "ok", 182_000_000_000);
        let mut events = vec![up, lost];
        events.retain(|event| names.iter().any(|name| event["service"] == **name));
        let limit = params["limit"].as_u64().map_or(events.len(), |limit| limit.try_into().unwrap());
        Ok(events.split_off(events.len().saturating_sub(limit)).into())
    }

    /// Those that are asked for.
    fn of_kinds(events: Json, params: &Json) -> Json {
        let all = events.as_array().cloned().unwrap_or_default();
        let wanted =
            |event: &Json| params["kinds"].as_array().is_none_or(|kinds| kinds.contains(&event["kind"]));
        all.into_iter().filter(wanted).collect()
    }

    /// What happens while events are followed.
    pub fn live() -> Vec<Json> {
        vec![
            rpc_sock(3, "2026-01-02T03:10:00Z", "ok", "dangling", 354_000_000_000),
            rpc_sock(4, "2026-01-02T03:10:01.5Z", "dangling", "ok", 1_500_000_000),
        ]
    }

    fn rpc_sock(id: u64, time: &str, verdict: &str, was: &str, lasted: i64) -> Json {
        let row = socket("web", "rpc.sock", verdict);
        let mut detail = json!({ "socket": row["socket"], "path": row["path"], "verdict": verdict, "was": was,
            "lasted": lasted, "pid": row["pid"] });
        for of_a_bad_one in ["reason", "culprit"].into_iter().filter(|_| verdict != "ok") {
            detail[of_a_bad_one] = row[of_a_bad_one].clone();
        }
        json!({ "id": id, "time": time, "service": "web", "kind": "verdict", "detail": detail })
    }

    fn service_pid(name: &str) -> Json {
        service(name)["pid"].clone()
    }

    fn sockets(name: &str) -> Vec<Json> {
        match name {
            "redis" => vec![socket("redis", "redis.sock", "ok")],
            _ => vec![socket("web", "rpc.sock", "dangling"), socket("web", "ui.sock", "ok")],
        }
    }

    fn status(name: &str) -> Json {
        let mut record = service(name);
        record["sockets"] = Json::Array(sockets(name));
        record["spec"] =
            json!({ "name": name, "exec": ["/usr/bin/server"], "settle": 100_000_000, "x-mine": 1 });
        record["instance"] = json!({ "generation": 3, "pid": record["pid"], "started": SINCE,
            "boot_id": "7f1c7a53-3f7a-4f57-9d5c-4f3f9c1f3b12", "cgroup": null, "pids": [record["pid"]] });
        record
    }

    fn restart(name: &str) -> Json {
        let up = name == "redis";
        json!({
            "name": name, "outcome": if up { "restarted" } else { "failed" },
            "health_reason": (!up).then_some("declared socket missing on disk: rpc.sock"),
            "old_pid": 4700, "new_pid": service_pid(name), "stopped_in": 9_000_000, "ready_in": up.then_some(40_000_000),
            "took": 51_000_000, "cleaned": [format!("/run/sockets/{name}/rpc.sock")], "killed": [4699],
            "sockets": sockets(name),
        })
    }

    fn set(params: &Json) -> Result<Json, Json> {
        let specs = match params["specs"].as_array() {
            Some(specs) => specs.clone(),
            None => vec![params["spec"].clone()],
        };
        specs.iter().map(change).collect::<Result<Json, Json>>()
    }

    fn change(spec: &Json) -> Result<Json, Json> {
        let name = spec["name"].as_str().unwrap();
        if spec["user"] == "ghost" {
            return Err(json!({ "code": -32000, "message": "user: there is no user ghost",
                "data": { "kind": "bad_spec", "field": "user", "help": "name one that is there", "name": name } }));
        }
        let change = if name == "redis" { "unchanged" } else { "created" };
        Ok(json!({ "name": name, "change": change }))
    }
}
