//! A second instance cannot bind, gives up, and tidies up on its way out: not what is its own.

use scenarios::fault_matrix::{AT_ONCE, serve};
use scenarios::{Need, Relink, Result, Row, World, ensure};

pub const ROW: Row = Row {
    name: "second_instance_fails_and_unlinks",
    done: "a second instance that cannot bind unlinks on its way out",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[Need::Program("python3")],
};

const SECOND: &str = r#"
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
try:
    server.bind(sys.argv[1])
    server.listen()
except OSError as error:
    sys.exit(f"cannot start: {error}")
finally:
    os.unlink(sys.argv[1])
"#;

pub fn run(world: &World) -> Result {
    let (_, path) = serve(world, &[])?;
    let arguments = ["-c".as_ref(), SECOND.as_ref(), path.as_os_str()];
    let (second, code) = world.hand_that_exits(world.user(), "python3", &arguments)?;
    ensure!(code == Some(1), "{second} was to fail, and exited with {code:?}");
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    world.expect_culprit("web", "rpc.sock", &second)?;
    world.cured_by_clean_restart("web", "rpc.sock")
}
