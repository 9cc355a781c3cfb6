//! A server that binds with a mode of 0600, as a changed umask does: its owner sees nothing of it, its clients do.

use nix::unistd::User;
use scenarios::fault_matrix::{AT_ONCE, serve_with};
use scenarios::probe::Seen;
use scenarios::{Need, Relink, Result, Row, World, ensure};
use serde_json::json;

pub const ROW: Row = Row {
    name: "socket_closed_to_its_clients",
    done: "`chmod 0600` of the file, of a socket that is there for another user",
    verdict: "denied",
    reason: "nobody cannot connect: ",
    clients: "EACCES",
    relink: Relink::Untried,
    needs: &[Need::Root, Need::User("nobody")],
};

pub fn run(world: &World) -> Result {
    let sockets = json!({"umask": "000", "sockets": [{"path": "rpc.sock", "clients": ["nobody"]}]});
    let (_, path) = serve_with(world, &[], sockets)?;
    let nobody = User::from_name("nobody")?;
    let seen = world.client_sees("web", "rpc.sock", nobody.as_ref())?;
    ensure!(seen == Seen::Answers, "it was open to its clients, and one sees {seen}");
    world.hand("chmod", &["0600".as_ref(), path.as_os_str()])?;
    world.expect_fault_for(&ROW, "web", "rpc.sock", AT_ONCE, nobody.as_ref())?;
    world.hand("chmod", &["0666".as_ref(), path.as_os_str()])?;
    world.serves_again("web", "rpc.sock")
}
