//! A client that takes the socket for its own, and removes the file when it is done.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World};

pub const ROW: Row = Row {
    name: "client_library_cleans_up",
    done: "a client asks, and unlinks the path when it is done",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[Need::Program("python3")],
};

const CLIENT: &str = r#"
import os, socket, sys
class Connection:
    def __init__(self, path):
        self.path, self.socket = path, socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
    def ask(self, line):
        self.socket.sendall(line.encode() + b"\n")
        return self.socket.recv(100).decode()
    def close(self):
        self.socket.close()
        os.unlink(self.path)
connection = Connection(sys.argv[1])
assert connection.ask("ping").startswith("pong ")
connection.close()
"#;

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let client = world.hand("python3", &["-c".as_ref(), CLIENT.as_ref(), path.as_os_str()])?;
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.expect_culprit("web", "rpc.sock", &client)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
