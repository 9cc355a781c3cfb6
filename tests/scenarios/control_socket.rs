//! The control socket: who gets in, what it speaks, and that nobody costs anybody else anything.

use libtest_mimic::Trial;
use scenarios::command::run;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("control_socket::modes", &[Need::Daemon], modes),
        scenario(
            "control_socket::other_users_are_refused",
            &[Need::Daemon, Need::Root, Need::User("nobody")],
            others,
        ),
        scenario("control_socket::http", &[Need::Daemon, Need::Nushell], http),
        scenario("control_socket::many_clients", &[Need::Daemon], many),
        scenario("control_socket::silent_clients_cost_nothing", &[Need::Daemon], silent),
        scenario("control_socket::a_long_start_does_not_hold_others_up", &[Need::Daemon], long_start),
    ]
}

fn modes(world: &World) -> Result {
    world.start_daemon()?;
    let mode = |path| -> Result<u32> { Ok(fs::metadata(path)?.permissions().mode() & 0o777) };
    ensure!(mode(world.control_socket())? == 0o600, "the socket: {:o}", mode(world.control_socket())?);
    ensure!(mode(world.home())? == 0o700, "its folder: {:o}", mode(world.home())?);
    Ok(())
}

/// The modes are opened on purpose: the peer's uid is what counts.
fn others(world: &World) -> Result {
    world.start_daemon()?;
    fs::set_permissions(world.home(), fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(world.control_socket(), fs::Permissions::from_mode(0o666))?;
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"shim.info","params":{}}"#;
    let mut nobody = world.command("/usr/bin/setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"]);
    nobody.arg(format!(
        "echo '{request}' | timeout 3 socat -t2 - UNIX-CONNECT:{}",
        world.control_socket().display()
    ));
    let ran = run(nobody, SOON)?;
    ensure!(!ran.stdout.contains("\"version\""), "a stranger is answered:\n{ran}");
    world.daemon_pid().map(drop)
}

fn http(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "web", &[]))?;
    let socket = world.control_socket();
    let get = |path: &str| {
        world.nu_json(&format!("http get --unix-socket {} http://localhost{path}", socket.display()))
    };
    let health = get("/health")?;
    ensure!(health.is_object(), "{health}");
    let openrpc = get("/openrpc.json")?;
    let methods = openrpc.field("methods");
    ensure!(
        methods.row("name", "service.list").is_ok() && methods.row("name", "rpc.discover").is_ok(),
        "{openrpc}"
    );
    ensure!(world.rpc("rpc.discover", json!({}))? == openrpc, "rpc.discover gives the same");
    get("/.well-known/heroservice.json")?;
    let list = world.nu_json(&format!(
        "http post --unix-socket {} --content-type application/json http://localhost/rpc \
         {{jsonrpc: '2.0', id: 7, method: service.list, params: {{}}}}",
        socket.display()
    ))?;
    ensure!(list.int("id")? == 7 && list.field("result").only()?.text("name")? == "web", "{list}");
    let metrics =
        world.nu(&format!("http get --raw --unix-socket {} http://localhost/metrics", socket.display()))?;
    ensure!(metrics.success()?.stdout.contains("# EOF"), "OpenMetrics end with # EOF");
    Ok(())
}

fn connect(world: &World) -> Result<UnixStream> {
    let stream = UnixStream::connect(world.control_socket())?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

const INFO: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"shim.info\",\"params\":{}}\n";

fn asked(stream: &UnixStream) -> Result<Value> {
    let mut line = String::new();
    let mut writer = stream;
    writer.write_all(INFO)?;
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// 256 are served at a time; one more is refused with an error, and is served once others have left.
fn many(world: &World) -> Result {
    world.start_daemon()?;
    let mut clients = Vec::new();
    for _ in 0..256 {
        let client = connect(world)?;
        ensure!(asked(&client)?.get("result").is_some(), "client {}", clients.len());
        clients.push(client);
    }
    let mut refused = String::new();
    let mut extra = connect(world)?;
    // The refusal may come before or after the request is read, and may be followed by a reset.
    let _ = extra.write_all(INFO);
    let _ = extra.read_to_string(&mut refused);
    let answer: Value = serde_json::from_str(refused.lines().next().unwrap_or_default())?;
    ensure!(answer.field("error").field("data").text("kind")? == "busy", "the 257th: {refused}");
    drop(clients);
    scenarios::wait_until(SOON, "room again", || world.daemon_pid().is_ok())
}

fn silent(world: &World) -> Result {
    world.start_daemon()?;
    let mut held = Vec::new();
    for number in 0..100 {
        let mut client = connect(world)?;
        if number % 2 == 0 {
            client.write_all(b"{\"jsonrpc\": \"2.0\", \"id\": 1, \"meth")?;
        } else {
            // Asks a lot and reads nothing.
            client.set_nonblocking(true)?;
            while client.write(INFO).is_ok() {}
        }
        held.push(client);
    }
    let start = Instant::now();
    for _ in 0..20 {
        world.daemon_pid()?;
    }
    ensure!(
        start.elapsed() < Duration::from_secs(2),
        "20 requests beside silent clients took {:?}",
        start.elapsed()
    );
    Ok(())
}

fn long_start(world: &World) -> Result {
    world.start_daemon()?;
    world.register(&specs::unixd(world, "slow", &["--listen-after", "1500"]))?;
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| world.rpc("service.start", json!({"name": "slow"})));
        world.wait_status("slow", "starting", SOON)?;
        let start = Instant::now();
        world.up(&specs::unixd(world, "quick", &[]))?;
        ensure!(start.elapsed() < Duration::from_millis(1200), "another start took {:?}", start.elapsed());
        let started = starting.join().map_err(|_| scenarios::Fault::new("the request panicked"))??;
        ensure!(started.only()?.text("status")? == "running", "{started}");
        Ok(())
    })
}
