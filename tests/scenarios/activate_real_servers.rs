//! Real servers that take `LISTEN_FDS`, or a descriptor's number: restarted under clients in a loop, and killed with
//! clients in the queue.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use scenarios::fault::Context;
use scenarios::{Fault, Json, Need, Record, Result, World, ensure, processes, scenario, specs};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const RESTARTS: usize = 5;
const CLIENTS: usize = 3;

/// A server, what of its command line binds a path of its own, what is said instead, and whether it answers everybody
/// whom it has accepted before it ends.
struct Server {
    name: &'static str,
    binds: &'static str,
    instead: &'static [&'static str],
    finishes: bool,
}

const SERVERS: [Server; 2] = [
    Server { name: "gunicorn", binds: "-b", instead: &[], finishes: true },
    // A connection that has not said anything yet is closed at its shutdown.
    Server { name: "uvicorn", binds: "--uds", instead: &["--fd", "3"], finishes: false },
];

pub fn trials() -> Vec<Trial> {
    let trial = |server: Server| {
        let name = format!("activate_real_servers::{}", server.name);
        match Record::named(server.name) {
            Ok(record) => {
                let needs = [Need::Daemon, Need::Server(Box::new(record.clone()))];
                scenario(&name, &needs, move |world| story(world, &record, &server))
            }
            Err(fault) => Trial::test(name, move || Err(fault.into())),
        }
    };
    SERVERS.into_iter().map(trial).collect()
}

/// The record's spec with its socket in the mode `activate`.
fn activated(spec: &Value, server: &Server) -> Result<Value> {
    let mut exec: Vec<String> =
        spec.field("exec").rows()?.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    let at = exec.iter().position(|word| word == server.binds).context("it binds no path")?;
    exec.splice(at..at + 2, server.instead.iter().map(|word| (*word).to_owned()));
    let mut sockets = spec.field("sockets").clone();
    for socket in sockets.as_array_mut().context("no sockets")? {
        let path = socket.get("path").unwrap_or(socket).clone();
        *socket = json!({"path": path, "mode": "activate"});
    }
    let restart = json!({"policy": "always", "delay": "20ms", "limit": 50});
    Ok(specs::with(spec.clone(), json!({"exec": exec, "sockets": sockets, "restart": restart})))
}

fn request(mut client: UnixStream) -> Result<UnixStream> {
    client.set_read_timeout(Some(SOON))?;
    client.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    Ok(client)
}

fn answered(mut client: UnixStream) -> bool {
    let mut answer = String::new();
    client.read_to_string(&mut answer).is_ok() && answer.contains("200 OK")
}

fn story(world: &World, record: &Record, server: &Server) -> Result {
    let prepared = record.prepare(world)?;
    world.start_daemon()?;
    let name = record.name.as_str();
    world.up(&activated(&prepared.spec, server)?)?;
    prepared.answers(world)?;
    let path = prepared.sockets.first().context("no socket")?;

    let (over, served, dropped) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let client = || -> Result {
            while !over.load(Ordering::Relaxed) {
                let client = UnixStream::connect(path).context("a client was refused")?;
                let done = request(client).is_ok_and(answered);
                if done { &served } else { &dropped }.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let restarting = (0..RESTARTS).try_for_each(|_| {
            let restarted = world.rpc("service.restart", json!({"name": name}))?;
            ensure!(restarted.only()?.text("outcome")? == "restarted", "{restarted}");
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| Fault("a client panicked".into()))??;
        }
        restarting
    })?;
    let (served, dropped) = (served.into_inner(), dropped.into_inner());
    world.note(format!("{served} requests were answered, {dropped} closed without an answer"));
    ensure!(served > 0 && (dropped == 0 || !server.finishes), "{dropped} of {served} dropped");

    // All of its processes at once: what waits in the queue is answered by the next.
    for pid in world.instance_pids(name)? {
        processes::signal(pid, Signal::SIGSTOP);
    }
    let waiting = (0..10).map(|_| request(UnixStream::connect(path)?)).collect::<Result<Vec<_>>>()?;
    for pid in world.instance_pids(name)? {
        processes::signal(pid, Signal::SIGKILL);
    }
    for client in waiting {
        ensure!(answered(client), "a client that waited is not answered");
    }
    world.wait_status(name, "running", SOON)?;
    Ok(())
}
