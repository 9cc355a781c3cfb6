//! What an instance finds around it: environment, folder, user, umask, and no file that is not its own.

use libtest_mimic::Trial;
use nix::sys::socket::SockType;
use scenarios::client::ask;
use scenarios::{Json, Need, Result, World, ensure, scenario, specs};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

pub fn trials() -> Vec<Trial> {
    vec![
        scenario("instance_surroundings::environment_and_folder", &[Need::Daemon], environment),
        scenario("instance_surroundings::no_file_is_inherited", &[Need::Daemon], files),
        scenario("instance_surroundings::umask", &[Need::Daemon], umask),
        scenario(
            "instance_surroundings::user_and_group",
            &[Need::Daemon, Need::Root, Need::User("nobody"), Need::User("daemon")],
            user,
        ),
        scenario(
            "instance_surroundings::user_that_the_server_drops_to",
            &[Need::Daemon, Need::Root, Need::User("nobody")],
            drops,
        ),
        scenario("instance_surroundings::bound_by_a_relative_path", &[Need::Daemon], relative),
    ]
}

fn say(world: &World, question: &str) -> Result<String> {
    ask(&world.socket("svc", "rpc.sock"), SockType::Stream, question)
}

fn environment(world: &World) -> Result {
    world.start_daemon()?;
    let folder = world.file("work");
    fs::create_dir(&folder)?;
    let more =
        json!({"cwd": folder, "env": {"COLOR": "green", "WHERE": "{socket:rpc.sock} in {socket_dir}"}});
    world.up(&specs::with(specs::unixd(world, "svc", &["--tag", "{socket_dir}"]), more))?;
    ensure!(say(world, "env COLOR")? == "green", "env");
    let socket = world.socket("svc", "rpc.sock").display().to_string();
    let sockets = world.sockets().join("svc").display().to_string();
    ensure!(say(world, "env WHERE")? == format!("{socket} in {sockets}"), "placeholders in env");
    ensure!(
        say(world, "args")?.ends_with(&format!("--tag {sockets} stream:{socket}")),
        "placeholders in exec"
    );
    ensure!(say(world, "cwd")? == folder.display().to_string(), "cwd");
    ensure!(say(world, "env SHIMD_INSTANCE")?.contains("svc"), "the mark of its instance");
    Ok(())
}

fn files(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "svc", &[]))?;
    let open = say(world, "fds")?;
    let logs = world.home().join("logs");
    let own = [
        "0=/dev/null".to_owned(),
        format!("1={}", logs.join("svc.out").display()),
        format!("2={}", logs.join("svc.err").display()),
    ];
    for entry in open.split(' ') {
        let (number, target) = entry.split_once('=').unwrap_or((entry, ""));
        // What the server opened itself: its sockets, its signals, and the folder that it is reading.
        let opened =
            ["socket:", "anon_inode:[signalfd]", "/proc/"].iter().any(|kind| target.starts_with(kind));
        let standard = number.len() == 1 && number < "3";
        ensure!(
            own.iter().any(|own| own == entry) || opened && !standard,
            "{entry} is not its own, of {open}"
        );
    }
    // The listener, this connection, and nothing of the daemon's.
    ensure!(open.matches("socket:").count() == 2, "{open}");
    Ok(())
}

fn umask(world: &World) -> Result {
    world.start_daemon()?;
    for (umask, mode) in [("077", 0o700), ("002", 0o775)] {
        world.up(&specs::with(specs::unixd(world, "svc", &[]), json!({"umask": umask})))?;
        let found = fs::metadata(world.socket("svc", "rpc.sock"))?.permissions().mode() & 0o777;
        ensure!(found == mode, "umask {umask}: {found:o}");
        world.rpc("service.stop", json!({"name": "svc"}))?;
    }
    Ok(())
}

fn user(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::with(specs::unixd(world, "svc", &[]), json!({"user": "nobody", "group": "daemon"}));
    // A folder where that user may bind; the daemon does not give away folders that exist.
    let folder = world.file("nobodys");
    fs::create_dir(&folder)?;
    nix::unistd::chown(&folder, Some(65534.into()), None)?;
    let socket = folder.join("rpc.sock");
    let binary = world.file("unixd");
    fs::copy(world.unixd(), &binary)?;
    world.up(&specs::with(spec, json!({"exec": [binary, socket], "sockets": [socket]})))?;
    ensure!(ask(&socket, SockType::Stream, "uid")? == "65534", "the user");
    ensure!(ask(&socket, SockType::Stream, "gid")? == "1", "the group");
    ensure!(fs::metadata(&socket)?.uid() == 65534, "the file's owner");
    let pid = world.service("svc")?.pid("pid")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    ensure!(!groups.split_whitespace().any(|group| group == "0"), "root's groups are left behind: {groups}");
    Ok(())
}

fn drops(world: &World) -> Result {
    world.start_daemon()?;
    let pid = world.up(&specs::unixd(world, "svc", &["--drop-user", "nobody"]))?;
    ensure!(say(world, "uid")? == "65534", "it became nobody");
    fs::remove_file(world.socket("svc", "rpc.sock"))?;
    let row = world.wait_status("svc", "failed", std::time::Duration::from_secs(10))?;
    ensure!(row.pid("pid")? == pid, "{row}");
    let stopped = world.rpc("service.stop", json!({"name": "svc"}))?;
    ensure!(stopped.only()?.text("status")? == "inactive", "{stopped}");
    Ok(())
}

fn relative(world: &World) -> Result {
    world.start_daemon()?;
    world.up(&specs::unixd(world, "svc", &["--relative"]))?;
    let rows = world.rpc("socket.check", json!({"name": "svc"}))?;
    ensure!(rows.only()?.text("verdict")? == "ok", "matched by inode, not by name: {rows}");
    Ok(())
}
