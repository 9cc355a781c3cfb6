//! The folder is made private, as an upgrade's `install -d` does; the file in it is as it was.

use nix::unistd::User;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::{Need, Relink, Result, Row, World};
use serde_json::json;

pub const ROW: Row = Row {
    name: "folder_closed_to_its_clients",
    done: "`chmod 0700` of the folder of a socket that is there for another user",
    verdict: "denied",
    reason: "may not be searched by nobody",
    clients: "EACCES",
    relink: Relink::Untried,
    needs: &[Need::Root, Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    let sockets = json!({"umask": "000", "sockets": [{"path": "rpc.sock", "clients": ["nobody"]}]});
    serve_with(world, &[], sockets)?;
    let folder = world.sockets().join("web");
    world.hand("chmod", &["0700".as_ref(), folder.as_os_str()])?;
    let nobody = User::from_name("nobody")?;
    world.expect_fault_for(&ROW, "web", "rpc.sock", AT_ONCE, nobody.as_ref())?;
    world.hand("chmod", &["0755".as_ref(), folder.as_os_str()])?;
    world.serves_again("web", "rpc.sock")
}
