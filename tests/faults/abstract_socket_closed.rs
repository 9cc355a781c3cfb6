//! A name in the kernel's list and nowhere else (`@name`): while somebody listens it is there, and then it is not.

use nix::sys::signal::Signal;
use scenarios::fault_matrix::SOON;
use scenarios::{Json, Relink, Result, Row, World, ensure, processes, specs};

pub const ROW: Row = Row {
    name: "abstract_socket_closed",
    done: "the server of an abstract socket closes it, and lives on",
    verdict: "absent",
    reason: "closed",
    clients: "ECONNREFUSED",
    relink: Relink::Untried,
    needs: &[],
};

pub fn run(world: &World) -> Result {
    // The kernel has one list for the whole network namespace.
    let socket = format!("@{}", world.folder().display());
    world.start_daemon()?;
    let pid = world.up(&specs::unixd_on(world, "web", &[&socket], &["--close"]))?;
    world.serves_again("web", &socket)?;
    world.stayed_well("web", &socket)?;
    processes::signal(pid, Signal::SIGUSR2);
    world.expect_fault(&ROW, "web", &socket, SOON)?;
    ensure!(world.service("web")?.pid("pid")? == pid, "the process lives");
    world.cured_by_clean_restart("web", &socket)
}
