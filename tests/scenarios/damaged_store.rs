//! The store is rubbish when the daemon starts: it is set aside under a name with its date, this is said, and
//! services that run go on; registered and started again, none runs twice.

use libtest_mimic::Trial;
use scenarios::client::ping;
use scenarios::{Json, Need, Result, World, ensure, processes, scenario, specs};
use serde_json::json;
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Trial> {
    vec![scenario("damaged_store", &[Need::Daemon, Need::Nushell], rubbish)]
}

fn rubbish(world: &World) -> Result {
    world.start_daemon()?;
    let spec = specs::unixd(world, "web", &[]);
    let pid = world.up(&spec)?;
    world.kill_daemon()?;
    let database = world.home().join("state.db");
    ensure!(database.exists(), "the database is at {}", database.display());
    let rubbish = vec![0xa5_u8; 40_000];
    fs::write(&database, &rubbish)?;
    fs::write(database.with_extension("db-wal"), "")?;

    world.start_daemon()?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "the service goes on");
    let aside = fs::read_dir(world.home())?.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.to_string_lossy();
        name.contains("state.db.damaged-2") && !name.ends_with("-wal")
    });
    let Some(aside) = aside else { return Err(scenarios::Fault("nothing was set aside".into())) };
    ensure!(fs::read(&aside)? == rubbish, "as it was");
    let doctor = world.nu_json("proc doctor | where not ok")?;
    let said = doctor.to_string();
    ensure!(said.contains("damaged-store") && said.contains(&aside.display().to_string()), "{said}");
    ensure!(said.contains("unknown-instances") && said.contains(&format!("web (pid {pid})")), "{said}");

    world.register(&spec)?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == pid, "a spec ends nothing");
    let started = world.rpc("service.start", json!({"name": "web"}))?;
    let now = world.wait_status("web", "running", SOON)?.pid("pid")?;
    ensure!(ping(&world.socket("web", "rpc.sock"))? == now, "{started}");
    // The orphan bears its mark: it was ended before another was spawned.
    ensure!(now != pid && !processes::alive(pid), "one instance, not {now} beside {pid}: {started}");
    Ok(())
}
