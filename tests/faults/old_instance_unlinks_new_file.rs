//! A wrapper that rolls: the next server binds the path, and then the old one unlinks, at its end, what lies there.

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use scenarios::client::ping;
use scenarios::fault_matrix::AT_ONCE;
use scenarios::hand::Hand;
use scenarios::{Relink, Result, Row, World, processes, specs, wait_until};
use serde_json::json;

pub const ROW: Row = Row {
    name: "old_instance_unlinks_new_file",
    done: "the exit handler of an old instance, after the new one has bound",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

/// At SIGHUP the next server is started, and the old one is told to go once the next one answers, and its file has so many
/// links: with `on_missing: relink`, once it has a pin too. Else it may go before there is one, on a busy machine, which a restart
/// then makes good.
const ROLL: &str = r#"
unixd=$1 path=$2 links=$3
start() { "$unixd" --unlink-at-exit "$path" & server=$!; }
roll() {
    old=$server
    start
    until [ "$("$unixd" probe stream "$path")" = "pong $server" ]; do :; done
    until [ "$(stat -c %h "$path")" -ge "$links" ]; do :; done
    kill "$old"
    wait "$old"
}
start
trap roll HUP
trap 'kill "$server"; wait "$server"; exit 0' TERM
while kill -0 "$server"; do wait "$server"; done
"#;

pub fn run(world: &World) -> Result {
    let script = world.write("roll.sh", ROLL)?;
    world.start_daemon()?;
    let links = if world.relinks() { "2" } else { "1" };
    let exec = json!({"exec": ["/bin/sh", script, world.unixd(), "{socket:rpc.sock}", links]});
    let wrapper = world.up(&specs::with(specs::unixd(world, "web", &[]), exec))?;
    let old = ping(&world.socket("web", "rpc.sock"))?;
    processes::signal(wrapper, Signal::SIGHUP);
    world.binds_anew("web");
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    let uid = world.user().map_or(geteuid(), |user| user.uid).as_raw();
    let old = Hand { pid: old, name: "unixd".into(), uid };
    world.expect_culprit("web", "rpc.sock", &old)?;
    wait_until(AT_ONCE, format!("the old server {old} is gone"), || !processes::alive(old.pid))?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
