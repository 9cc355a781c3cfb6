//! All the files of a service with several sockets go at once; each is said by its own row.

use scenarios::fault_matrix::AT_ONCE;
use scenarios::{Json, Relink, Result, Row, World, ensure, specs};

pub const ROW: Row = Row {
    name: "all_sockets_removed",
    done: "`rm` of all of three sockets at once",
    verdict: "dangling",
    reason: "removed",
    clients: "ENOENT",
    relink: Relink::PutBack,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    const SOCKETS: [&str; 3] = ["rpc.sock", "log.sock", "seq.sock"];
    world.start_daemon()?;
    world.up(&specs::unixd_on(world, "web", &["rpc.sock", "dgram:log.sock", "seqpacket:seq.sock"], &[]))?;
    let rm = world.hand("rm", &SOCKETS.map(|socket| world.socket("web", socket)))?;
    // The service's own words are of the first; each socket's client is held to the row.
    world.expect_fault(&ROW, "web", "rpc.sock", AT_ONCE)?;
    for socket in SOCKETS {
        world.wait_verdict("web", socket, ROW.verdict, ROW.reason, AT_ONCE)?;
        world.expect_culprit("web", socket, &rm)?;
    }
    for socket in SOCKETS {
        let seen = world.client_sees("web", socket, None)?.to_string();
        ensure!(seen == ROW.clients, "{socket}: a client sees {seen}");
    }
    let row = world.service("web")?;
    ensure!(row.int("sockets_ok")? == 0 && row.int("sockets")? == 3, "{row}");
    for socket in SOCKETS {
        world.cured_by_clean_restart("web", socket)?;
    }
    Ok(())
}
