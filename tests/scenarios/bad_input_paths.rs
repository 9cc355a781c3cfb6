//! What lies at a socket's path and is no socket is never removed; a folder that cannot be used is named.

use libtest_mimic::Trial;
use scenarios::{Json, Need, Result, World, ensure, scenario, scenario_as, specs};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub fn trials() -> Vec<Trial> {
    let needs = [Need::Daemon, Need::Nushell];
    vec![
        scenario("bad_input_paths::regular_file", &needs, |world| {
            never_removed(world, &|path| Ok(fs::write(path, "precious")?))
        }),
        scenario("bad_input_paths::folder", &needs, |world| {
            never_removed(world, &|path| Ok(fs::create_dir(path)?))
        }),
        scenario("bad_input_paths::full_folder", &needs, |world| {
            never_removed(world, &|path| {
                fs::create_dir(path)?;
                Ok(fs::write(path.join("precious"), "precious")?)
            })
        }),
        scenario("bad_input_paths::symlink_to_a_file", &needs, |world| {
            never_removed(world, &|path| {
                let target = path.with_extension("target");
                fs::write(&target, "precious")?;
                Ok(symlink(target, path)?)
            })
        }),
        scenario("bad_input_paths::symlink_to_nothing", &needs, |world| {
            never_removed(world, &|path| Ok(symlink("/no/such/file", path)?))
        }),
        scenario("bad_input_paths::symlink_to_a_socket", &needs, |world| {
            never_removed(world, &|path| {
                let target = path.with_extension("target");
                // Closed at once: what is left is a stale socket file, which nobody declared.
                std::os::unix::net::UnixListener::bind(&target)?;
                Ok(symlink(target, path)?)
            })
        }),
        scenario("bad_input_paths::fifo", &needs, |world| {
            never_removed(world, &|path| Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?))
        }),
        scenario("bad_input_paths::stale_socket_is_removed", &[Need::Daemon], stale),
        scenario("bad_input_paths::marker_that_is_a_folder", &[Need::Daemon], marker),
        scenario_as("nobody", "bad_input_paths::folder_that_cannot_be_written", &needs, unwritable),
        scenario_as("nobody", "bad_input_paths::folder_that_cannot_be_made", &needs, unmakable),
    ]
}

/// Everything below a folder: kind, name and content.
fn contents(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let what = if meta.is_symlink() {
            format!("link to {}", fs::read_link(&path)?.display())
        } else if meta.is_dir() {
            format!("{:?}", contents(&path)?)
        } else if meta.is_file() {
            fs::read_to_string(&path)?
        } else {
            format!("{:?}", meta.file_type())
        };
        found.push((path, what));
    }
    found.sort();
    Ok(found)
}

fn never_removed(world: &World, place: &dyn Fn(&Path) -> Result) -> Result {
    world.start_daemon()?;
    let path = world.socket("web", "rpc.sock");
    let folder = world.sockets().join("web");
    fs::create_dir_all(&folder)?;
    place(&path)?;
    let before = contents(&folder)?;
    world.register(&specs::unixd(world, "web", &["--refuse-stale"]))?;
    let check = world.nu_json("proc socket-check web")?;
    ensure!(check.only()?.text("verdict")? == "not-socket", "{check}");
    let started = world.nu_json("proc start web")?;
    let row = started.only()?;
    ensure!(row.text("status")? == "failed", "{row}");
    ensure!(row.text("health_reason")?.contains("rpc.sock"), "it names the path: {row}");
    let restarted = world.nu_json("proc restart web --clean")?;
    ensure!(restarted.only()?.text("outcome")? == "failed", "{restarted}");
    let after = contents(&folder)?;
    ensure!(before == after, "before {before:?}\nafter {after:?}");
    Ok(())
}

fn stale(world: &World) -> Result {
    world.start_daemon()?;
    fs::create_dir_all(world.sockets().join("web"))?;
    // Bound and closed: a dead server's file.
    std::os::unix::net::UnixListener::bind(world.socket("web", "rpc.sock"))?;
    world.register(&specs::unixd(world, "web", &["--refuse-stale"]))?;
    let rows = world.rpc("socket.check", json!({"name": "web"}))?;
    ensure!(rows.only()?.text("verdict")? == "stale", "{rows}");
    world.up(&specs::unixd(world, "web", &["--refuse-stale"])).map(drop)
}

fn marker(world: &World) -> Result {
    world.start_daemon()?;
    let folder = world.socket("web", ".ready");
    fs::create_dir_all(&folder)?;
    world.register(&specs::unixd(world, "web", &[]))?;
    world.rpc("service.start", json!({"name": "web"}))?;
    ensure!(folder.is_dir(), "a folder in the marker's place is never removed");
    Ok(())
}

fn refused(world: &World, folder: &Path) -> Result {
    let socket = folder.join("rpc.sock");
    let spec = specs::with(
        specs::unixd(world, "web", &[]),
        json!({"sockets": [socket], "exec": [world.unixd(), socket]}),
    );
    world.start_daemon()?;
    world.register(&spec)?;
    let started = world.nu_json("proc start web")?;
    let row = started.only()?;
    ensure!(row.text("status")? == "failed", "{row}");
    let reason = row.text("health_reason")?;
    ensure!(reason.contains(&folder.display().to_string()), "it names the folder: {reason}");
    Ok(())
}

fn unwritable(world: &World) -> Result {
    let folder = world.folder().join("locked");
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    refused(world, &folder)
}

fn unmakable(world: &World) -> Result {
    let parent = world.folder().join("locked");
    fs::create_dir(&parent)?;
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755))?;
    refused(world, &parent.join("below"))
}
