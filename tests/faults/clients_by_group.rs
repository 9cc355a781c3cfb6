//! A socket for the members of a group, as `docker.sock` is; it is given to another group.

use nix::unistd::{Group, User};
use scenarios::fault::Context;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::probe::Seen;
use scenarios::{Need, Relink, Result, Row, World, ensure};
use serde_json::json;

pub const ROW: Row = Row {
    name: "clients_by_group",
    done: "`chgrp` of a socket that is there for the members of a group",
    verdict: "denied",
    reason: "cannot connect: ",
    clients: "EACCES",
    relink: Relink::Untried,
    needs: &[Need::Root, Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    let nobody = User::from_name("nobody")?.context("there is no user nobody")?;
    let group = Group::from_gid(nobody.gid)?.context("nobody's group has no name")?.name;
    let fields = json!({
        "group": group,
        "umask": "007",
        "sockets": [{"path": "rpc.sock", "clients": [group]}],
    });
    let (_, path) = serve_with(world, &[], fields)?;
    let seen = world.client_sees("web", "rpc.sock", Some(&nobody))?;
    ensure!(seen == Seen::Answers, "a member gets in, and sees {seen}");
    world.hand("chgrp", &["root".as_ref(), path.as_os_str()])?;
    world.expect_fault_for(&ROW, "web", "rpc.sock", AT_ONCE, Some(&nobody))?;
    world.hand("chgrp", &[group.as_ref(), path.as_os_str()])?;
    world.serves_again("web", "rpc.sock")
}
