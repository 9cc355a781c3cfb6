//! `chown -R` over a folder with a live socket in it: who was the owner is anybody now.

use nix::unistd::User;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Need, Relink, Result, Row, World};
use serde_json::json;

pub const ROW: Row = Row {
    name: "socket_chowned",
    done: "`chown` of the file to another user than its clients",
    verdict: "denied",
    reason: "nobody cannot connect: ",
    clients: "EACCES",
    relink: Relink::Untried,
    needs: &[Need::Root, Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    let sockets = json!({"user": "nobody", "sockets": [{"path": "rpc.sock", "clients": ["nobody"]}]});
    let (_, path) = serve_with(world, &[], sockets)?;
    world.hand("chown", &["root:root".as_ref(), path.as_os_str()])?;
    let nobody = User::from_name("nobody")?;
    world.expect_fault_for(&ROW, "web", "rpc.sock", AT_ONCE, nobody.as_ref())?;
    world.hand("chown", &["nobody".as_ref(), path.as_os_str()])?;
    world.serves_again("web", "rpc.sock")
}
