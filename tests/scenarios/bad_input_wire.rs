//! Malformed JSON, NUON and RPC: an error with the right code, and the daemon goes on.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("bad_input_wire::files", &[Need::Daemon, Need::Nushell], files),
        scenario("bad_input_wire::requests", &[Need::Daemon], requests),
        scenario("bad_input_wire::bytes", &[Need::Daemon], bytes),
        scenario("bad_input_wire::too_large", &[Need::Daemon], too_large),
    ]
}

fn files(world: &World) -> Result {
    world.start_daemon()?;
    for (name, text) in [
        ("cut.json", r#"{"name": "web", "exec": ["#),
        ("empty.json", ""),
        ("list.json", "[[[]]]"),
        ("cut.nuon", "{name: web, exec: ["),
        ("words.nuon", "this is: not, a spec"),
    ] {
        let file = world.write(name, text)?;
        let refused = world.nu_refuses(&format!("proc register {}", file.display()), "proc::bad_spec")?;
        ensure!(!refused.labels.is_empty(), "{name}: {refused}");
    }
    let missing = world.file("missing.json");
    let refused = world.nu_error(&format!("proc register {}", missing.display()))?;
    ensure!(refused.mentions("missing.json"), "{refused}");
    let listed = world.rpc("service.list", json!({}))?;
    ensure!(listed.rows()?.is_empty(), "nothing is registered: {listed}");
    Ok(())
}

fn requests(world: &World) -> Result {
    world.start_daemon()?;
    for (line, code) in [
        ("{this is no JSON}", -32700),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "shim.info""#, -32700),
        (r#"{"jsonrpc": "2.0", "id": 1}"#, -32600),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": 5}"#, -32600),
        (r#"{"jsonrpc": "1.0", "id": 1, "method": "shim.info"}"#, -32600),
        ("[]", -32600),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "no.such"}"#, -32601),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "service.start", "params": {"name": 5}}"#, -32602),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "service.start", "params": {}}"#, -32602),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "service.set", "params": {}}"#, -32602),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "service.list", "params": "all"}"#, -32600),
    ] {
        let answer = world.exchange(line)?;
        ensure!(answer.field("error").int("code")? == code, "{line}: {code} expected: {answer}");
    }
    // An id of any kind comes back as it went in.
    for id in [json!("text"), json!(7.5), Value::Null] {
        let answer =
            world.exchange(&json!({"jsonrpc": "2.0", "id": id, "method": "shim.info"}).to_string())?;
        ensure!(answer.field("id") == &id && answer.get("result").is_some(), "{answer}");
    }
    Ok(())
}

/// Bytes that are no message at all: whatever the answer is, the daemon goes on.
fn bytes(world: &World) -> Result {
    world.start_daemon()?;
    for bytes in [
        &b"\0\0\0\0"[..],
        b"\xff\xfe\n",
        b"\n\n\n\n",
        b"GET\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"{",
    ] {
        let mut stream = UnixStream::connect(world.control_socket())?;
        stream.set_read_timeout(Some(SOON))?;
        // The daemon may have closed already; that is an answer too.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        world.daemon_pid()?;
    }
    Ok(())
}

fn too_large(world: &World) -> Result {
    world.start_daemon()?;
    let mut stream = UnixStream::connect(world.control_socket())?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    let spec = json!({"name": "web", "exec": ["/bin/true"], "note": "x".repeat(1 << 20)});
    let line =
        json!({"jsonrpc": "2.0", "id": 1, "method": "service.set", "params": {"spec": spec}}).to_string();
    // The rest of the message may find the connection closed.
    let _ = stream.write_all(line.as_bytes()).and_then(|()| stream.write_all(b"\n"));
    let mut answer = String::new();
    // After the answer the connection may be reset, since part of the message was not read.
    let _ = stream.read_to_string(&mut answer);
    let first = answer.lines().next().unwrap_or_default();
    let answer: Value = serde_json::from_str(first)?;
    ensure!(answer.field("error").field("data").text("kind")? == "too_large", "{answer}");
    wait_until(SOON, "others are served", || world.daemon_pid().is_ok())
}
